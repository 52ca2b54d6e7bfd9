#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <sys/types.h>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/share/workers/launch.h>

// The forkserver: its owner's side, and the entry into its own.
namespace cowshed::launch {

// A forkserver, as its owner knows it.  Thread-safe.
class ForkServerProcess {
 public:
  using Arguments = std::function<void(Encoder&)>;
  // Starts a forkserver and waits until it has warmed up.  `warm_up` may be null.
  static Expected<std::shared_ptr<ForkServerProcess>> start(const ForkServerOptions& options,
                                                            const internal::WorkerFunction* warm_up,
                                                            const Arguments& put_arguments);
  // Returns the process's own forkserver; starts one if there is none or it has ended.
  static Expected<std::shared_ptr<ForkServerProcess>> of_process();

  ForkServerProcess() = default;
  ForkServerProcess(const ForkServerProcess&) = delete;
  ForkServerProcess& operator=(const ForkServerProcess&) = delete;
  ~ForkServerProcess();  // see ~ForkServer()

  pid_t pid() const { return pid_; }
  bool ended() const;
  // Waits a second if the forkserver has closed its socket, or `closed_another`: perhaps by its
  // end.
  bool is_ending(bool closed_another = false) const;
  std::string how_it_ended() const;  // once it has

  // Sends a request for a worker whose end of the socket is `socket`.  Errors: forkserver_ended,
  // system_call.
  Expected<void> request(const Launch& launch, int rank, int socket);

  using Clock = std::chrono::steady_clock;
  // Reads a worker's messages until `is_done()`, the forkserver has ended, nobody can send to the
  // worker's socket or the deadline is over.  Returns false in the last case.  Errors: system_call.
  template <class Condition>
  Expected<bool> read_messages_until(Condition is_done, Child& child,
                                     Clock::time_point deadline) const;

 private:
  Expected<void> begin(const ForkServerOptions& options, const internal::WorkerFunction* warm_up,
                       const Arguments& put_arguments);
  Expected<void> wait_until_ready(const ForkServerOptions& options) const;
  Expected<void> send_new_arenas();  // unless it has them all

  std::string name_;
  pid_t owner_ = getpid();
  FileDescriptor socket_;
  pid_t pid_ = 0;
  FileDescriptor pidfd_;
  std::mutex mutex_;
  std::uint64_t arenas_sent_ = UINT64_MAX;  // layout::changes() when they were sent
};

// Only sends the request, so that several can be under way.
Expected<Child> request_worker(const Launch& launch, int rank);
// Waits until the forkserver has started a worker that was requested.  At the deadline gives the
// worker up, which then does not run, and fails with timed_out.
Expected<void> await_start(const Launch& launch, Child& child,
                           std::chrono::steady_clock::time_point deadline);
// Waits until the forkserver has said how a worker ended; it may itself have ended before.  Returns
// false if the deadline came first: the forkserver is stopped.  Errors: system_call.
Expected<bool> await_end(const Launch& launch, Child& child,
                         std::chrono::steady_clock::time_point deadline);

// Runs a forkserver in this process: warms up, then forks a worker for each job that arrives.  Ends
// when its owner has ended or no process has the socket's other end.
[[noreturn]] void serve(Message message, FileDescriptor socket);

}  // namespace cowshed::launch
