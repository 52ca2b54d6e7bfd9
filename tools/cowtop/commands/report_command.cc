#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/command_line.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/html/html_report.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/report/folded_report.h>
#include <cowshed/tools/cowtop/report/pprof_report.h>
#include <cowshed/tools/cowtop/report/text_report.h>

namespace cowshed::cowtop {
namespace {

constexpr const char* kReportDescription = "Makes a report of what cowtop record has kept.";

constexpr const char* kReportUsage = "cowtop report [OPTIONS] FILE";

constexpr const char* kReportFooter = R"(Examples:
  cowtop report run.cowtop                      the table that cowtop prints
  cowtop report --json run.cowtop | jq .        the same for a machine to read
  cowtop report --folded run.cowtop | flamegraph.pl > copies.svg
                                                a flame graph of them
  cowtop report run.cowtop --html run.html      a page for a browser
  cowtop report run.cowtop --pprof run.pb.gz && go tool pprof -http : run.pb.gz
                                                a profile for pprof

Stacks are there unless cowtop record had --no-sites or the pagemap backend; together they have as
many pages as were copied.  Those of --pprof have as many as COPIED.  Of a recording that was cut short, the report is of what can be read.

Exit status: 0; 125 if there is nothing to be read, or bad usage.)";

}  // namespace

Expected<int> report_command(std::vector<std::string> words) {
  CommandLine line({"cowtop report", kReportDescription, kReportUsage, kReportFooter});
  std::string path;
  std::string output;
  bool json = false;
  bool folded = false;
  std::string html;
  std::string pprof;
  TextForm form;
  line.app().add_option("FILE", path, "The recording")->required();
  line.app().add_flag("--json", json, "One JSON object (schema cowshed.run/2)");
  line.app().add_flag("--folded", folded, "One line for each stack, and the pages that it copied");
  line.app().add_flag("--all", form.each_process, "Report each process in a row of its own");
  line.app().add_flag("--wide", form.wide, "Report every count of every process");
  line.add_file("--html", html,
                "Write one page for a browser to FILE: processes, curves, flame graph, causes,"
                " search");
  line.add_file("--pprof", pprof,
                "Write a profile to FILE for pprof: copied and new memory by stack, process, cause"
                " and object");
  line.add_file("-o,--output", output, "Write the report to FILE, not to standard output");
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  if (json + folded + !html.empty() + !pprof.empty() > 1)
    return line.wrong("--json, --folded, --html, --pprof: one of them");
  const std::string& other_file = html.empty() ? pprof : html;
  if (!other_file.empty() && !output.empty())
    return line.wrong(fmt::format("--{} and -o: one of them", html.empty() ? "pprof" : "html"));

  TRY(auto recording, Recording::open(path));
  Curves curves;
  bool is_begun_only = true;
  const auto measurement = last_measurement(recording, path, [&](const Json& document) {
    is_begun_only = false;
    if (!html.empty()) curves.add(document);
  });
  // A page is looked at again later.
  is_begun_only = is_begun_only && !html.empty() && recording.problem().empty();
  if (!measurement && !is_begun_only) return tl::make_unexpected(measurement.error());
  TRY(auto file, OutputFile::open(other_file.empty() ? output : other_file, {path}));
  std::string note;
  if (is_begun_only) {
    note = measurement.error().message;
    complain(note);
  } else if (!recording.is_whole()) {
    note = fmt::format("{}: {}; the report is of the first {:.1f} s", path,
                       recording.why_not_whole(), measurement->duration_s);
    complain(note);
  }
  const auto report = [&] {
    if (is_begun_only) return html_begun(recording.header(), note);
    if (!html.empty()) return html_report(*measurement, recording.header(), curves, note);
    if (!pprof.empty()) return pprof_report(*measurement, recording.header().started_s);
    if (json) return json_report(*measurement);
    return folded ? folded_report(*measurement) : text_report(*measurement, form);
  };
  TRY_VOID(file.write_report(report()));
  return 0;
}

}  // namespace cowshed::cowtop
