#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/base/rate_limit.h>
#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/measure/measure.h>
#include <cowshed/tools/cowtop/recording/recording.h>

namespace cowshed::cowtop {

// Returns the time of the next append: one second after the last one began.  If appending would
// take more than a 400th of the time, it is up to two seconds, or as long as the append took.
std::chrono::steady_clock::time_point next_append(std::chrono::steady_clock::time_point begin,
                                                  std::chrono::steady_clock::time_point end);

// Writes a recording (recording.h) during a measurement.  Appended intervals stay readable if
// cowtop is killed.
class Recorder : public Observer {
 public:
  // Writes the header at once to an empty file.  Otherwise the old content stays until the first
  // interval.
  static Expected<Recorder> start(OutputFile file, const MeasureOptions& options);

  // Appends about once a second; sampled code only for a 1,000th of the time.  Reports once if the
  // file cannot be written, and once when it can be written again.
  void sampled(const cow::Backend& backend) override;

  // Appends the changes since the last call.  After an error the next call includes them.
  Expected<void> append(cow::Measurement measurement);
  // Does the same without sampled code, which `measurement` lacks.  Call append() first.
  Expected<void> append_counts(cow::Measurement measurement);
  // Appends the last changes and the end.  `exit_status` is that of Measured.
  Expected<void> end(const cow::Measurement& measurement, int exit_status);

 private:
  static constexpr std::uint64_t kCodeShare = 1000;

  explicit Recorder(OutputFile file) : file_(std::move(file)) {}
  Expected<void> begin();
  void tell_news_of(const Expected<void>& written);
  Expected<void> write(const cow::Measurement& measurement, const Json& rest);

  OutputFile file_;
  ZstdLineEncoder encoder_;
  std::string header_;  // empty once it is written
  bool is_refused_ = false;
  std::optional<cow::Measurement> written_;  // the state in the file; nullopt: the header alone
  std::chrono::steady_clock::time_point next_{};
  internal::DutyCycle code_pace_{kCodeShare};
};

}  // namespace cowshed::cowtop
