#include <fmt/format.h>

#include <cowshed/tools/cowtop/baseline.h>
#include <cowshed/tools/cowtop/measurement_file.h>

namespace cowshed::cowtop {
namespace {

tl::unexpected<Error> bad(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::bad_recording, path + ": " + what);
}

}  // namespace

Expected<Baseline> read_baseline(const std::string& path) {
  const auto earlier = read_measurement(path);
  if (!earlier) return tl::make_unexpected(earlier.error());
  Baseline baseline;
  baseline.backend = earlier->measurement.backend;
  if (!earlier->note.empty()) baseline.notes.push_back(earlier->note);
  std::size_t not_known = 0;
  for (const cow::ProcessCopies& process : earlier->measurement.processes) {
    const auto bytes = process.copied_bytes();
    if (!bytes) ++not_known;
    baseline.copied_bytes += bytes.value_or(0);
  }
  if (not_known == earlier->measurement.processes.size()) {
    return bad(path, "does not know what any process copied");
  }
  if (not_known > 0) {
    baseline.notes.push_back(fmt::format("{} does not know what {} of its {} processes copied",
                                         path, not_known, earlier->measurement.processes.size()));
  }
  return baseline;
}

}  // namespace cowshed::cowtop
