#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/recording/recording.h>

namespace cowshed::cowtop {

// A second after it began; where that would be more than a four-hundredth of the time, up to 2 s,
// or for as long as it took.
std::chrono::steady_clock::time_point next_append(std::chrono::steady_clock::time_point begin,
                                                  std::chrono::steady_clock::time_point end);

// Writes a recording (recording.h) while it measures: what was appended last can be read whatever
// happens to us: next_append().
class Recorder : public Observer {
 public:
  // Writes the header at once where the file holds nothing; else what it holds stays until
  // something has been measured.
  static Expected<Recorder> start(OutputFile file, const MeasureOptions& options);

  // append(), about once a second.  Complains where the file takes no more, and says when it does
  // again: once, hours before the end maybe.
  void sampled(const cow::Backend& backend) override;

  // What has changed since it was last called.  Where the file takes no more, nothing is written,
  // and the next call makes up for it.
  Expected<void> append(cow::Measurement measurement);
  // The same, and that it was the last.  `exit_status`: as Measured's.
  Expected<void> end(const cow::Measurement& measurement, int exit_status);

 private:
  explicit Recorder(OutputFile file) : file_(std::move(file)) {}
  Expected<void> begin();
  void tell_news_of(const Expected<void>& written);
  Expected<void> write(const cow::Measurement& measurement, const Json& head, const Json& rest);

  OutputFile file_;
  ZstdLineEncoder encoder_;
  std::string header_;  // that has not been written
  bool is_refused_ = false;
  // As the file has it.
  Json head_ = Json::object();
  std::vector<cow::ProcessCopies> processes_;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace cowshed::cowtop
