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

// As nobody: what a process says of who may look at it.
inline std::string as_nobody(const std::function<std::string()>& what) {
  return cowshed::test::run_in_child([&]() -> std::string {
           if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0 ||
               ::prctl(PR_SET_DUMPABLE, 1) != 0) {
             return "not nobody";
           }
           return what();
         })
      .said;
}

}  // namespace cowshed::cow::test
