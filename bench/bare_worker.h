#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <thread>

namespace cowshed::bench {

// Both ends are closed on exec.
class Pipe {
 public:
  // Throws std::runtime_error.
  Pipe();
  ~Pipe();
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int read_end() const { return ends_[0]; }
  int write_end() const { return ends_[1]; }
  void close_read_end();
  void close_write_end();
  // To the 1 MiB that anybody may have.
  void grow();

 private:
  std::array<int, 2> ends_{};
};

// All of it, or std::runtime_error, also where the other end is closed and SIGPIPE ignored.
void read_all(int descriptor, void* data, std::size_t size);
void write_all(int descriptor, const void* data, std::size_t size);

// What a worker does that is started without the library.
struct BareTask {
  std::function<void()> inherited;  // by "bare fork", "clone3" and "thread"
  const char* name;                 // by "vfork" and "posix_spawn": of this program's NamedTask
  int input;                        // ... and its standard input,
  int output;                       // and output
};

// One of main()'s, which begins with is_worker().
struct NamedTask {
  const char* name;
  int (*run)();  // returns the exit code
};

// The exit code, when this process is a worker by "vfork" or "posix_spawn".
std::optional<int> is_worker(int argc, char** argv, std::initializer_list<NamedTask> tasks);

// Whether it is one of the methods above; of the latter two.
bool is_bare(std::string_view method);
bool starts_program(std::string_view method);

// A thread is waited for at the end of this object, a process is not.
class BareWorker {
 public:
  // Throws std::runtime_error when it cannot be started.
  BareWorker(const std::string& method, const BareTask& task);

  // Waits for its end, once.  Throws std::runtime_error when it has failed.
  void reap();
  pid_t pid() const { return pid_; }  // 0: it is a thread

 private:
  pid_t pid_ = 0;
  int pidfd_ = -1;
  std::shared_ptr<std::atomic<bool>> thread_has_failed_;
  std::jthread thread_;
};

// What they are, for a report.
constexpr const char* kBareForkSetting = "fork(), _exit(), waitpid()";
constexpr const char* kPosixSpawnSetting =
    "of this program, whose main() writes the time to a pipe and ends";

}  // namespace cowshed::bench
