#include <cowshed/tools/cowtop/recording/measurement_json.h>
#include <cowshed/tools/cowtop/recording/recorder.h>
#include <cowshed/tools/cowtop/recording/recording.h>
#include <cowshed/tools/cowtop/report/folded_report.h>
#include <cowshed/tools/cowtop/report/pprof_report.h>
#include <cowshed/tools/cowtop/report/table_report.h>

#include "mutation.h"

// The first byte of the input says what the rest is: 0, a file; else the lines of one, of which the
// frames are made here, since their checksums would let hardly any change through.
namespace {

using namespace cowshed;
using fuzz::must;
using namespace cowshed::cowtop;

std::string file_of(std::string_view input) {
  if (input.empty() || input[0] == '\0') return std::string(input.substr(input.empty() ? 0 : 1));
  input.remove_prefix(1);
  ZstdLineEncoder encoder;
  std::string file;
  while (!input.empty()) {
    const auto end = std::min(input.find('\n'), input.size());
    file += encoder.encode(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return file;
}

// A file in memory, by name.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("recording", MFD_CLOEXEC)) { must(fd_ >= 0); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(fd_); }
  void hold(std::string_view bytes) const {
    must(::ftruncate(fd_, 0) == 0);
    must(::pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// What can be read can be reported, recorded, and read again as the same.
void use(const cow::Measurement& measurement) {
  static_cast<void>(table_report(measurement));
  static_cast<void>(folded_report(measurement));
  static_cast<void>(pprof_report(measurement, 0));
  const std::string report = json_report(measurement);
  const MemoryFile again;
  auto recorder = Recorder::start(OutputFile::open(again.path()).value(), {});
  must(recorder.has_value() && recorder->end(measurement, 0).has_value());
  auto recording = Recording::open(again.path());
  must(recording.has_value() && recording->next().value() && recording->ended());
  must(json_report(recording->measurement().value()) == report);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file;
  file.hold(file_of({reinterpret_cast<const char*>(data), size}));
  auto recording = Recording::open(file.path());
  if (!recording) {
    must(recording.error().code == ErrorCode::bad_recording);
    return 0;
  }
  bool any = false;
  while (recording->next().value()) any = true;
  if (!any) return 0;
  const auto measurement = recording->measurement();
  if (measurement) use(*measurement);
  return 0;
}
