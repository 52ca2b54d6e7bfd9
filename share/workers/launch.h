#pragma once

#include <algorithm>
#include <chrono>
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

// The parent's side of a start: what is prepared once, and how one worker is started by each
// method.
//
//   WorkersOptions, WorkerTask ─▶ Launch ── prepare() ─▶ fork_worker()    ─▶ Child ─▶ WorkerEnd
//                                                        spawn_worker()
//                                                        request_worker()
namespace cowshed::launch {

// A worker that was started by exec has its socket as this descriptor.  Its only other descriptors
// are the standard streams.
constexpr int kSocketNumber = 3;
constexpr const char* kWorkerArgument = "--cowshed-worker";

// argv[0], as the Runtime in main() got it; null if there is no Runtime yet.
const char* program_name();

// What poll() can wait: at most 24 days.
constexpr std::chrono::milliseconds bounded(std::chrono::milliseconds time) {
  constexpr std::chrono::milliseconds kMost(std::numeric_limits<int>::max());
  return std::clamp(time, std::chrono::milliseconds(0), kMost);
}

// What poll() is told to wait.
inline int milliseconds_until(std::chrono::steady_clock::time_point deadline) {
  const auto now = std::chrono::steady_clock::now();
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(std::max(deadline, now) - now);
  return static_cast<int>(bounded(left).count());
}

class ForkServerProcess;

// One call of start(): what all of its workers have in common.
struct Launch {
  WorkersOptions options;     // start_timeout is bounded()
  internal::WorkerTask task;  // without `arguments`, once they are in `job`
  internal::Content arenas;   // for spawn: a parcel, sent before the job
  internal::Content job;      // for spawn and forkserver: see encode_job()
  std::shared_ptr<ForkServerProcess> server;
};

// A worker from its start to its end, as its parent knows it.
struct Child {
  WorkerExit exit;            // without `error`, which describe_end() makes
  FileDescriptor pidfd;       // none before a forkserver has started it, and after it was reaped
  FileDescriptor socket;      // what the worker sends arrives here
  FileDescriptor spare = {};  // keeps a number free for the pidfd that comes through the socket
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  pid_t starter = gettid();  // with .die_with_parent, the kernel kills the worker when it ends
  // What its messages said.
  bool begun = false;                  // a spawned worker has reached its function
  bool reported = false;               // the forkserver said how it ended
  std::optional<std::string> refused;  // why the forkserver did not start it
  std::optional<StrayWrite> stray_write;
  std::optional<std::string> failure;  // an exception's text
  std::optional<internal::Content> value;
  bool may_need_restart = false;  // it has ended, and nobody has looked how
  bool handed_out = false;        // then `value` is empty
  std::string receive_error;      // why a message could not be received

  bool hung_up = false;    // nobody can send more: of forkserver workers
  bool timed_out = false;  // killed, because it had not begun in time
  bool killed = false;     // by stop() or the destructor, which wait for no forkserver's report

  bool running() const { return static_cast<bool>(pidfd); }
  void set_end(int code, int status);  // si_code and si_status of siginfo_t
  void read_messages();                // all that have arrived
};

// "exited with 4"; says more of a status that Cowshed gives.
std::string describe_exit_code(int code);

// Says in one line what went wrong with a worker that has ended; "" on success.  If `must_return`,
// ending without a value is a failure.
std::string describe_end(const Launch& launch, const Child& child, bool must_return);

// Checks the options, opens what they name, and encodes what is sent to the workers.
Expected<void> prepare(Launch& launch);

Expected<Child> fork_worker(const Launch& launch, int rank);
Expected<Child> spawn_worker(const Launch& launch, int rank);

// Executes `program`, or this one if it is "", with `socket` as kSocketNumber.  Succeeds even if
// the program has no Runtime; then it never says that it has begun.
Expected<Child> spawn_process(const std::string& program, int socket,
                              const std::vector<std::string>& environment);

// Signals a process that has not been reaped; does nothing if it has ended.  Uses the PID where
// seccomp filters of older container runtimes refuse pidfd_send_signal(2).  Errors: system_call.
Expected<void> send_signal(pid_t pid, const FileDescriptor& pidfd, int signal);

tl::unexpected<Error> no_runtime_error();

// Fails with threads_running if this process has other threads.  `who` begins the message.
Expected<void> check_threads(const std::string& who);

}  // namespace cowshed::launch
