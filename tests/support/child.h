#pragma once

#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>

// Forked children, which have no threads.
namespace cowshed::test {

// What became of a child.
struct ChildResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string said;  // what the body returned
};

// Runs `body` in a child, and hands over the text that it returns.
ChildResult run_in_child(const std::function<std::string()>& body);

// This process stops being root for good.  What /proc shows of it is as if that user had started
// it.  Throws std::runtime_error where it may not.
void become_nobody();

// One end of a line between a test and its child.
class Line {
 public:
  explicit Line(int end) : end_(end) {}
  void say(const std::string& text = "") const;
  // Waits.  Empty: the other side has hung up, or ended.
  std::optional<std::string> hear() const;

 private:
  int end_;
};

// A child that runs beside the test; killed and reaped with this object.
class Child {
 public:
  // `body` returns the exit code; an exception is 98.
  explicit Child(const std::function<int()>& body) : Child([&](const Line&) { return body(); }) {}
  explicit Child(const std::function<int(const Line& test)>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void say(const std::string& text = "") const { Line(end_).say(text); }
  std::optional<std::string> hear() const { return Line(end_).hear(); }
  void hang_up();

  void signal(int number) const;
  bool running() const;
  // Sends SIGSTOP, and returns when the child has stopped.
  void stop() const;
  // Waits for the end: the exit code, or minus the signal.
  int wait();

 private:
  pid_t pid_ = -1;
  int end_ = -1;
  bool reaped_ = false;
  int result_ = 0;
};

}  // namespace cowshed::test
