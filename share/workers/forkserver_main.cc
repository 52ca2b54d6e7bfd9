#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/base/exception_text.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/workers/forkserver_client.h>
#include <cowshed/share/workers/worker_main.h>

// The forkserver's own side: it warms up, forks workers and reports their ends.
namespace cowshed::launch {
namespace {

constexpr std::array kTerminalSignals = {SIGINT, SIGQUIT, SIGHUP};

void check(const char* call, bool succeeded) {
  if (!succeeded) throw std::system_error(errno, std::generic_category(), call);
}

// The server ignores the terminal's signals, and learns of its children's ends from a descriptor.
// give_back() restores everything for a worker.
class Signals {
 public:
  // A sandbox that refuses one of these calls, or a later poll() or waitid(), would hide every
  // worker's end.  Throws std::system_error.
  Signals() {
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    for (std::size_t i = 0; i < kTerminalSignals.size(); ++i)
      check("sigaction", sigaction(kTerminalSignals[i], &ignore, &terminal_[i]) == 0);
    struct sigaction standard = {};
    check("sigaction", sigaction(SIGCHLD, &standard, &child_) == 0);
    sigset_t child_ends;
    sigemptyset(&child_ends);
    sigaddset(&child_ends, SIGCHLD);
    check("sigprocmask", sigprocmask(SIG_BLOCK, &child_ends, &mask_) == 0);
    ends_ = FileDescriptor(signalfd(-1, &child_ends, SFD_CLOEXEC | SFD_NONBLOCK));
    check("signalfd", static_cast<bool>(ends_));
    check("poll", poll(nullptr, 0, 0) == 0);
    siginfo_t info;
    check("waitid", waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno == ECHILD);
  }
  void give_back() {
    for (std::size_t i = 0; i < kTerminalSignals.size(); ++i)
      sigaction(kTerminalSignals[i], &terminal_[i], nullptr);
    sigaction(SIGCHLD, &child_, nullptr);
    ends_ = FileDescriptor();
    sigprocmask(SIG_SETMASK, &mask_, nullptr);
  }
  int ends() const { return ends_.get(); }

 private:
  std::array<struct sigaction, kTerminalSignals.size()> terminal_ = {};
  struct sigaction child_ = {};
  sigset_t mask_ = {};
  FileDescriptor ends_;  // readable when a child has ended
};

// A worker that runs, and the socket on which its end is reported.
struct Running {
  pid_t pid = 0;
  FileDescriptor socket;
};

// The main loop: takes jobs from the owner, and reaps workers.
class Server {
 public:
  // Leaves the socket to the caller if it throws.
  Server(FileDescriptor&& socket, FileDescriptor owner)
      : socket_(std::move(socket)), owner_(std::move(owner)) {}
  void run();  // until the owner has ended or closed the socket

 private:
  bool receive();
  void start_worker(Message message);
  void reap();
  static void report_start(int socket, std::uint64_t before);
  // If this cannot be sent, the starter notices that its socket is closed.
  static void refuse(int socket, const std::string& why) {
    (void)send_text(socket, MessageKind::refused, why);
  }

  pid_t pid_ = getpid();
  Signals signals_;
  FileDescriptor socket_;
  // A pidfd.  The socket alone does not tell that the owner has ended, because processes that the
  // owner forked may have its other end, too.
  FileDescriptor owner_;
  std::string failed_to_adopt_;
  std::vector<Running> running_;
};

void Server::run() {
  for (;;) {
    std::array<pollfd, 3> events = {pollfd{socket_.get(), POLLIN, 0},
                                    pollfd{owner_.get(), POLLIN, 0},
                                    pollfd{signals_.ends(), POLLIN, 0}};
    if (poll(events.data(), events.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (events[2].revents != 0) reap();
    if (events[1].revents != 0 || (events[0].revents != 0 && !receive())) return;
  }
}

bool Server::receive() {
  auto message = receive_message(socket_.get());
  if (!message || !*message) return false;
  switch ((*message)->kind) {
    case MessageKind::adopt: {
      const auto adopted = internal::adopt_for_ever(std::move((*message)->content));
      failed_to_adopt_ = adopted ? "" : adopted.error().message;
      break;
    }
    case MessageKind::job: start_worker(*std::move(*message)); break;
    default: break;
  }
  return true;
}

void Server::start_worker(Message message) {
  FileDescriptor socket = std::move(message.extra);
  if (!failed_to_adopt_.empty()) {
    refuse(socket.get(), failed_to_adopt_);
    return;
  }
  if (internal::is_ready(socket.get(), 0)) return;  // hung up: the starter has given up, or ended
  flush_streams();
  const std::uint64_t before = monotonic_ns();
  const pid_t pid = fork();
  if (pid == 0) {
    signals_.give_back();
    socket_ = FileDescriptor();
    owner_ = FileDescriptor();
    running_.clear();
    report_start(socket.get(), before);
    run_job(std::move(message), std::move(socket), pid_);
  }
  if (pid < 0) {
    refuse(socket.get(), system_error("fork", errno).value().message);
    return;
  }
  running_.push_back({pid, std::move(socket)});
}

// Runs in the worker.  If the server reported the start, and were killed before it did, nobody
// would know of the worker.
void Server::report_start(int socket, std::uint64_t before) {
  const FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  const auto took = static_cast<std::int64_t>(monotonic_ns() - before);
  const auto reported =
      pidfd ? send_message(socket, MessageKind::started, {getpid(), took}, {}, pidfd.get())
            : Expected<void>(system_error("pidfd_open", errno));
  if (!reported) {
    refuse(socket, reported.error().message);
    _exit(1);
  }
}

void Server::reap() {
  signalfd_siginfo ignored;
  while (read(signals_.ends(), &ignored, sizeof ignored) > 0) {
  }
  std::erase_if(running_, [](const Running& worker) {
    siginfo_t info = {};
    const int waited = waitid(P_PID, static_cast<id_t>(worker.pid), &info, WEXITED | WNOHANG);
    if (waited == 0 && info.si_pid == 0) return false;
    // Without this message the starter notices that the socket is closed.
    if (waited == 0)
      (void)send_message(worker.socket.get(), MessageKind::exited, {info.si_code, info.si_status});
    return true;
  });
}

// Runs the warm-up function, if there is one, and returns a pidfd of the owner.  Throws what the
// function throws.
FileDescriptor warm_up(Message message) {
  Decoder from(std::move(message.content));
  const auto owner = from.take<pid_t>();
  if (from.take<bool>()) {
    Encoder value;
    if (take_function(from).call({0, 1}, from, value) != 0)
      throw std::runtime_error("the warm-up returned an exit code that is not 0");
    if (const auto checked = check_threads("after the warm-up"); !checked)
      throw std::runtime_error(checked.error().message);
  }
  // Now, because the warm-up may have closed all descriptors.
  FileDescriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, owner, 0)));
  const int open_error = errno;
  if (getppid() != owner) _exit(0);  // the owner has ended
  errno = open_error;
  check("pidfd_open", static_cast<bool>(pidfd));
  return pidfd;
}

}  // namespace

void serve(Message message, FileDescriptor socket) {
  std::optional<Server> server;
  const int to_owner = socket.get();
  try {
    server.emplace(std::move(socket), warm_up(std::move(message)));
  } catch (...) {
    const int status =
        send_text(to_owner, MessageKind::failure, internal::text_of_current_exception());
    flush_streams();
    _exit(status);
  }
  if (!send_message(to_owner, MessageKind::begun)) {
    flush_streams();
    _exit(kUnheard);
  }
  server->run();
  flush_streams();
  _exit(0);
}

}  // namespace cowshed::launch
