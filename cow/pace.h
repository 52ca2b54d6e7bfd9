#pragma once

#include <algorithm>
#include <cstdint>

namespace cowshed::cow {

// Keeps what is done again and again, at whatever cost, to a share of the time: after each run
// there is a pause of at least `factor` times what it took, and of no less than `least_ns`.
class Pace {
 public:
  explicit Pace(std::uint64_t factor, std::uint64_t least_ns = 0)
      : factor_(factor), least_ns_(least_ns) {}

  bool is_due(std::uint64_t now_ns) const { return now_ns >= next_ns_; }
  void ran(std::uint64_t end_ns, std::uint64_t took_ns) {
    next_ns_ = end_ns + std::max(least_ns_, factor_ * took_ns);
  }

 private:
  std::uint64_t factor_;
  std::uint64_t least_ns_;
  std::uint64_t next_ns_ = 0;
};

}  // namespace cowshed::cow
