#pragma once

#include <functional>

#include <cowshed/tests/support/child.h>

namespace cowshed::cow::test {

// A forked child that waits, does its work when it is told to, and then waits for its end.
class PausedChild {
 public:
  explicit PausedChild(const std::function<void()>& work)
      : child_([&work](const cowshed::test::Line& test) {
          test.say();  // what a child copies by starting is behind it
          if (test.hear()) {
            work();
            test.say();
            test.hear();
          }
          return 0;
        }) {
    child_.hear();
  }

  pid_t pid() const { return child_.pid(); }
  void work() {
    child_.say();
    child_.hear();
  }
  void end() {
    child_.hang_up();
    child_.wait();
  }

 private:
  cowshed::test::Child child_;
};

}  // namespace cowshed::cow::test
