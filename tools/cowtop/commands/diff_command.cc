#include <CLI/CLI.hpp>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/recording/measurement_file.h>
#include <cowshed/tools/cowtop/report/comparison_report.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kDiffDescription =
    "Compares two runs: the memory and new memory of their processes, and what they copied, by\n"
    "process, object, code site and mapping.";

constexpr const char* kDiffUsage = "cowtop diff [OPTIONS] BEFORE AFTER";

constexpr const char* kDiffFooter = R"(Examples:
  cowtop record -o before.cowtop -- ./server --workers 4
  cowtop record -o after.cowtop -- ./server --workers 4 --freeze
  cowtop diff before.cowtop after.cowtop
  cowtop diff --json before.cowtop after.cowtop | jq .total
  cowtop diff before.cowtop after.cowtop --html change.html

BEFORE and AFTER are recordings, or what cowtop --json has written.  Processes are matched by their
place in the tree: server/worker[2] is the second worker of the server, in order of start.  Where so
many had ended that some were added up, on either side, server/worker[all] are all of them, and what
they started is their parent's.  If the two commands have different names, as by another launcher,
they are one: python|python3, and so are their children of that name.  "-" is what is not known, or
was not there.

Exit status: 0, whatever has changed (cowtop check --baseline is the judge); 125 if a file cannot be
read, or bad usage.)";

}  // namespace

Expected<int> diff_command(std::vector<std::string> words) {
  CommandLine line({"cowtop diff", kDiffDescription, kDiffUsage, kDiffFooter});
  ComparedNames names;
  std::string output;
  bool json = false;
  std::string html;
  line.app().add_option("BEFORE", names.before, "A recording, or a JSON report")->required();
  line.app().add_option("AFTER", names.after, "What to compare with it")->required();
  CLI::Option* const page = line.add_file("--html", html, "Write one page for a browser to FILE");
  line.app().add_flag("--json", json, "One JSON object (schema cowshed.diff/1)")->excludes(page);
  line.add_file("-o,--output", output, "Write the report to FILE, not to standard output")
      ->excludes(page);
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;

  TRY(const auto before, read_measurement(names.before));
  TRY(const auto after, read_measurement(names.after));
  for (const auto* each : {&before, &after})
    if (!each->note.empty()) complain(each->note);
  if (before.measurement.backend != after.measurement.backend) {
    complain("the " + before.measurement.backend + " backend measured one and the " +
             after.measurement.backend + " backend the other: they do not count the same");
  }
  TRY(auto file, OutputFile::open(html.empty() ? output : html, {names.before, names.after}));
  const Comparison comparison = compare(before.measurement, after.measurement);
  TRY_VOID(file.write_report(!html.empty() ? html_comparison(comparison, names)
                             : json        ? comparison_json(comparison, names)
                                           : comparison_table(comparison, names)));
  return 0;
}

}  // namespace cowshed::cowtop
