#include <memory>
#include <utility>

#include <cowshed/tools/cowtop/complain.h>
#include <cowshed/tools/cowtop/live/live_view.h>
#include <cowshed/tools/cowtop/measure.h>
#include <cowshed/tools/cowtop/measurement_json.h>
#include <cowshed/tools/cowtop/options.h>
#include <cowshed/tools/cowtop/output_file.h>
#include <cowshed/tools/cowtop/table_report.h>

namespace cowshed::cowtop {

int run(const Options& options) {
  // Before the command runs: a path that cannot be written is known before hours of measuring.
  auto file = OutputFile::open(options.output);
  if (!file) return own_error(file.error());
  std::unique_ptr<live::LiveView> view;
  if (options.live && live::Terminal::is_there()) {
    auto opened = live::LiveView::open(options.measure);
    if (!opened) return own_error(opened.error());
    view = std::move(*opened);
  }
  const Measured measured = measure(options.measure, view.get());
  if (view) view->end(measured);
  if (!measured.measurement) return measured.exit_status;
  const auto written = file->write_report(options.json ? json_report(*measured.measurement)
                                                       : table_report(*measured.measurement));
  return written ? measured.exit_status : own_error_after(written.error(), measured.exit_status);
}

}  // namespace cowshed::cowtop
