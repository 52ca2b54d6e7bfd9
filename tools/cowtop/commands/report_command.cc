#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
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

// What a report is made from.
struct Source {
  const cow::Measurement* measurement;  // null: of a recording that has only begun
  const RecordingHeader& header;
  const Curves& curves;
  std::string note;  // what is wrong with the recording
  TextForm form = {};
};

struct Format {
  const char* option;
  bool has_file;  // that the option names, else of -o
  bool is_page;   // has the curves, and is made of a recording that has only begun
  const char* help;
  std::string (*text)(const Source&);
};

// The last is the one without an option.
constexpr std::array kFormats = {
    Format{"--json", false, false, "One JSON object (schema cowshed.run/2)",
           [](const Source& of) { return json_report(*of.measurement); }},
    Format{"--folded", false, false, "One line for each stack, and the pages that it copied",
           [](const Source& of) { return folded_report(*of.measurement); }},
    Format{"--html", true, true,
           "Write one page for a browser to FILE: processes, curves, flame graph, causes, search",
           [](const Source& of) {
             return of.measurement == nullptr
                        ? html_begun(of.header, of.note)
                        : html_report(*of.measurement, of.header, of.curves, of.note);
           }},
    Format{"--pprof", true, false,
           "Write a profile to FILE for pprof: copied and new memory by stack, process, cause and "
           "object",
           [](const Source& of) { return pprof_report(*of.measurement, of.header.started_s); }},
    Format{nullptr, false, false, nullptr,
           [](const Source& of) { return text_report(*of.measurement, of.form); }},
};

}  // namespace

Expected<int> report_command(std::vector<std::string> words) {
  CommandLine line({"cowtop report", kReportDescription, kReportUsage, kReportFooter});
  std::string path;
  std::string output;
  TextForm form;
  line.app().add_option("FILE", path, "The recording")->required();
  line.app().add_flag("--all", form.each_process, "Report each process in a row of its own");
  line.app().add_flag("--wide", form.wide, "Report every count of every process");
  CLI::Option* const to_output =
      line.add_file("-o,--output", output, "Write the report to FILE, not to standard output");
  std::vector<CLI::Option*> options;
  for (const Format& each : kFormats) {
    if (each.option == nullptr) continue;
    CLI::Option* const option = each.has_file ? line.add_file(each.option, output, each.help)
                                              : line.app().add_flag(each.option, each.help);
    if (each.has_file) option->excludes(to_output);
    for (CLI::Option* other : options) option->excludes(other);
    options.push_back(option);
  }
  TRY(const auto status, line.parse(std::move(words)));
  if (status) return *status;
  const auto asked = std::ranges::find_if(options, [](auto* each) { return each->count() > 0; });
  const Format& format = kFormats.at(static_cast<std::size_t>(asked - options.begin()));
  if (format.option != nullptr && (form.wide || form.each_process))
    return line.wrong(fmt::format("--all, --wide: not with {}", format.option));

  TRY(auto recording, Recording::open(path));
  Curves curves;
  bool is_begun_only = format.is_page;
  const auto measurement = last_measurement(recording, path, [&](const Json& document) {
    is_begun_only = false;
    if (format.is_page) curves.add(document);
  });
  is_begun_only = is_begun_only && recording.problem().empty();
  if (!measurement && !is_begun_only) return tl::make_unexpected(measurement.error());
  TRY(auto file, OutputFile::open(output, {path}));
  Source source = {measurement ? &*measurement : nullptr, recording.header(), curves, "", form};
  if (!measurement) {
    source.note = measurement.error().message;
  } else if (!recording.is_whole()) {
    source.note = fmt::format("{}: {}; the report is of the first {:.1f} s", path,
                              recording.why_not_whole(), measurement->duration_s);
  }
  if (!source.note.empty()) complain(source.note);
  TRY_VOID(file.write_report(format.text(source)));
  return 0;
}

}  // namespace cowshed::cowtop
