#pragma once

#include <cowshed/cow/meter.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/test.h>

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

// What a child did: measured while it did `work`.
inline Meter measured_child(const std::function<void()>& work) {
  PausedChild child(work);
  Meter meter = Meter::begin(child.pid()).value();
  child.work();
  if (const auto ended = meter.end(); !ended) throw std::runtime_error(ended.error().message);
  return meter;
}

// What it returns in a process that is nobody's.
inline std::string as_nobody(const std::function<std::string()>& what) {
  return cowshed::test::run_in_child([&] {
           cowshed::test::become_nobody();
           return what();
         })
      .said;
}

}  // namespace cowshed::cow::test
