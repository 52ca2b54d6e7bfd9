#include <algorithm>
#include <utility>

#include <cowshed/tools/cowtop/live/player.h>

namespace cowshed::cowtop::live {

Expected<Player> Player::open(const std::string& path) {
  auto index = Recording::open(path);
  if (!index) return tl::make_unexpected(std::move(index.error()));
  std::vector<double> times;
  for (;;) {
    const auto more = index->next();
    if (!more) return tl::make_unexpected(more.error());
    if (!*more) break;
    times.push_back(index->duration_s());
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
  return {};
}

Expected<void> Player::go_to(std::size_t interval, State& state) {
  interval = std::min(interval, size() - 1);
  std::size_t first = interval + 1 - std::min(interval + 1, History::kPoints);
  if (interval >= interval_ && read_ > 0) {
    first = std::max(first, read_);
  } else if (auto rewound = rewind(); !rewound) {
    return rewound;
  }
  while (read_ <= interval) {
    const auto more = recording_->next();
    if (!more) return tl::make_unexpected(more.error());
    if (!*more) return make_error(ErrorCode::bad_recording, path_ + ": is shorter than before");
    if (read_++ < first) continue;
    auto measurement = recording_->measurement();
    if (!measurement) {
      return make_error(ErrorCode::bad_recording,
                        path_ + ": is damaged: " + measurement.error().message);
    }
    state.update(std::move(*measurement));
  }
  interval_ = interval;
  return {};
}

}  // namespace cowshed::cowtop::live
