#pragma once

#include <functional>
#include <sys/types.h>

namespace cowshed::test {

// A forked child, without threads, that runs beside the test; killed and reaped with this object.
class Process {
 public:
  // `body` returns the exit code; an exception is 98.
  explicit Process(const std::function<int()>& body);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  bool running();
  // Waits for the end: the exit code, or minus the signal.
  int wait();
  // SIGSTOP, and returns when it has stopped.
  void stop() const;

 private:
  pid_t pid_;
  bool reaped_ = false;
  int result_ = 0;
};

// Zeroed memory that forked children share with the test.
void* shared_memory(std::size_t bytes);
template <class T>
T& shared() {
  return *static_cast<T*>(shared_memory(sizeof(T)));
}

}  // namespace cowshed::test
