#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/share/workers/arguments.h>

namespace cowshed {

namespace launch {
class ForkServerProcess;
}

struct ForkServerOptions {
  std::string name = "forkserver";
  std::vector<std::string> environment = {};  // "NAME=value", beside what there is
  std::chrono::milliseconds start_timeout =
      std::chrono::seconds(30);  // for the warm-up; 24 days at most
};

// A small process without threads that forks workers for its owner: as quick as fork and, unlike
// it, for a process with threads.  It is this program, started by exec; it holds this process's
// frozen arenas, those of later starts too, and what a warm-up function leaves behind there:
//
//   void warm_up(const Index& index);                     // fills caches, opens files, ...
//   auto server = cowshed::ForkServer::start<warm_up>({}, ref);
//   auto workers = cowshed::start<search>({.method = Start::forkserver, .server = &*server}, ref);
//
// A start with no server given uses one of the process, without a warm-up.  It is started when it
// is first needed, again if it has ended, and ends with the process.
//
// Workers that crash, exec or close all they have do not harm it.  It ignores the terminal's
// signals (SIGINT, SIGQUIT, SIGHUP), which go to the owner, who decides.  It is gone when its owner
// is, however that ended, and with it its workers that die_with_parent; when it was stopped then,
// as soon as it is continued.  When it is killed, so are those; the others go on, and how they end
// is not known.  While it is stopped (SIGSTOP), start() and wait() wait.
class ForkServer {
 public:
  // Starts it and waits until it has warmed up.  What the function returns is not used; threads
  // that it leaves running are an error.  Errors: those of start() by spawn; invalid_argument (the
  // warm-up threw, as the message says; or left threads).
  static Expected<ForkServer> start(const ForkServerOptions& options = {}) {
    return start_server(options, nullptr, [](Encoder&) {});
  }
  template <auto warm_up, class... Args>
  static Expected<ForkServer> start(const ForkServerOptions& options, Args&&... args) {
    using Registered = internal::Registered<warm_up>;
    internal::check_sendable<typename Registered::Parts, std::remove_cvref_t<Args>...>();
    if (auto checked = internal::check_arguments(args...); !checked)
      return tl::make_unexpected(std::move(checked.error()));
    return start_server(options, &Registered::entry(), [&](Encoder& to) {
      internal::encode_arguments<typename Registered::Parts>({options.name, 1}, to, args...);
    });
  }

  ForkServer(ForkServer&&) noexcept = default;
  ForkServer& operator=(ForkServer&&) noexcept = default;
  // Ends it (SIGKILL) once the last Workers that it started are gone too.  Not in a forked process.
  ~ForkServer() = default;

  pid_t pid() const;

  // For the launcher.
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
