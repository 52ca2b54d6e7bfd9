#include "program.h"

#include <CLI/CLI.hpp>
#include <exception>
#include <fmt/format.h>
#include <string_view>

namespace cowshed::bench {
namespace {

constexpr int kQuickPairs = 2;

int run(int argc, char** argv, const Program& program) {
  Options options;
  std::string json_file;
  std::string configuration;
  CLI::App app(program.question, program.name);
  app.add_flag("--quick", options.quick, "tiny sizes and few pairs: that it runs, not how fast");
  app.add_flag("--real-time", options.real_time,
               "an hour's recording takes an hour, ten minutes of use ten minutes")
      ->excludes("--quick");
  app.add_option("--pairs", options.pairs, "pairs of measurements per comparison")
      ->default_str(std::to_string(program.pairs))
      ->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "only the groups whose name contains this");
  app.add_option("--json", json_file, "also write the report to this file as one JSON object");
  if (program.make_work != nullptr) app.add_option("--subject", configuration)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!configuration.empty()) return run_subject(configuration, program.make_work);
  if (options.pairs == 0) options.pairs = options.quick ? kQuickPairs : program.pairs;
  Report report(program.name, program.question);
  program.measure(options, report);
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
