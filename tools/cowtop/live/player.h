#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/tools/cowtop/live/state.h>
#include <cowshed/tools/cowtop/recording.h>

namespace cowshed::cowtop::live {

// Goes forth and back in a recording.
class Player {
 public:
  // Reads all of it; `goes_on` is asked after each interval.  Errors: interrupted, if it does not;
  // those of Recording, and bad_recording where it has no interval.
  static Expected<Player> open(const std::string& path, const std::function<bool()>& goes_on);

  // How many intervals there are, and the time of each.
  std::size_t size() const { return times_.size(); }
  double time_s(std::size_t interval) const { return times_[interval]; }
  // Empty, or why the recording is not whole, in words that follow the file's name.
  const std::string& problem() const { return problem_; }

  std::size_t interval() const { return interval_; }
  // Shows an interval, and before it as many as a history holds.  To go back reads the file again
  // once for some tens of steps.  Errors: bad_recording; those of the file.
  Expected<void> go_to(std::size_t interval, State& state);

 private:
  explicit Player(std::string path) : path_(std::move(path)) {}
  Expected<void> rewind();
  Expected<void> read_to(std::size_t interval);

  std::string path_;
  std::optional<Recording> recording_;
  std::vector<double> times_;
  std::string problem_;
  std::size_t interval_ = 0;
  bool has_shown_ = false;
  std::size_t read_ = 0;                // intervals, of recording_
  std::deque<cow::Measurement> known_;  // of the last of these
};

}  // namespace cowshed::cowtop::live
