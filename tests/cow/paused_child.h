#pragma once

#include <array>
#include <functional>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::cow::test {

// A forked child that waits, does its work when it is told to, and then waits for its end.
class PausedChild {
 public:
  explicit PausedChild(const std::function<void()>& work) {
    if (::pipe(go_.data()) != 0 || ::pipe(done_.data()) != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(go_[1]);
      char byte = 0;
      (void)!::write(done_[1], &byte, 1);  // what a child copies by starting is behind it
      if (::read(go_[0], &byte, 1) == 1) {
        work();
        (void)!::write(done_[1], &byte, 1);
        (void)!::read(go_[0], &byte, 1);
      }
      ::_exit(0);
    }
    ::close(done_[1]);
    await();
  }
  PausedChild(const PausedChild&) = delete;
  PausedChild& operator=(const PausedChild&) = delete;
  ~PausedChild() {
    end();
    for (const int fd : {go_[0], done_[0]}) ::close(fd);
  }

  pid_t pid() const { return pid_; }
  void work() {
    char byte = 0;
    (void)!::write(go_[1], &byte, 1);
    await();
  }
  void end() {
    if (pid_ <= 0) return;
    ::close(go_[1]);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  void await() const {
    char byte = 0;
    (void)!::read(done_[0], &byte, 1);
  }

  std::array<int, 2> go_{};
  std::array<int, 2> done_{};
  pid_t pid_ = -1;
};

}  // namespace cowshed::cow::test
