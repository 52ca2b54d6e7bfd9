#include <algorithm>
#include <utility>

#include <cowshed/tools/cowtop/live/player.h>

namespace cowshed::cowtop::live {

Expected<Player> Player::open(const std::string& path, const std::function<bool()>& goes_on) {
  auto index = Recording::open(path);
  if (!index) return tl::make_unexpected(std::move(index.error()));
  std::vector<double> times;
  for (;;) {
    const auto more = index->next();
    if (!more) return tl::make_unexpected(more.error());
    if (!*more) break;
    times.push_back(index->duration_s());
    if (!goes_on()) return make_error(ErrorCode::interrupted, path + ": not read to its end");
  }
  if (times.empty())
    return make_error(ErrorCode::bad_recording, path + ": " + index->why_not_whole());
  Player player(path);
  if (const auto rewound = player.rewind(); !rewound) return tl::make_unexpected(rewound.error());
  player.times_ = std::move(times);
  if (!index->is_whole()) player.problem_ = index->why_not_whole();
  return player;
}

Expected<void> Player::rewind() {
  auto recording = Recording::open(path_);
  if (!recording) return tl::make_unexpected(std::move(recording.error()));
  recording_.emplace(std::move(*recording));
  read_ = 0;
  known_.clear();
  return {};
}

// So that it is the last that is known.
Expected<void> Player::read_to(std::size_t interval) {
  constexpr std::size_t kKnown = 4 * History::kPoints;
  while (read_ <= interval) {
    const auto more = recording_->next();
    if (!more) return tl::make_unexpected(more.error());
    if (!*more) return make_error(ErrorCode::bad_recording, path_ + ": is shorter than before");
    if (++read_ + kKnown <= interval + 1) continue;
    auto measurement = recording_->measurement();
    if (!measurement) {
      return make_error(ErrorCode::bad_recording,
                        path_ + ": is damaged: " + measurement.error().message);
    }
    known_.push_back(std::move(*measurement));
    if (known_.size() > kKnown) known_.pop_front();
  }
  return {};
}

Expected<void> Player::go_to(std::size_t interval, State& state) {
  interval = std::min(interval, size() - 1);
  std::size_t first = interval + 1 - std::min(interval + 1, History::kPoints);
  if (has_shown_ && interval >= interval_) first = std::max(first, interval_ + 1);
  if (first + known_.size() < read_) {
    if (auto rewound = rewind(); !rewound) return rewound;
  }
  if (auto read = read_to(interval); !read) return read;
  for (std::size_t i = first; i <= interval; ++i) {
    state.update(cow::Measurement(known_[i + known_.size() - read_]));
  }
  interval_ = interval;
  has_shown_ = true;
  return {};
}

}  // namespace cowshed::cowtop::live
