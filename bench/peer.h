#pragma once

#include <cstdint>
#include <functional>
#include <sys/types.h>

namespace cowshed::bench {

// A forked process, on a CPU as pin_to_cpu() counts them, that does `work` whenever it is told to,
// and sleeps between.
class Peer {
 public:
  using Work = std::function<std::uint64_t(std::uint64_t)>;

  explicit Peer(const Work& work, std::size_t cpu = 1);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void start(std::uint64_t argument) const;
  std::uint64_t result() const;  // waits; throws std::runtime_error when the process has failed
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
  int to_ = -1;
  int from_ = -1;
};

std::uint64_t now_ns();

// Zeroed, shared with what is forked later.
void* shared_memory(std::size_t bytes);

}  // namespace cowshed::bench
