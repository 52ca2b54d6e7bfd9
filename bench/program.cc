#include "program.h"

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <fmt/format.h>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "machine.h"

namespace cowshed::bench {
namespace {

constexpr int kQuickPairs = 2;

// What tells an allocator, or the kernel, how to serve this process: not what is to be measured.
// An allocator has read it already, so that this process starts anew without.
void forget_inherited_settings(char** argv, const Program& program) {
  ::prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
  constexpr std::array<std::string_view, 2> kPrefixes = {"MALLOC_", "GLIBC_TUNABLES="};
  std::vector<std::string> found;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    for (const std::string_view prefix : kPrefixes)
      if (text.starts_with(prefix)) found.emplace_back(text.substr(0, text.find('=')));
  }
  if (found.empty()) return;
  fmt::print(stderr, "{}: measured without {}, which the environment sets\n", program.name,
             fmt::join(found, ", "));
  for (const std::string& name : found) ::unsetenv(name.c_str());
  ::execv("/proc/self/exe", argv);
  throw std::system_error(errno, std::system_category(), "execv");
}

int run(int argc, char** argv, const Program& program) {
  Options options;
  std::string json_file;
  std::string configuration;
  CLI::App app(program.question, program.name);
  app.add_flag("--quick", options.quick, "tiny sizes and few pairs: that it runs, not how fast");
  app.add_option("--pairs", options.pairs, "pairs of measurements per comparison")
      ->default_str(std::to_string(program.pairs))
      ->check(CLI::Range(1, std::numeric_limits<int>::max()).description(""));
  app.add_option("--only", options.only, "only the groups whose name contains this");
  app.add_option("--json", json_file, "also write the report to this file as one JSON object");
  if (program.make_work != nullptr) app.add_option("--subject", configuration)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!configuration.empty()) return run_subject(configuration, program.make_work);
  forget_inherited_settings(argv, program);
  if (options.pairs == 0) options.pairs = options.quick ? kQuickPairs : program.pairs;
  Report report(program.name, program.question);
  if (!has_huge_pages())
    report.setting("2 MiB pages", "none on this machine: what is called huge has none either");
  program.measure(options, report);
  if (options.left_out > 0 && options.wanted == 0)
    throw std::runtime_error("--only: no group has '" + options.only + "' in its name");
  report.print();
  if (!json_file.empty()) report.write_json(json_file);
  return 0;
}

}  // namespace

int run_program(int argc, char** argv, const Program& program) {
  try {
    return run(argc, argv, program);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "{}: {}\n", program.name, failure.what());
    return 1;
  }
}

int run_subject_program(int argc, char** argv, MakeWork make_work) {
  if (argc != 3 || std::string_view(argv[1]) != "--subject") return 2;
  return run_subject(argv[2], make_work);
}

}  // namespace cowshed::bench
