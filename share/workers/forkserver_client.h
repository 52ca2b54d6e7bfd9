#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <sys/types.h>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/share/workers/launch.h>

namespace cowshed::launch {

// The owner's side of a forkserver.  Thread-safe.
class ForkServerProcess {
 public:
  using Arguments = std::function<void(Encoder&)>;
  static Expected<std::shared_ptr<ForkServerProcess>> start(const ForkServerOptions& options,
                                                            const internal::WorkerFunction* warm_up,
                                                            const Arguments& arguments);
  // The process's own, started if there is none or it has ended.
  static Expected<std::shared_ptr<ForkServerProcess>> of_process();

  ForkServerProcess() = default;
  ForkServerProcess(const ForkServerProcess&) = delete;
  ForkServerProcess& operator=(const ForkServerProcess&) = delete;
  ~ForkServerProcess();  // see ~ForkServer()

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  bool ended() const;
  // The same, and waits for it where its files are closed already (do_exit, kernel/exit.c).
  bool ends() const;
  std::string how_it_ended() const;  // once it has

  // Asks for a worker, whose end of the socket is `socket`.  Errors: forkserver_ended, system_call.
  Expected<void> request(const Launch& launch, int rank, int socket);

  // Waits until something can be read from a worker's socket; false: the server has ended.
  bool wait_readable(int socket) const;

 private:
  Expected<void> begin(const ForkServerOptions& options, const internal::WorkerFunction* warm_up,
                       const Arguments& arguments);
  Expected<void> wait_until_ready(const ForkServerOptions& options) const;
  Expected<void> hand_over_arenas();  // unless it has them as they are

  std::string name_;
  pid_t owner_ = getpid();
  FileDescriptor socket_;
  pid_t pid_ = 0;
  FileDescriptor pidfd_;
  std::mutex mutex_;
  std::uint64_t handed_over_ = UINT64_MAX;  // layout::changes() then
};

// Its own side: warms up, then forks a worker for each job that comes through the socket, until
// nobody has its other end or the owner has ended.
[[noreturn]] void serve(Message message, FileDescriptor socket);

}  // namespace cowshed::launch
