#include <cstdlib>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/commands/commands.h>
#include <cowshed/tools/cowtop/commands/top_options.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/live/live_view.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/report/text_report.h>

namespace cowshed::cowtop {

Expected<int> top_command(std::vector<std::string> words) {
  TRY(const auto parsed, parse_arguments(std::move(words)));
  if (parsed.exit_status) return *parsed.exit_status;
  const Options& options = parsed.options;
  // Before the command runs: a path that cannot be written is known before hours of measuring.
  TRY(auto file, OutputFile::open(options.output));
  std::unique_ptr<live::LiveView> view;
  if (options.live && live::Terminal::is_there()) {
    TRY(view, live::LiveView::open(options.measure));
  } else if (options.live && ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
    const char* terminal = std::getenv("TERM");
    complain(
        fmt::format("no live view: terminfo does not say how to place text on TERM={}; install "
                    "ncurses-term, or set TERMINFO or TERM",
                    terminal == nullptr ? "" : terminal));
  }
  const Measured measured = measure(options.measure, view.get());
  if (view) view->end(measured);
  if (!measured.measurement) return measured.exit_status;
  const auto written =
      file.write_report(options.json ? json_report(*measured.measurement)
                                     : text_report(*measured.measurement, options.text));
  return written ? measured.exit_status : own_error_after(written.error(), measured.exit_status);
}

}  // namespace cowshed::cowtop
