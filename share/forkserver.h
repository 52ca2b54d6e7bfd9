#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/share/workers/arguments.h>

// A small process without threads that forks workers for its owner.  It is as quick as fork, and
// works in a process with threads.
//
//   void warm_up(const Index& index);                     // fills caches, opens files, ...
//   auto server = cowshed::ForkServer::start<warm_up>({}, ref);
//   auto workers = cowshed::start<search>({.method = Start::forkserver, .server = &*server}, ref);
namespace cowshed {

namespace launch {
class ForkServerProcess;
}

struct ForkServerOptions {
  std::string name = "forkserver";
  std::vector<std::string> environment = {};  // "NAME=value", added to this process's environment
  // Limit for the start with its warm-up.  At most 24 days.
  std::chrono::milliseconds start_timeout = std::chrono::seconds(30);
};

// The forkserver executes this program.  It has this process's frozen arenas, also those that are
// frozen later, and the state that a warm-up function leaves in it.  Without .server, start() uses
// the process's own forkserver, which has no warm-up.  That is started when it is first needed,
// restarted if it has ended, and ends with the process.
//
// No worker can harm the forkserver, by a crash, an exec or by closing all descriptors.  It ignores
// the terminal's signals (SIGINT, SIGQUIT, SIGHUP): its owner gets them and decides.  It ends when
// its owner ends for any reason; if it is stopped then, it ends when it is continued.  Workers with
// .die_with_parent end with it.  If it is killed, the other workers go on, and nobody learns how
// they end.  While it is stopped (SIGSTOP), start() and wait() wait; time limits hold, to 100 ms.
class ForkServer {
 public:
  // Starts a forkserver and waits until the warm-up function has returned.  Ignores its value.  The
  // warm-up must not close descriptor 3, by which the forkserver talks to this process.  Arguments
  // are as for start().  Thread-safe.  Errors: those of start() by spawn; invalid_argument (the
  // warm-up threw an exception, which the message has, or left threads running, or a sandbox
  // refuses a call that the forkserver needs); forkserver_ended (it did not warm up in time, or
  // ended).
  static Expected<ForkServer> start(const ForkServerOptions& options = {}) {
    return start_server(options, nullptr, [](Encoder&) {});
  }
  template <auto warm_up, class... Args>
  static Expected<ForkServer> start(const ForkServerOptions& options, Args&&... args) {
    using Registered = internal::Registered<warm_up>;
    internal::check_all_sendable<typename Registered::Parts, std::remove_cvref_t<Args>...>();
    if (auto checked = internal::check_arguments(args...); !checked)
      return tl::make_unexpected(std::move(checked.error()));
    return start_server(options, &Registered::entry(), [&](Encoder& to) {
      internal::encode_arguments<typename Registered::Parts>({options.name, 1}, to, args...);
    });
  }

  ForkServer(ForkServer&&) noexcept = default;
  ForkServer& operator=(ForkServer&&) noexcept = default;
  // Ends the forkserver, once all Workers that it started are destroyed too; by SIGKILL if it does
  // not end in half a second.  Does nothing in a forked process.
  ~ForkServer() = default;

  pid_t pid() const;  // 0 after a move

  // For start().
  const std::shared_ptr<launch::ForkServerProcess>& process() const { return process_; }

 private:
  explicit ForkServer(std::shared_ptr<launch::ForkServerProcess> process)
      : process_(std::move(process)) {}
  static Expected<ForkServer> start_server(const ForkServerOptions& options,
                                           const internal::WorkerFunction* warm_up,
                                           const std::function<void(Encoder&)>& arguments);

  std::shared_ptr<launch::ForkServerProcess> process_;
};

}  // namespace cowshed
