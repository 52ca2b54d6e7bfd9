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

// What a report of a problem needs: the release on the first line, then what was built and of
// what, the libraries that are loaded, and the kernel that runs.  No newline at the end.
std::string version_text();

// For an option's check(): empty, or what is wrong with the name of a file, as of a variable that
// is not set.
std::string wrong_file_name(const std::string& name);

// The command line of cowtop or of one of its subcommands: GNU-style options, --help and --version.
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

  // Both return the status to exit with at once: --help and --version have been printed.  Errors:
  // invalid_argument.
  // Everything after -- is the command's, and without --, from the first word that is no option.
  Expected<std::optional<int>> parse_with_command(std::vector<std::string> words);
  // Words that are no options are operands that `app` was told of.
  Expected<std::optional<int>> parse(std::vector<std::string> words);

  const std::vector<std::string>& command() const { return command_; }

  // That the command line is wrong.
  tl::unexpected<Error> wrong(const std::string& message) const;
  // The same of a value that was made of it.
  template <class T>
  Expected<T> checked(Expected<T> value) const {
    if (!value) return wrong(value.error().message);
    return value;
  }

 private:
  std::string name_;
  std::unique_ptr<CLI::App> app_;
  std::vector<std::string> command_;
};

}  // namespace cowshed::cowtop
