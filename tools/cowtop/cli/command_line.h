#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cowshed::cowtop {

// Returns what a bug report needs: the release in the first line, then the build, the loaded
// libraries and the running kernel.  No newline at the end.
std::string version_text();

// For an option's check(): returns what is wrong with the name of a file, or an empty text.
std::string wrong_file_name(const std::string& name);

// The command line of cowtop or of one of its subcommands: GNU-style options, -h, --help and
// --version.
class CommandLine {
 public:
  struct Text {
    std::string name;  // "cowtop record"
    std::string description;
    std::string usage;  // after "Usage: "
    std::string footer;
  };
  explicit CommandLine(const Text& text);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  ~CommandLine();

  CLI::App& app() { return *app_; }
  // An option that takes the name of a file.
  CLI::Option* add_file(const std::string& names, std::string& file, const std::string& help);

  // Both parse the words.  They return an exit status after --help and --version, which they print.
  // Errors: invalid_argument.
  // Here the command begins after --.
  Expected<std::optional<int>> parse_with_command(std::vector<std::string> words);
  // Here words that are no options are operands of `app`.
  Expected<std::optional<int>> parse(std::vector<std::string> words);

  const std::vector<std::string>& command() const { return command_; }

  // Returns an error of the command line, with a hint to --help.
  tl::unexpected<Error> wrong(const std::string& message) const;
  // Turns the error of a value from the command line into such an error.
  template <class T>
  Expected<T> checked(Expected<T> value) const {
    if (!value) return wrong(value.error().message);
    return value;
  }

 private:
  std::string short_help() const;

  std::string name_;
  Text text_;
  std::unique_ptr<CLI::App> app_;
  std::vector<std::string> command_;
};

}  // namespace cowshed::cowtop
