#pragma once

#include <array>
#include <fcntl.h>
#include <poll.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace cowshed::bench {

// A process beside this one that ends, and tidies up, with it or at has_done(); not with its
// process group, for whoever interrupts that would leave things as they are.
class Helper final {
 public:
  // `watch` runs until the descriptor that it is given has ended, and returns whether all went
  // well. Throws std::runtime_error.
  template <class Watch>
  explicit Helper(Watch watch) {
    std::array<int, 2> ready{};
    std::array<int, 2> end{};
    if (pipe2(ready.data(), O_CLOEXEC) != 0 || pipe2(end.data(), O_CLOEXEC) != 0) {
      throw std::runtime_error("pipe2 failed");
    }
    pid_ = fork();
    if (pid_ == 0) {
      setpgid(0, 0);
      close(end[1]);
      _exit(watch(end[0], [&] { return write(ready[1], "", 1) == 1; }) ? 0 : 1);
    }
    close(ready[1]);
    close(end[0]);
    end_ = end[1];
    char byte = 0;
    const bool is_ready = pid_ > 0 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!is_ready) throw std::runtime_error("a helper could not begin");
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  ~Helper() { has_done(); }

  // Ends it.  Whether all went well.
  bool has_done() {
    if (pid_ <= 0) return true;
    close(end_);
    int status = -1;
    return waitpid(std::exchange(pid_, -1), &status, 0) > 0 && status == 0;
  }

  // Whether it ended within so many milliseconds; -1: when it does.
  static bool has_ended(int descriptor, int ms) {
    pollfd ends{descriptor, 0, 0};
    return poll(&ends, 1, ms) != 0;
  }

 private:
  pid_t pid_ = -1;
  int end_ = -1;
};

}  // namespace cowshed::bench
