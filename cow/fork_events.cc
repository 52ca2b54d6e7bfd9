#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <mutex>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/fork_events.h>
#include <cowshed/probes/clock_offsets.h>

namespace cowshed::cow {
namespace {

// include/uapi/linux/cn_proc.h of 6.6, which Debian 12's headers are older than: with the kinds of
// events that are wanted.  An older kernel takes no notice of a request of this length.
struct Request {
  std::uint32_t operation;
  std::uint32_t kinds;
};
constexpr std::uint32_t kAnswer = 0;
constexpr std::uint32_t kFork = 1;
constexpr std::uint32_t kAllKinds = 0xe00003c7;

struct Event {
  std::uint32_t what;
  std::uint32_t cpu;
  std::uint64_t ns;
  std::int32_t parent_thread;
  std::int32_t parent;
  std::int32_t child_thread;
  std::int32_t child;
};
constexpr std::size_t kHeaders = sizeof(nlmsghdr) + sizeof(cn_msg);
constexpr std::size_t kMostMessageBytes = 256;

bool listen_to(int fd, std::uint32_t kinds) {
  std::array<char, kHeaders + sizeof(Request)> message{};
  nlmsghdr netlink{};
  netlink.nlmsg_len = message.size();
  netlink.nlmsg_type = NLMSG_DONE;
  cn_msg connector{};
  connector.id = {CN_IDX_PROC, CN_VAL_PROC};
  connector.len = sizeof(Request);
  const Request request{PROC_CN_MCAST_LISTEN, kinds};
  std::memcpy(message.data(), &netlink, sizeof netlink);
  std::memcpy(message.data() + sizeof netlink, &connector, sizeof connector);
  std::memcpy(message.data() + kHeaders, &request, sizeof request);
  return ::send(fd, message.data(), message.size(), 0) == static_cast<ssize_t>(message.size());
}

// Among the events of others that may be there already.
bool is_answered(int fd) {
  std::array<char, kMostMessageBytes> message;
  for (;;) {
    const ssize_t got = ::recv(fd, message.data(), message.size(), MSG_DONTWAIT);
    if (got < 0) return false;
    if (static_cast<std::size_t>(got) < kHeaders + sizeof(Event)) continue;
    Event event;
    std::memcpy(&event, message.data() + kHeaders, sizeof event);
    if (event.what == kAnswer) return true;
  }
}

// Lets only forks of processes through.
bool set_filter(int fd) {
  constexpr auto kWhat = kHeaders + offsetof(Event, what);
  constexpr auto kThread = kHeaders + offsetof(Event, child_thread);
  constexpr auto kProcess = kHeaders + offsetof(Event, child);
  std::array<sock_filter, 8> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kWhat),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __builtin_bswap32(kFork), 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kThread),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kProcess),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, kMostMessageBytes),
  }};
  const sock_fprog program{code.size(), code.data()};
  return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

}  // namespace

struct ForkEvents::State {
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (thread.joinable()) {
      const std::uint64_t one = 1;
      while (::write(end, &one, sizeof one) < 0 && errno == EINTR) {
      }
      thread.join();
    }
    for (const int fd : {socket, end}) {
      if (fd >= 0) ::close(fd);
    }
  }

  // Takes all that is there; two at once would change the order.
  void drain() {
    const std::lock_guard lock(mutex);
    std::array<char, kMostMessageBytes> message;
    for (;;) {
      const ssize_t got = ::recv(socket, message.data(), message.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (got < 0) {  // ENOBUFS: the buffer was full
        taken.complete = false;
        if (errno != ENOBUFS) return;
        continue;
      }
      if (static_cast<std::size_t>(got) < kHeaders + sizeof(Event)) continue;
      Event event;
      std::memcpy(&event, message.data() + kHeaders, sizeof event);
      taken.events.push_back(
          {event.parent, event.child, event.ns + static_cast<std::uint64_t>(ahead_ns)});
    }
  }

  void run() {
    // So that a machine that forks without end wakes us no more often than this; the buffer holds
    // over 200 events.
    constexpr timespec kPause{0, 1'000'000};
    std::array<pollfd, 2> wait{{{socket, POLLIN, 0}, {end, POLLIN, 0}}};
    for (;;) {
      if (::poll(wait.data(), wait.size(), -1) < 0) continue;
      if (wait[1].revents != 0) return;
      drain();
      ::nanosleep(&kPause, nullptr);
    }
  }

  std::int64_t ahead_ns = clock_offsets().monotonic_ns;  // of the kernel's own clock
  int socket = -1;
  int end = -1;
  std::mutex mutex;
  Taken taken;
  std::thread thread;
};

ForkEvents::ForkEvents(std::unique_ptr<State> state) : state_(std::move(state)) {}

ForkEvents::~ForkEvents() = default;

std::unique_ptr<ForkEvents> ForkEvents::open() {
  auto state = std::make_unique<State>();
  state->socket = ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
  state->end = ::eventfd(0, EFD_CLOEXEC);
  if (state->socket < 0 || state->end < 0) return nullptr;
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = CN_IDX_PROC;
  if (::bind(state->socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return nullptr;
  }
  // It answers at once, where it does; but not to one who asks for forks only.
  if (!listen_to(state->socket, kAllKinds) || !is_answered(state->socket)) return nullptr;
  if (!listen_to(state->socket, kFork) || !set_filter(state->socket)) return nullptr;
  // What came before the filter.
  std::array<char, kMostMessageBytes> message;
  while (::recv(state->socket, message.data(), message.size(), MSG_DONTWAIT) > 0) {
  }
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  state->thread = std::thread([raw = state.get()] { raw->run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<ForkEvents>(new ForkEvents(std::move(state)));
}

ForkEvents::Taken ForkEvents::take() {
  state_->drain();
  const std::lock_guard lock(state_->mutex);
  Taken result{{}, state_->taken.complete};
  std::swap(result.events, state_->taken.events);
  return result;
}

std::uint64_t ForkEvents::cpu_ns() const {
  clockid_t clock = 0;
  if (::pthread_getcpuclockid(state_->thread.native_handle(), &clock) != 0) return 0;
  return clock_ns(clock);
}

}  // namespace cowshed::cow
