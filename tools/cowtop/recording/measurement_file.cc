#include <fmt/format.h>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/io/input_file.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/measurement_file.h>
#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/recording/untrusted_json.h>

namespace cowshed::cowtop {
namespace {

Expected<MeasurementFile> read_recording(InputFile file) {
  const std::string path = file.path();
  TRY(auto recording, Recording::open(std::move(file)));
  TRY(auto measurement, last_measurement(recording, path));
  MeasurementFile result{std::move(measurement), {}};
  if (!recording.is_whole()) {
    result.note = fmt::format("{} {}: only its first {:.1f} s are known", path,
                              recording.problem().empty() ? "has no end" : recording.problem(),
                              result.measurement.duration_s);
  }
  return result;
}

Expected<std::string> read_text(InputFile& file) {
  constexpr std::size_t kMost = 256 << 20;
  constexpr std::size_t kAtOnce = 1 << 16;
  std::vector<char> bytes(kAtOnce);
  std::string text;
  for (;;) {
    TRY(const auto got, file.read(bytes.data(), bytes.size()));
    if (got == 0) return text;
    text.append(bytes.data(), got);
    if (text.size() > kMost)
      return make_error(ErrorCode::bad_recording, file.path() + ": is larger than 256 MiB");
  }
}

tl::unexpected<Error> neither(const std::string& path) {
  return make_error(ErrorCode::bad_recording,
                    path + ": is neither a recording nor a JSON report of cowtop's");
}

Expected<MeasurementFile> read_report(InputFile file) {
  const std::string& path = file.path();
  TRY(std::string text, read_text(file));
  Json json;
  try {
    json = parse_untrusted(std::exchange(text, {}));
  } catch (const Json::exception&) {
    return neither(path);
  } catch (const JsonFieldError& error) {
    return make_error(ErrorCode::bad_recording,
                      path + ": is no report of cowtop's: " + error.what());
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
  constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";
  TRY(auto file, InputFile::open(path));
  TRY(const auto begin, file.peek(kZstdMagic.size()));
  if (begin == kZstdMagic) return read_recording(std::move(file));
  // Do not read on: a device or another program's pipe may never end.
  const auto first = begin.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && begin[first] != '{') return neither(path);
  return read_report(std::move(file));
}

}  // namespace cowshed::cowtop
