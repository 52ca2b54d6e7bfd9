#include <sys/epoll.h>
#include <sys/select.h>

#include <cowshed/share/settle/interrupted_calls.h>
#include <cowshed/share/settle/thread_stopper.h>
#include <cowshed/tests/share/settle/settling.h>

namespace cowshed {
namespace {

using test::Blocks;
using test::is_settled;

const SettleOptions stops = {.threads = OtherThreads::stop, .stop_timeout = 60s};

TEST(SettleThreads, AreRefusedByName) {
  std::atomic<bool> over = false;
  std::atomic<bool> begun = false;
  const std::jthread other([&] {
    prctl(PR_SET_NAME, "the-other");
    begun = true;
    over.wait(false);
  });
  ASSERT_TRUE(eventually([&] { return begun.load(); }));
  EXPECT_THAT(settle(), Fails(ErrorCode::threads_running, "the-other"));
  over = true;
  over.notify_all();
}

TEST(SettleThreads, ThatHaveEndedAreNoObstacle) {
  for (int i = 0; i < 50; ++i) {
    std::jthread([] {}).join();
    EXPECT_THAT(settle(), Succeeds());
  }
}

// Calls that a signal's handler interrupts, even with SA_RESTART.  Each returns 0 when the pipe has
// a byte, or after its time.
using Wait = int (*)(int pipe);
const std::initializer_list<std::pair<const char*, Wait>> waits = {
    {"nanosleep",
     [](int) {
       timespec time = {0, 900'000'000};
       return nanosleep(&time, &time);
     }},
    {"poll",
     [](int pipe) {
       pollfd input = {pipe, POLLIN, 0};
       return poll(&input, 1, -1) - 1;
     }},
    {"select",
     [](int pipe) {
       fd_set inputs;
       FD_ZERO(&inputs);
       FD_SET(pipe, &inputs);
       timeval time = {3600, 0};
       return select(pipe + 1, &inputs, nullptr, nullptr, &time) - 1;
     }},
    {"epoll_wait", [](int pipe) {
       const FileDescriptor poll(epoll_create1(EPOLL_CLOEXEC));
       epoll_event event = {};
       event.events = EPOLLIN;
       epoll_ctl(poll.get(), EPOLL_CTL_ADD, pipe, &event);
       return epoll_wait(poll.get(), &event, 1, -1) - 1;
     }}};

TEST(SettleThreads, WaitOnInCallsThatSignalsInterrupt) {
  const FileDescriptor tasks(open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const auto& [name, wait] : waits) {
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    std::atomic<pid_t> thread = 0;
    int result = -2;
    std::jthread waiter([&, call = wait] {
      thread = gettid();
      result = call(pipe[0]);
    });
    auto stopper = value_of(settling::ThreadStopper::create(60s));
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(eventually([&] {
        const auto waited = settling::call_of(tasks.get(), std::to_string(thread).c_str());
        return waited && settling::rest_of(*waited);
      })) << name;
      ASSERT_THAT(stopper.stop(), Succeeds());
      stopper.resume();
    }
    ASSERT_EQ(write(pipe[1], "x", 1), 1);
    waiter.join();
    EXPECT_EQ(result, 0) << name;
    close(pipe[0]);
    close(pipe[1]);
  }
}

TEST(SettleThreads, NoticeASignalThatComesWhileTheyAreStopped) {
  const FileDescriptor tasks(open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  std::atomic<pid_t> thread = 0;
  int error = 0;
  std::jthread waiter([&] {
    thread = gettid();
    error = ppoll(nullptr, 0, nullptr, nullptr) < 0 ? errno : 0;
  });
  ASSERT_TRUE(eventually([&] {
    const auto waited = settling::call_of(tasks.get(), std::to_string(thread).c_str());
    return waited && waited->number == SYS_ppoll;
  }));
  auto stopper = value_of(settling::ThreadStopper::create(60s));
  ASSERT_THAT(stopper.stop(), Succeeds());
  pthread_kill(waiter.native_handle(), SIGUSR1);
  stopper.resume();
  waiter.join();
  EXPECT_EQ(error, EINTR);
}

// Each of them counts in memory that moves meanwhile.
TEST(SettleThreads, LoseNoWriteWhenTheyAreStopped) {
  constexpr std::size_t kThreads = 4;
  Blocks blocks(32_MiB);
  std::memset(blocks[0], 0, 32_MiB);
  std::atomic<bool> over = false;
  std::array<long, kThreads> written = {};
  {
    const auto threads = begin_threads(kThreads, [&](std::size_t self) {
      sigset_t all;
      sigfillset(&all);
      if (self % 2 == 1) pthread_sigmask(SIG_BLOCK, &all, nullptr);
      long count = 0;
      for (std::size_t at = 0; !over; at = (at + 4_KiB) % 32_MiB, ++count)
        ++*reinterpret_cast<long*>(blocks[0] + at + self * sizeof(long));
      written[self] = count;
    });
    for (int i = 0; i < test::little_or(3, 100); ++i) {
      ASSERT_THAT(settle(stops), Succeeds());
      EXPECT_TRUE(is_settled(blocks[0] + 1_MiB));
      ASSERT_THAT(unsettle(stops), Succeeds());
    }
    over = true;
  }
  for (std::size_t self = 0; self < kThreads; ++self) {
    long found = 0;
    for (std::size_t at = 0; at < 32_MiB; at += 4_KiB)
      found += *reinterpret_cast<long*>(blocks[0] + at + self * sizeof(long));
    EXPECT_EQ(found, written[self]);
  }
}

// Threads begin and end, allocate and free.
TEST(SettleThreads, MayAllocateAndStartOthers) {
  std::atomic<bool> over = false;
  std::atomic<std::size_t> damage = 0;
  {
    const auto threads = begin_threads(3, [&](int self) {
      std::minstd_rand random(static_cast<unsigned>(self));
      while (!over) {
        std::jthread([&] {
          Blocks blocks;
          for (int i = 0; i < 50; ++i) blocks.add(random() % (i % 10 == 0 ? 400'000 : 3'000));
          while (blocks.count() > 0) {
            if (blocks.count() % 7 == 0) blocks.resize(0, random() % 500'000 + 1);
            damage += blocks.count() % 5 == 0 ? blocks.damage() : 0;
            blocks.remove(random() % blocks.count());
          }
        }).join();
      }
    });
    SettleOptions options = stops;
    for (int i = 0; i < test::little_or(5, 300); ++i) {
      options.huge_pages = i % 7 == 0;
      ASSERT_THAT(i % 4 == 3 ? unsettle(options) : settle(options), Succeeds());
    }
    over = true;
  }
  EXPECT_EQ(damage, 0U);
}

bool is_sent(int signal) {
  std::uint64_t pending = 0;
  syscall(SYS_rt_sigpending, &pending, sizeof pending);
  return (pending >> static_cast<unsigned>(signal - 1) & 1U) != 0;
}

// What libraries cannot do: signal 33 is glibc's.
void block_everything(bool block) {
  std::uint64_t mask = ~std::uint64_t{0};
  syscall(SYS_rt_sigprocmask, block ? SIG_BLOCK : SIG_UNBLOCK, &mask, nullptr, sizeof mask);
}

// A thread starts another after the threads were listed, and before it stops itself.
TEST(SettleThreads, ThatAppearMeanwhileAreStoppedToo) {
  const test::Pages pages(32_MiB);
  const auto address = reinterpret_cast<std::uintptr_t>(pages.data());
  const auto memory = pages.span().subspan(16_MiB - address % 16_MiB, 16_MiB);  // moved at once
  auto* const counts = pages.data() + (16_MiB - address % 16_MiB);
  std::atomic<bool> over = false;
  std::atomic<bool> begun = false;
  std::atomic<bool> second_runs = false;
  unsigned char written = 7;
  {
    const std::jthread first([&] {
      block_everything(true);
      begun = true;
      while (!is_sent(33) && !over) sched_yield();
      const std::jthread second([&] {
        second_runs = true;  // before the unblocking, which may stop this thread
        block_everything(false);
        for (; !over; ++written)
          for (std::size_t at = 0; at < 16_MiB; at += 4_KiB) ++counts[at];
      });
      while (!second_runs) sched_yield();
      block_everything(false);
    });
    ASSERT_TRUE(eventually([&] { return begun.load(); }));
    EXPECT_THAT(
        settle(
            {.also = {memory}, .heap = false, .threads = OtherThreads::stop, .stop_timeout = 60s}),
        Succeeds());
    over = true;
  }
  EXPECT_TRUE(second_runs);
  EXPECT_TRUE(is_settled(counts));
  std::size_t lost = 0;
  for (std::size_t at = 0; at < 16_MiB; at += 4_KiB) lost += counts[at] != written ? 1 : 0;
  EXPECT_EQ(lost, 0U);
}

TEST(SettleThreads, OnSignalStacksInTheHeapGoOn) {
  Blocks blocks(4_MiB);
  std::atomic<bool> over = false;
  std::atomic<bool> begun = false;
  {
    const std::jthread other([&] {
      const stack_t stack = {blocks[0] + 1_MiB, 0, 1_MiB};
      sigaltstack(&stack, nullptr);
      begun = true;
      while (!over) sched_yield();
      const stack_t none = {nullptr, SS_DISABLE, 0};
      sigaltstack(&none, nullptr);
    });
    ASSERT_TRUE(eventually([&] { return begun.load(); }));
    for (int i = 0; i < 5; ++i) {
      ASSERT_THAT(settle(stops), Succeeds());
      ASSERT_THAT(unsettle(stops), Succeeds());
    }
    over = true;
  }
}

TEST(SettleThreads, ThatNoSignalReachesAreNamedAndNothingMoves) {
  Blocks blocks(4_MiB);
  const auto child = run_in_child([&]() -> std::string {
    const rlimit none = {0, 0};
    if (setrlimit(RLIMIT_SIGPENDING, &none) != 0) return "setrlimit";
    std::atomic<bool> over = false;
    const std::jthread other([&] { over.wait(false); });
    const auto settled = settle({.threads = OtherThreads::stop, .stop_timeout = 10ms});
    over = true;
    over.notify_all();
    if (settled || is_settled(blocks[0] + 1_MiB) || blocks.damage() != 0) return "moved";
    return settled.error().message;
  });
  EXPECT_THAT(child.said, testing::ContainsRegex("thread [0-9]+; .*RLIMIT_SIGPENDING"));
}

TEST(SettleThreads, ThatDoNotStopAreNamedAndNothingMoves) {
  Blocks blocks(4_MiB);
  const auto child = run_in_child([&]() -> std::string {
    std::atomic<int> number = 0;
    std::thread([&] {
      sigset_t set;
      std::memset(&set, 0xff, sizeof set);  // more than glibc blocks
      syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, nullptr, 8);
      number = gettid();
      for (;;) usleep(1000);
    }).detach();
    if (!eventually([&] { return number != 0; })) return "not started";
    const auto settled = settle({.threads = OtherThreads::stop});
    if (settled || is_settled(blocks[0] + 1_MiB) || blocks.damage() != 0) return "moved";
    return settled.error().message.find(std::to_string(number)) == std::string::npos
               ? settled.error().message
               : std::string(to_string(settled.error().code));
  });
  EXPECT_EQ(child.said, "threads_running");
}

}  // namespace
}  // namespace cowshed
