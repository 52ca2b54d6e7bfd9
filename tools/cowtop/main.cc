#include <array>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/check_command.h>
#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/diff_command.h>
#include <cowshed/tools/cowtop/doctor_command.h>
#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/options.h>
#include <cowshed/tools/cowtop/record_command.h>
#include <cowshed/tools/cowtop/replay_command.h>
#include <cowshed/tools/cowtop/report_command.h>
#include <cowshed/tools/cowtop/run.h>
#include <cowshed/tools/cowtop/serve/serve_command.h>

namespace {

using namespace cowshed::cowtop;

struct Subcommand {
  std::string_view name;
  int (*run)(std::vector<std::string> words);
};

constexpr std::array kSubcommands = {
    Subcommand{"record", record_command}, Subcommand{"replay", replay_command},
    Subcommand{"report", report_command}, Subcommand{"diff", diff_command},
    Subcommand{"check", check_command},   Subcommand{"doctor", doctor_command},
    Subcommand{"serve", serve_command}};

int run_words(std::vector<std::string> words) {
  for (const Subcommand& each : kSubcommands) {
    if (words.empty() || words[0] != each.name) continue;
    words.erase(words.begin());
    return each.run(std::move(words));
  }
  const auto parsed = parse_arguments(std::move(words));
  return parsed.exit_status ? *parsed.exit_status : run(parsed.options);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run_words({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {
    complain(error.what());
    return kOwnError;
  }
}
