#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/base/exception_text.h>
#include <cowshed/base/try.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/launch.h>
#include <cowshed/share/workers/worker_main.h>

// The owner's side of a forkserver, and workers that it starts.
namespace cowshed {
namespace launch {
namespace {

using internal::is_ready;

COWSHED_FORK_STATE std::mutex default_server_mutex;

tl::unexpected<Error> late_error(const WorkersOptions& options) {
  return make_error(ErrorCode::timed_out,
                    "the forkserver has not started a worker within " +
                        std::to_string(options.start_timeout.count()) +
                        " ms (WorkersOptions::start_timeout); if it is stopped, continue it");
}

}  // namespace

Expected<std::shared_ptr<ForkServerProcess>> ForkServerProcess::start(
    const ForkServerOptions& options, const internal::WorkerFunction* warm_up,
    const Arguments& put_arguments) {
  auto server = std::make_shared<ForkServerProcess>();
  server->name_ = "forkserver '" + internal::without_controls(options.name) + "': ";
  TRY_VOID(server->begin(options, warm_up, put_arguments).map_error([&](Error error) {
    error.message = server->name_ + error.message;
    return error;
  }));
  return server;
}

Expected<void> ForkServerProcess::begin(const ForkServerOptions& options,
                                        const internal::WorkerFunction* warm_up,
                                        const Arguments& put_arguments) {
  if (program_name() == nullptr) return no_runtime_error();
  TRY(auto sockets, make_socket_pair());
  socket_ = std::move(sockets.first);
  internal::Content warm_up_call;
  try {
    Encoder to;
    to.put(getpid()).put(warm_up != nullptr);
    if (warm_up != nullptr) {
      put_function(to, *warm_up);
      put_arguments(to);
    }
    warm_up_call = to.finish();
  } catch (...) {  // of an argument's own encoding, say
    return make_error(ErrorCode::system_call, internal::text_of_current_exception());
  }
  // Both wait in the socket: the process that reads them is started next.  They are small, because
  // descriptors carry what is not.
  TRY_VOID(send_new_arenas());
  TRY_VOID(send_message(socket_.get(), MessageKind::serve, {}, warm_up_call));
  TRY(Child spawned, spawn_process("", sockets.second.get(), options.environment));
  pid_ = spawned.exit.pid;
  pidfd_ = std::move(spawned.pidfd);
  sockets.second = FileDescriptor();
  return wait_until_ready(options);
}

Expected<void> ForkServerProcess::wait_until_ready(const ForkServerOptions& options) const {
  const auto deadline = Clock::now() + bounded(options.start_timeout);
  if (!is_ready(socket_.get(), POLLIN, milliseconds_until(deadline))) {
    if (errno != 0) return system_error("poll", errno);
    return make_error(ErrorCode::forkserver_ended,
                      "it had not warmed up after " +
                          std::to_string(options.start_timeout.count()) +
                          " ms (ForkServerOptions::start_timeout)");
  }
  TRY(const auto message, receive_message(socket_.get()));
  if (!message) {
    if (!is_ready(pidfd_.get(), POLLIN, milliseconds_until(deadline))) {
      return make_error(ErrorCode::forkserver_ended,
                        "its warm-up has closed the socket to this process, which it had not "
                        "opened");
    }
    return make_error(ErrorCode::forkserver_ended,
                      "it ended before it had warmed up: " + how_it_ended());
  }
  if (message->kind != MessageKind::begun)  // the warm-up failed, and this says why
    return make_error(ErrorCode::invalid_argument, message->content.inline_bytes());
  return {};
}

ForkServerProcess::~ForkServerProcess() {
  if (!pidfd_ || getpid() != owner_) return;
  constexpr int kPatience = 500;  // ms; it may be stopped, or in its warm-up
  ::shutdown(socket_.get(), SHUT_RDWR);
  if (is_ready(pidfd_.get(), POLLIN, kPatience) || send_signal(pid_, pidfd_, SIGKILL)) {
    siginfo_t info;
    TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED));
  }
}

bool ForkServerProcess::ended() const { return is_ready(pidfd_.get()); }

// A process that ends closes its sockets, in any order, shortly before its pidfd says that it has
// ended (do_exit() in kernel/exit.c).  If one is closed, the pidfd has a second to follow.
bool ForkServerProcess::is_ending(bool closed_another) const {
  constexpr int kPatience = 1000;  // ms
  const bool closed = closed_another || is_ready(socket_.get(), POLLHUP);
  return is_ready(pidfd_.get(), POLLIN, closed ? kPatience : 0);
}

std::string ForkServerProcess::how_it_ended() const {
  siginfo_t info = {};
  if (TEMP_FAILURE_RETRY(
          waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOWAIT)) != 0) {
    return "nobody knows how";
  }
  return info.si_code == CLD_EXITED ? describe_exit_code(info.si_status)
                                    : "died of signal " + std::to_string(info.si_status) + " (" +
                                          strsignal(info.si_status) + ")";
}

Expected<void> ForkServerProcess::request(const Launch& launch, int rank, int socket) {
  if (getpid() != owner_) {
    return make_error(ErrorCode::invalid_argument,
                      "this forkserver belongs to pid " + std::to_string(owner_) +
                          ", from which this process was forked; start one here");
  }
  const std::lock_guard lock(mutex_);
  // It is full if the forkserver has been stopped for many requests.
  const auto patience = static_cast<int>(launch.options.start_timeout.count());
  if (!is_ready(socket_.get(), POLLOUT, patience))
    return errno == 0 ? late_error(launch.options) : system_error(name_ + "poll", errno);
  auto sent = send_new_arenas().and_then([&] {
    return send_message(socket_.get(), MessageKind::job, {rank, launch.options.count}, launch.job,
                        socket);
  });
  if (!sent && is_ending())
    return make_error(ErrorCode::forkserver_ended, name_ + how_it_ended() + "; start another");
  return sent;
}

Expected<void> ForkServerProcess::send_new_arenas() {
  // Read before they are packed: an arena that comes meanwhile is sent twice, not never.
  const std::uint64_t version = layout::changes();
  if (version == arenas_sent_) return {};
  TRY(const auto arenas, internal::pack_arenas());
  TRY_VOID(send_message(socket_.get(), MessageKind::adopt, {}, arenas));
  arenas_sent_ = version;
  return {};
}

Expected<std::shared_ptr<ForkServerProcess>> ForkServerProcess::of_process() {
  const std::lock_guard lock(
      fork_handlers::held_over_forks<fork_handlers::Rank::forkserver, default_server_mutex>());
  static std::shared_ptr<ForkServerProcess> own;
  if (own == nullptr || own->owner_ != getpid() || own->ended()) {
    TRY(own, start({}, nullptr, nullptr));
  }
  return own;
}

template <class Condition>
Expected<bool> ForkServerProcess::read_messages_until(Condition is_done, Child& child,
                                                      Clock::time_point deadline) const {
  for (bool is_last = false; !is_last && !is_done();) {
    if (deadline <= Clock::now()) return false;
    std::array<pollfd, 2> waiting = {pollfd{child.socket.get(), POLLIN, 0},
                                     pollfd{pidfd_.get(), POLLIN, 0}};
    if (poll(waiting.data(), waiting.size(), milliseconds_until(deadline)) < 0 && errno != EINTR)
      return system_error(name_ + "poll", errno);
    child.hung_up = (waiting[0].revents & POLLHUP) != 0;
    is_last = child.hung_up || ended();
    child.read_messages();  // after those looks: all that was sent before is here
  }
  return true;
}

Expected<Child> request_worker(const Launch& launch, int rank) {
  TRY(auto sockets, make_socket_pair());
  Child worker;
  worker.exit.rank = rank;
  // Keeps a descriptor number free for the worker's pidfd, without which nobody could end it.
  worker.spare = FileDescriptor(fcntl(sockets.first.get(), F_DUPFD_CLOEXEC, 0));
  if (!worker.spare) return system_error("fcntl(F_DUPFD_CLOEXEC) for a worker's pidfd", errno);
  worker.socket = std::move(sockets.first);
  TRY_VOID(launch.server->request(launch, rank, sockets.second.get()));
  return worker;
}

Expected<void> await_start(const Launch& launch, Child& child,
                           ForkServerProcess::Clock::time_point deadline) {
  const auto is_answered = [&] { return child.running() || child.refused || child.reported; };
  TRY(const bool in_time, launch.server->read_messages_until(is_answered, child, deadline));
  if (!in_time) {
    // From now on a start cannot be reported, so there is none.  One may have been, just now.
    ::shutdown(child.socket.get(), SHUT_RDWR);
    child.read_messages();
    if (child.running()) TRY_VOID(send_signal(child.exit.pid, child.pidfd, SIGKILL));
    return late_error(launch.options);
  }
  if (!is_answered() && !child.hung_up) {
    // The forkserver has ended.  A worker that it forked last is about to answer; if there is none,
    // the socket has no other end, and poll() returns at once.
    (void)is_ready(child.socket.get(), POLLIN,
                   static_cast<int>(launch.options.start_timeout.count()));
    child.read_messages();
  }
  if (!is_answered()) {
    const bool ended = launch.server->is_ending(child.hung_up);
    return make_error(ended ? ErrorCode::forkserver_ended : ErrorCode::system_call,
                      "the forkserver " + (ended ? launch.server->how_it_ended()
                                                 : "could not say what became of the worker"));
  }
  if (child.refused)
    return make_error(ErrorCode::system_call, "the forkserver says: " + *child.refused);
  if (!child.running()) {
    return make_error(ErrorCode::system_call, child.receive_error.empty()
                                                  ? "the worker was killed before it began"
                                                  : child.receive_error);
  }
  return {};
}

Expected<bool> await_end(const Launch& launch, Child& child,
                         ForkServerProcess::Clock::time_point deadline) {
  return launch.server->read_messages_until([&] { return child.reported; }, child, deadline);
}

}  // namespace launch

Expected<ForkServer> ForkServer::start_server(const ForkServerOptions& options,
                                              const internal::WorkerFunction* warm_up,
                                              const std::function<void(Encoder&)>& arguments) {
  return launch::ForkServerProcess::start(options, warm_up, arguments).map([](auto&& process) {
    return ForkServer(std::forward<decltype(process)>(process));
  });
}

pid_t ForkServer::pid() const { return process_ ? process_->pid() : 0; }

}  // namespace cowshed
