#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/measure.h>
#include <cowshed/tools/cowtop/output_file.h>
#include <cowshed/tools/cowtop/recording.h>

namespace cowshed::cowtop {

// Writes a recording (recording.h) while it measures: what was appended last can be read whatever
// happens to us.  Once a second, or less often where it would take more than a fiftieth of the
// time.
class Recorder : public Observer {
 public:
  // Empties the file and writes the header.
  static Expected<Recorder> start(OutputFile file, const MeasureOptions& options);

  Next sampled(const cow::Backend& backend) override;

  // What has changed since it was last called.  Where the file takes no more, nothing is written,
  // and the next call makes up for it.
  Expected<void> append(cow::Measurement measurement);
  // The same, and that it was the last.  `exit_status`: as Measured's.
  Expected<void> end(const cow::Measurement& measurement, int exit_status);

 private:
  explicit Recorder(OutputFile file) : file_(std::move(file)) {}
  Expected<void> write(const cow::Measurement& measurement, const Json& head, const Json& rest);

  OutputFile file_;
  ZstdLineEncoder encoder_;
  // As the file has it.
  Json head_ = Json::object();
  std::vector<cow::ProcessCopies> processes_;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace cowshed::cowtop
