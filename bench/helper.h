#pragma once

#include <array>
#include <cerrno>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
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
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      throw std::system_error(errno, std::system_category(), "socketpair");
    }
    pid_ = fork();
    if (pid_ == 0) {
      setpgid(0, 0);
      // All else is closed: another helper's end, kept here, would keep that one from ending.
      close(ends[0]);
      dup2(ends[1], STDIN_FILENO);
      close_range(STDERR_FILENO + 1, ~0U, 0);
      const auto ready = [] { return send(STDIN_FILENO, "", 1, MSG_NOSIGNAL) == 1; };
      _exit(has_watched(watch, ready) ? 0 : 1);
    }
    close(ends[1]);
    end_ = ends[0];
    char byte = 0;
    if (pid_ < 0 || read(end_, &byte, 1) != 1) {
      has_done();
      throw std::runtime_error("a helper could not begin");
    }
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  ~Helper() { has_done(); }

  pid_t pid() const { return pid_; }

  // Ends it.  Whether all went well.
  bool has_done() {
    if (end_ >= 0) close(std::exchange(end_, -1));
    if (pid_ <= 0) return true;
    int status = -1;
    return waitpid(std::exchange(pid_, -1), &status, 0) > 0 && status == 0;
  }

  // Whether it ended within so many milliseconds; -1: when it does.
  static bool has_ended(int descriptor, int ms) {
    pollfd ends{descriptor, 0, 0};
    return poll(&ends, 1, ms) != 0;
  }

 private:
  // What it throws must not go on in the forked process.
  template <class Watch, class Ready>
  static bool has_watched(Watch& watch, Ready ready) {
    try {
      return watch(STDIN_FILENO, ready);
    } catch (...) {
      return false;
    }
  }

  pid_t pid_ = -1;
  int end_ = -1;
};

}  // namespace cowshed::bench
