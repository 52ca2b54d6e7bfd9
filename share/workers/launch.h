#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/share/stray_write.h>
#include <cowshed/share/wire/content.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/share/workers/job.h>
#include <cowshed/share/workers/options.h>
#include <cowshed/share/workers/worker_main.h>

// A parent's side of starting one worker.
namespace cowshed::launch {

// A worker that was started by exec has its socket as this descriptor.  It has no others but the
// standard streams.
constexpr int kSocketNumber = 3;
constexpr const char* kWorkerArgument = "--cowshed-worker";

// argv[0], as the Runtime in main() got it; null if there is no Runtime yet.
const char* program_name();

// As poll() can wait: 24 days at most.
constexpr std::chrono::milliseconds bounded(std::chrono::milliseconds time) {
  constexpr std::chrono::milliseconds kMost(std::numeric_limits<int>::max());
  return std::clamp(time, std::chrono::milliseconds(0), kMost);
}

class ForkServerProcess;

// What all workers of one start() have in common.
struct Launch {
  Start method = Start::fork;
  std::string name;
  int count = 1;
  pid_t starter = gettid();                      // the thread with which they die, if asked
  std::chrono::milliseconds start_timeout = {};  // for spawn
  Setup setup;
  Body body;                 // for fork
  std::string program;       // for spawn: "" is this one
  internal::Content arenas;  // for spawn: what goes before the job
  internal::Content job;     // for spawn and forkserver
  std::shared_ptr<ForkServerProcess> server;
};

// A worker as its parent knows it, from its start to its end.
struct Child {
  pid_t pid = 0;
  FileDescriptor pidfd;  // none: it has been reaped
  FileDescriptor socket;
  FileDescriptor place = {};  // kept free for a pidfd that is to come by the socket
  std::uint64_t start_ns = 0;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  int restarts = 0;
  bool begun = false;                  // a spawned one has come to its function
  bool timed_out = false;              // it had not in time
  bool reported = false;               // the forkserver said how it ended
  std::optional<std::string> refused;  // by the forkserver
  int exit_code = -1;
  int signal = 0;
  std::optional<StrayWrite> stray_write;
  std::optional<std::string> failure;
  std::optional<internal::Content> value;
  std::string unread;  // why something that it said could not be received

  bool running() const { return static_cast<bool>(pidfd); }
  void set_end(int code, int status);  // as in siginfo_t
  void read_messages();                // as many as there are
};

// What went wrong with one that has ended, "" when nothing did.  With `with_value` it should have
// left one.
std::string describe_end(const Launch& launch, int rank, const Child& child, bool with_value);

Expected<Child> fork_worker(Launch& launch, int rank);
Expected<Child> spawn_worker(const Launch& launch, int rank);

// The request alone, so that several are under way: the forkserver's answer comes by the socket.
Expected<Child> request_worker(const Launch& launch, int rank);

// Starts `program` ("": this one), to receive what is sent to the other end of `socket`.  No error
// when it has no Runtime: then it never says `begun`.
Expected<Child> spawn_process(const std::string& program, int socket,
                              const std::vector<std::string>& environment);

// To a process that has not been reaped; by its PID where pidfd_send_signal(2) is refused, as
// seccomp filters of older container runtimes do.  No error if it has ended.  Errors: system_call.
Expected<void> send_signal(pid_t pid, const FileDescriptor& pidfd, int signal);

// Checks the options, opens what they name, and encodes the job where there is to be one.
Expected<void> prepare(const WorkersOptions& options, const internal::WorkerJob& job,
                       Launch& launch);

tl::unexpected<Error> no_runtime_error();

// Of the fork that this process is asked for: threads_running.
Expected<void> check_threads(const std::string& who);

}  // namespace cowshed::launch
