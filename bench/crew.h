#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <sys/types.h>
#include <vector>

#include "peer.h"

namespace cowshed::bench {

// Forked processes that all do the same tasks, on one CPU after the other.
class Crew {
 public:
  using Work = std::function<std::uint64_t(std::uint64_t rank, std::uint64_t task)>;

  Crew(std::size_t count, const Work& work);

  void start(std::uint64_t task) const;
  std::vector<std::uint64_t> results() const;  // by rank
  std::vector<pid_t> pids() const;

 private:
  std::vector<std::unique_ptr<Peer>> peers_;
};

}  // namespace cowshed::bench
