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

namespace cowshed {
namespace launch {
namespace {

COWSHED_FORK_STATE std::mutex of_process_mutex;

struct OfProcess {
  std::shared_ptr<ForkServerProcess> server;
  pid_t owner = 0;
};
OfProcess& get_of_process() {
  static OfProcess own;
  return own;
}

constexpr fork_handlers::Handlers kHandlers = {[] { of_process_mutex.lock(); },
                                               [] { of_process_mutex.unlock(); },
                                               [] { of_process_mutex.unlock(); }};

}  // namespace

Expected<std::shared_ptr<ForkServerProcess>> ForkServerProcess::start(
    const ForkServerOptions& options, const internal::WorkerFunction* warm_up,
    const Arguments& arguments) {
  auto server = std::make_shared<ForkServerProcess>();
  server->name_ = "forkserver '" + options.name + "': ";
  TRY_VOID(server->begin(options, warm_up, arguments).map_error([&](Error error) {
    error.message = server->name_ + error.message;
    return error;
  }));
  return server;
}

Expected<void> ForkServerProcess::begin(const ForkServerOptions& options,
                                        const internal::WorkerFunction* warm_up,
                                        const Arguments& arguments) {
  if (program_name() == nullptr) return no_runtime_error();
  TRY(auto sockets, make_socket_pair());
  socket_ = std::move(sockets.first);
  internal::Content job;
  try {
    Encoder to;
    to.put(getpid()).put(warm_up != nullptr);
    if (warm_up != nullptr) {
      to.put(std::string(warm_up->name)).put(warm_up->layout);
      arguments(to);
    }
    job = to.finish();
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::system_call, internal::text_of(failure));
  }
  TRY_VOID(hand_over_arenas());
  TRY_VOID(send_message(socket_.get(), MessageKind::serve, {}, job));
  TRY(Child spawned, spawn_process("", sockets.second.get(), options.environment));
  pid_ = spawned.pid;
  pidfd_ = std::move(spawned.pidfd);
  sockets.second = FileDescriptor();
  return wait_until_ready(options);
}

Expected<void> ForkServerProcess::wait_until_ready(const ForkServerOptions& options) const {
  pollfd waiting = {socket_.get(), POLLIN, 0};
  const auto timeout = static_cast<int>(bounded(options.start_timeout).count());
  if (TEMP_FAILURE_RETRY(poll(&waiting, 1, timeout)) == 0) {
    return make_error(ErrorCode::forkserver_ended,
                      "it had not warmed up after " +
                          std::to_string(options.start_timeout.count()) +
                          " ms (ForkServerOptions::start_timeout)");
  }
  TRY(const auto message, receive_message(socket_.get()));
  if (!message) {
    return make_error(ErrorCode::forkserver_ended,
                      "it ended before it had warmed up: " + how_it_ended());
  }
  if (message->kind != MessageKind::begun)
    return make_error(ErrorCode::invalid_argument, message->content.inline_bytes());
  return {};
}

ForkServerProcess::~ForkServerProcess() {
  if (pidfd_ && getpid() == owner_ && send_signal(pid_, pidfd_, SIGKILL)) {
    siginfo_t info;
    TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(pidfd()), &info, WEXITED));
  }
}

bool ForkServerProcess::ended() const { return is_ready(pidfd()); }

bool ForkServerProcess::ends() const {
  constexpr int kPatience = 1000;  // ms
  pollfd end = {pidfd(), POLLIN, 0};
  return TEMP_FAILURE_RETRY(poll(&end, 1, is_ready(socket_.get(), POLLHUP) ? kPatience : 0)) > 0;
}

std::string ForkServerProcess::how_it_ended() const {
  siginfo_t info = {};
  if (TEMP_FAILURE_RETRY(waitid(P_PIDFD, static_cast<id_t>(pidfd()), &info, WEXITED | WNOWAIT)) !=
      0) {
    return "nobody knows how";
  }
  return info.si_code == CLD_EXITED ? "exited with " + std::to_string(info.si_status)
                                    : "died of signal " + std::to_string(info.si_status) + " (" +
                                          strsignal(info.si_status) + ")";
}

bool ForkServerProcess::wait_readable(int socket) const {
  std::array<pollfd, 2> waiting = {pollfd{socket, POLLIN, 0}, pollfd{pidfd(), POLLIN, 0}};
  TEMP_FAILURE_RETRY(poll(waiting.data(), waiting.size(), -1));
  return is_ready(socket);
}

Expected<void> ForkServerProcess::request(const Launch& launch, int rank, int socket) {
  if (getpid() != owner_) {
    return make_error(ErrorCode::invalid_argument,
                      "this forkserver belongs to pid " + std::to_string(owner_) +
                          ", from which this process was forked; start one here");
  }
  const std::lock_guard lock(mutex_);
  auto sent = hand_over_arenas().and_then([&] {
    return send_message(socket_.get(), MessageKind::job, {rank, launch.count}, launch.job, socket);
  });
  if (!sent && ends())
    return make_error(ErrorCode::forkserver_ended, name_ + how_it_ended() + "; start another");
  return sent;
}

Expected<void> ForkServerProcess::hand_over_arenas() {
  const std::uint64_t now = layout::changes();
  if (now == handed_over_) return {};
  TRY(const auto arenas, pack_arenas());
  TRY_VOID(send_message(socket_.get(), MessageKind::adopt, {}, arenas));
  handed_over_ = now;
  return {};
}

Expected<std::shared_ptr<ForkServerProcess>> ForkServerProcess::of_process() {
  fork_handlers::enter(fork_handlers::Rank::forkserver, kHandlers);
  const std::lock_guard lock(of_process_mutex);
  OfProcess& own = get_of_process();
  if (own.owner != getpid() || own.server->ended()) {
    TRY(auto started, start({}, nullptr, nullptr));
    own = {std::move(started), getpid()};
  }
  return own.server;
}

Expected<Child> request_worker(const Launch& launch, int rank) {
  TRY(auto sockets, make_socket_pair());
  Child worker;
  worker.place = FileDescriptor(fcntl(sockets.first.get(), F_DUPFD_CLOEXEC, 0));
  if (!worker.place)  // or there would be a worker that nobody can end
    return system_error("a worker's pidfd", errno);
  worker.socket = std::move(sockets.first);
  TRY_VOID(launch.server->request(launch, rank, sockets.second.get()));
  return worker;
}

}  // namespace launch

Expected<ForkServer> ForkServer::start_server(const ForkServerOptions& options,
                                              const internal::WorkerFunction* warm_up,
                                              const std::function<void(Encoder&)>& arguments) {
  return launch::ForkServerProcess::start(options, warm_up, arguments).map([](auto&& process) {
    return ForkServer(std::forward<decltype(process)>(process));
  });
}

pid_t ForkServer::pid() const { return process_->pid(); }

}  // namespace cowshed
