#include <fmt/format.h>
#include <optional>

#include <cowshed/tools/cowtop/baseline.h>
#include <cowshed/tools/cowtop/recording.h>
#include <cowshed/tools/cowtop/text_file.h>

namespace cowshed::cowtop {
namespace {

tl::unexpected<Error> bad(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::bad_recording, path + ": " + what);
}

struct Earlier {
  cow::Measurement measurement;
  std::optional<std::string> note;
};

Expected<Earlier> of_recording(const std::string& path) {
  auto recording = Recording::open(path);
  if (!recording) return tl::make_unexpected(recording.error());
  auto measurement = last_measurement(*recording, path);
  if (!measurement) return tl::make_unexpected(measurement.error());
  Earlier earlier{std::move(*measurement), std::nullopt};
  if (!recording->ended()) {
    earlier.note = fmt::format("{} has no end: the baseline is of its first {:.1f} s", path,
                               earlier.measurement.duration_s);
  }
  return earlier;
}

Expected<Earlier> of_report(const std::string& path, const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return bad(path, "is neither a recording nor a JSON report of cowtop's");
  auto measurement = measurement_of(json);
  if (!measurement) return bad(path, "is no report of cowtop's: " + measurement.error().message);
  return Earlier{std::move(*measurement), std::nullopt};
}

}  // namespace

Expected<Baseline> read_baseline(const std::string& path) {
  const auto text = read_text_file(path);
  if (!text) return tl::make_unexpected(text.error());
  constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";
  const auto earlier = text->starts_with(kZstdMagic) ? of_recording(path) : of_report(path, *text);
  if (!earlier) return tl::make_unexpected(earlier.error());
  Baseline baseline;
  baseline.backend = earlier->measurement.backend;
  if (earlier->note) baseline.notes.push_back(*earlier->note);
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
