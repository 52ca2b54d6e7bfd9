#include <algorithm>
#include <array>
#include <exception>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>

#ifndef COWSHED_SERVE
cowshed::Expected<int> cowshed::cowtop::serve_command(std::vector<std::string> /*words*/) {
  return make_error(
      ErrorCode::unsupported,
      "serve is not in this build: configure it with -DCOWSHED_SERVE=ON, which takes Boost");
}
#endif

namespace {

using namespace cowshed::cowtop;

struct Subcommand {
  std::string_view name;
  cowshed::Expected<int> (*run)(std::vector<std::string> words);
};

constexpr std::array kSubcommands = {
    Subcommand{"record", record_command}, Subcommand{"report", report_command},
    Subcommand{"diff", diff_command},     Subcommand{"check", check_command},
    Subcommand{"cure", cure_command},     Subcommand{"collapse", collapse_command},
    Subcommand{"doctor", doctor_command}, Subcommand{"serve", serve_command},
    Subcommand{"help", help_command}};

cowshed::Error no_such_subcommand(const std::vector<std::string>& words) {
  constexpr std::size_t kTypingErrors = 2;
  const auto& nearest = *std::ranges::min_element(
      kSubcommands, {}, [&](const auto& each) { return edits(words[0], each.name); });
  std::string text = words[0] + ": no subcommand of cowtop";
  if (edits(words[0], nearest.name) <= kTypingErrors)
    text += fmt::format("; did you mean {}?", nearest.name);
  else text += fmt::format("; to measure a command: cowtop -- {}", fmt::join(words, " "));
  return {cowshed::ErrorCode::invalid_argument, 0, text + "  (see cowtop --help)"};
}

// A standard descriptor that is closed would be the next file that is opened, and what is meant for
// it would be written there: a warning into the report.  The command has it closed as before.
void hold_closed_standard_descriptors() {
  int fd = -1;
  do {
    fd = ::open("/dev/null", O_PATH | O_CLOEXEC);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

cowshed::Expected<int> run_words(std::vector<std::string> words) {
  if (words.size() == 2 && words[0] == "help" &&
      std::ranges::any_of(kSubcommands, [&](const auto& each) { return each.name == words[1]; })) {
    words = {words[1], "--help"};
  }
  for (const Subcommand& each : kSubcommands) {
    if (words.empty() || words[0] != each.name) continue;
    words.erase(words.begin());
    return each.run(std::move(words));
  }
  if (!words.empty() && !words[0].starts_with('-'))
    return tl::make_unexpected(no_such_subcommand(words));
  return top_command(std::move(words));
}

}  // namespace

int main(int argc, char** argv) {
  hold_closed_standard_descriptors();
  try {
    const auto status = run_words({argv + (argc > 0 ? 1 : 0), argv + argc});
    return status ? *status : own_error(status.error());
  } catch (const std::exception& error) {
    complain(error.what());
    return kOwnError;
  }
}
