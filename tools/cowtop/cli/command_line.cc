#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <fmt/ranges.h>
#include <iostream>
#include <sstream>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/text/display_width.h>

namespace cowshed::cowtop {
namespace {

class UsageFormatter : public CLI::Formatter {
 public:
  explicit UsageFormatter(std::string usage) : usage_(std::move(usage)) {
    keep_lines_of_footer(*this);
  }
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override {
    return "Usage: " + usage_ + "\n";
  }

 private:
  // CLI11 reflows it since 2.5.
  static void keep_lines_of_footer(auto& formatter) {
    if constexpr (requires { formatter.enable_footer_formatting(false); })
      formatter.enable_footer_formatting(false);
  }

  std::string usage_;
};

}  // namespace

CommandLine::CommandLine(const Text& text)
    : name_(text.name), text_(text), app_(std::make_unique<CLI::App>(text.description, text.name)) {
  app_->formatter(std::make_shared<UsageFormatter>(text.usage));
  app_->footer(text.footer);
  app_->set_help_flag("--help", "Print all help; -h prints one screen");
  app_->set_version_flag("-V,--version", version_text);
}

CommandLine::~CommandLine() = default;

std::string wrong_file_name(const std::string& name) {
  return name.empty() ? "the name of the file is empty" : "";
}

CLI::Option* CommandLine::add_file(const std::string& names, std::string& file,
                                   const std::string& help) {
  return app_->add_option(names, file, help)->type_name("FILE")->check(wrong_file_name);
}

tl::unexpected<Error> CommandLine::wrong(const std::string& message) const {
  return make_error(ErrorCode::invalid_argument, message + " (see " + name_ + " --help)");
}

// Description, usage, examples, and the names of the options: one screen.
std::string CommandLine::short_help() const {
  constexpr int kColumns = 80;
  std::string names;
  for (const CLI::Option* option : app_->get_options()) {
    if (option->get_lnames().empty()) continue;
    names += fmt::format("{}--{}", names.empty() ? "" : ", ", option->get_lnames().front());
  }
  std::string text;
  std::istringstream description(text_.description);
  for (std::string line; std::getline(description, line);)
    for (const std::string& part : live::wrap(line, kColumns)) text += part + "\n";
  text += fmt::format("\nUsage: {}\n\n{}\n\n", text_.usage,
                      text_.footer.substr(0, text_.footer.find("\n\n")));
  for (const std::string& line : live::wrap("Options: " + names, kColumns)) text += line + "\n";
  return text + fmt::format("{} --help explains each.\n", name_);
}

Expected<std::optional<int>> CommandLine::parse(std::vector<std::string> words) {
  if (std::ranges::find(words, "-h") != words.end()) {
    errno = 0;
    if (std::cout << short_help() << std::flush) return 0;
    return system_error("cannot write to standard output", errno);
  }
  try {
    std::ranges::reverse(words);  // the order that CLI11 takes a vector in
    app_->parse(std::move(words));
  } catch (const CLI::Success& success) {  // --help, --version
    errno = 0;
    app_->exit(success);
    if (std::cout.flush()) return 0;
    return system_error("cannot write to standard output", errno);
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::ranges::replace(message, '\n', ' ');
    if (message.ends_with(" PID missing")) message += ": did pgrep find the process?";
    return wrong(message);
  }
  return std::nullopt;
}

Expected<std::optional<int>> CommandLine::parse_with_command(std::vector<std::string> words) {
  const auto separator = std::ranges::find(words, "--");
  if (separator != words.end()) {
    command_.assign(separator + 1, words.end());
    words.erase(separator, words.end());
    if (command_.empty()) return wrong("no command after --");
  }
  app_->allow_extras();
  TRY(const auto status, parse(std::move(words)));
  if (status) return status;
  const std::vector<std::string> rest = app_->remaining();
  if (rest.empty()) return std::nullopt;
  if (rest[0].size() > 1 && rest[0][0] == '-') return wrong(rest[0] + ": no such option");
  return wrong(fmt::format("{}: a command comes after --, as in {} -- {}", rest[0], name_,
                           fmt::join(rest, " ")));
}

}  // namespace cowshed::cowtop
