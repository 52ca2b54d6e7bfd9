#include "peer.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"

namespace cowshed::bench {

Peer::Peer(const Work& work, std::size_t cpu) {
  std::array<int, 2> orders{};
  std::array<int, 2> results{};
  if (pipe(orders.data()) != 0 || pipe(results.data()) != 0) throw std::runtime_error("pipe");
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_to_cpu(cpu);
    close(orders[1]);
    try {
      for (std::uint64_t argument = 0; read(orders[0], &argument, 8) == 8;) {
        const std::uint64_t result = work(argument);
        if (write(results[1], &result, 8) != 8) break;
      }
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "peer: %s\n", failure.what());
      _exit(1);
    }
    _exit(0);
  }
  close(orders[0]);
  close(results[1]);
  to_ = orders[1];
  from_ = results[0];
}

Peer::~Peer() {
  close(to_);
  close(from_);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void Peer::start(std::uint64_t argument) const {
  if (write(to_, &argument, 8) != 8) throw std::runtime_error("the peer is gone");
}

std::uint64_t Peer::result() const {
  std::uint64_t result = 0;
  if (read(from_, &result, 8) != 8) throw std::runtime_error("the peer has failed");
  return result;
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

void* shared_memory(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap");
  return memory;
}

}  // namespace cowshed::bench
