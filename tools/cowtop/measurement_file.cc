#include <fmt/format.h>

#include <cowshed/tools/cowtop/measurement_file.h>
#include <cowshed/tools/cowtop/measurement_json.h>
#include <cowshed/tools/cowtop/recording.h>
#include <cowshed/tools/cowtop/text_file.h>

namespace cowshed::cowtop {
namespace {

Expected<MeasurementFile> read_recording(const std::string& path) {
  auto recording = Recording::open(path);
  if (!recording) return tl::make_unexpected(recording.error());
  auto measurement = last_measurement(*recording, path);
  if (!measurement) return tl::make_unexpected(measurement.error());
  MeasurementFile result{std::move(*measurement), {}};
  if (!recording->ended()) {
    result.note = fmt::format("{} {}: only its first {:.1f} s are known", path,
                              recording->problem().empty() ? "has no end" : recording->problem(),
                              result.measurement.duration_s);
  }
  return result;
}

Expected<MeasurementFile> read_report(const std::string& path, const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) {
    return make_error(ErrorCode::bad_recording,
                      path + ": is neither a recording nor a JSON report of cowtop's");
  }
  auto measurement = measurement_of(json);
  if (!measurement) {
    return make_error(ErrorCode::bad_recording,
                      path + ": is no report of cowtop's: " + measurement.error().message);
  }
  return MeasurementFile{std::move(*measurement), {}};
}

}  // namespace

Expected<MeasurementFile> read_measurement(const std::string& path) {
  const auto text = read_text_file(path);
  if (!text) return tl::make_unexpected(text.error());
  constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";
  return text->starts_with(kZstdMagic) ? read_recording(path) : read_report(path, *text);
}

}  // namespace cowshed::cowtop
