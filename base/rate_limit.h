#pragma once

#include <algorithm>
#include <cstdint>

namespace cowshed::internal {

// Limits a repeated task to one part in `share` of the time.  After each run it is not due for
// `share - 1` times the duration of the run, and for at least `least_ns`.
class DutyCycle {
 public:
  explicit DutyCycle(std::uint64_t share, std::uint64_t least_ns = 0)
      : share_(share), least_ns_(least_ns) {}

  bool is_due(std::uint64_t now_ns) const { return now_ns >= next_ns_; }
  void ran(std::uint64_t end_ns, std::uint64_t took_ns) {
    next_ns_ = end_ns + std::max(least_ns_, (share_ - 1) * took_ns);
  }

 private:
  std::uint64_t share_;
  std::uint64_t least_ns_;
  std::uint64_t next_ns_ = 0;
};

// Limits time that is spent in bursts.  At first `first_ns` can be spent at once.  Of the time that
// passes, one part in `share` is refilled, up to `most_ns`.
class TokenBucket {
 public:
  TokenBucket(std::uint64_t share, std::uint64_t most_ns, std::uint64_t first_ns)
      : share_(static_cast<std::int64_t>(share)),
        most_ns_(static_cast<std::int64_t>(most_ns)),
        left_ns_(static_cast<std::int64_t>(first_ns)) {}

  void spend(std::uint64_t now_ns, std::uint64_t took_ns) {
    left_ns_ = left_at(now_ns) - static_cast<std::int64_t>(took_ns);
    as_of_ns_ = now_ns;
  }
  bool is_left(std::uint64_t now_ns) const { return left_at(now_ns) > 0; }

 private:
  std::int64_t left_at(std::uint64_t now_ns) const {
    if (as_of_ns_ == 0) return left_ns_;
    const auto passed = static_cast<std::int64_t>(now_ns - as_of_ns_);
    return std::max(left_ns_, std::min(most_ns_, left_ns_ + passed / share_));
  }

  std::int64_t share_;
  std::int64_t most_ns_;
  std::int64_t left_ns_;
  std::uint64_t as_of_ns_ = 0;  // 0: nothing was spent yet
};

}  // namespace cowshed::internal
