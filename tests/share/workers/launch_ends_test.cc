// How workers end, and how their parent does, under every method.

#include "every_method.h"

namespace cowshed {
namespace {

using LaunchEnds = test::EveryMethod;

COWSHED_EVERY_METHOD(LaunchEnds);

void say(Open to) {
  if (write(to.descriptor, "x", 1) != 1) _exit(9);
}

void say_and_wait(Open to) {
  say(to);
  stay();
}

void kill_self(int signal) { (void)raise(signal); }

TEST_P(LaunchEnds, SignalsAreReportedWhole) {
  for (const int signal : {SIGKILL, SIGTERM, SIGUSR1}) {
    const auto exit = end_of(start<kill_self>(one(), signal));
    EXPECT_EQ(exit.signal, signal);
    EXPECT_EQ(exit.exit_code, -1);
    EXPECT_THAT(exit.error, HasSubstr("died of signal " + std::to_string(signal)));
  }
}

struct Index {
  int answer = 42;
  int more[100] = {};
};

void write_to(const Index& index) { const_cast<Index&>(index).more[20] = 1; }

TEST_P(LaunchEnds, AStrayWriteIsReported) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const auto exit = end_of(start<write_to>(with({.name = "search"}), of.ref));
  EXPECT_TRUE(test::kSanitized || exit.signal == SIGSEGV);  // these exit by themselves
  EXPECT_THAT(exit.error, StartsWith("search 0 (pid " + std::to_string(exit.pid) +
                                     ") died: wrote to frozen arena 'index' at 0x"));
  EXPECT_THAT(exit.error, HasSubstr("(object 'index' + 84)"));
}

double leave(int how) {
  if (how == 0) _exit(0);
  if (how == 1) {
    syscall(SYS_close_range, 0U, ~0U, 0U);
    return 1;
  }
  execl("/bin/true", "true", nullptr);
  return 2;
}

TEST_P(LaunchEnds, AMissingValueIsAnError) {
  for (const int how : {0, 1, 2}) {
    const auto result = end_of(start<leave>(one(), how));
    EXPECT_FALSE(result.ok()) << how;
    EXPECT_FALSE(result.value);
  }
  EXPECT_THAT(end_of(start<leave>(one(), 0)).error, EndsWith("its function did not return"));
  EXPECT_THAT(end_of(start<leave>(one(), 1)).error,
              HasSubstr("exited with 74, as one does that cannot send to its starter"));
}

std::string return_many() { return std::string(100'000, 'x'); }

TEST_P(LaunchEnds, ASecondWaitSucceedsWithoutValues) {
  auto workers = value_of(start<return_many>(one()));
  EXPECT_EQ(value_of(workers.wait())[0].value, return_many());
  for (const auto& again : {workers.wait(), workers.wait_for(0ms), workers.stop({})}) {
    EXPECT_EQ(again.value()[0].error, "");
    EXPECT_FALSE(again.value()[0].value);
  }
}

TEST_P(LaunchEnds, TheDestructorKillsWhatRuns) {
  const Pipe said;
  std::vector<pid_t> pids;
  {
    const auto workers = value_of(start<say_and_wait>(with({.count = 2}), said.to()));
    EXPECT_TRUE(said.read_byte());
    for (const WorkerProcess& worker : workers.processes()) pids.push_back(worker.pid());
  }
  for (const pid_t pid : pids) EXPECT_EQ(kill(pid, 0) == 0 ? 0 : errno, ESRCH);
}

void say_and_ignore_sigterm(Open to) {
  (void)std::signal(SIGTERM, SIG_IGN);
  say_and_wait(to);
}

TEST_P(LaunchEnds, StopTerminatesThenKills) {
  const Pipe said;
  auto options = one();
  auto willing = value_of(start<say_and_wait>(options, said.to()));
  EXPECT_TRUE(said.read_byte());
  EXPECT_EQ(value_of(willing.stop(std::chrono::steady_clock::now() + 60s))[0].signal, SIGTERM);
  options.restarts = 3;  // not by stop()
  using Clock = std::chrono::steady_clock;
  for (const auto deadline : {Clock::now() + 50ms, Clock::time_point::min()}) {
    auto stubborn = value_of(start<say_and_ignore_sigterm>(options, said.to()));
    EXPECT_TRUE(said.read_byte());
    const auto exit = value_of(stubborn.stop(deadline))[0];
    EXPECT_EQ(exit.signal, SIGKILL);
    EXPECT_EQ(exit.restarts, 0);
  }
}

long wait_in_one(const Worker& self, Open told, Open said) {
  say(said);
  char byte = 0;
  if (self.rank == 1) (void)!read(told.descriptor, &byte, 1);
  return self.rank + 40;
}

TEST_P(LaunchEnds, WaitForSaysWhichStillRun) {
  const Pipe told;
  const Pipe said;
  auto workers = value_of(start<wait_in_one>(with({.count = 2}), told.from(), said.to()));
  const auto processes = workers.processes();
  ASSERT_TRUE(processes[0].wait_for(60s)->ok());
  EXPECT_THAT(workers.wait_for(1ms),
              Fails(ErrorCode::timed_out, "after 1 ms these still run: 1 (pid " +
                                              std::to_string(processes[1].pid()) + ")"));
  EXPECT_FALSE(processes[0].running());
  EXPECT_TRUE(processes[1].running());
  ASSERT_EQ(write(told.write_end.get(), "x", 1), 1);
  const auto results = value_of(workers.wait_for(std::chrono::milliseconds::max()));
  EXPECT_EQ(results[0].value, 40);
  EXPECT_EQ(results[1].value, 41);
}

TEST_P(LaunchEnds, AProcessCanBePolledSignalledAndWaitedFor) {
  const Pipe said;
  auto workers = value_of(start<say_and_wait>(with({.count = 2}), said.to()));
  auto moved = std::move(workers);
  const WorkerProcess last = moved.processes()[1];
  EXPECT_TRUE(said.read_byte() && said.read_byte());
  EXPECT_EQ(last.rank(), 1);
  EXPECT_EQ(kill(last.pid(), 0), 0);
  EXPECT_FALSE(internal::is_ready(last.pidfd()));
  EXPECT_THAT(last.wait_for(0ms), Fails(ErrorCode::timed_out, "these still run: 1 (pid "));
  ASSERT_TRUE(last.send_signal(SIGTERM));
  const auto exit = value_of(last.wait_for(60s));
  EXPECT_EQ(exit.signal, SIGTERM);
  EXPECT_EQ(exit.pid, last.pid());
  EXPECT_EQ(last.pidfd(), -1);
  EXPECT_TRUE(last.send_signal(SIGTERM)) << "to nobody";
  EXPECT_TRUE(moved.processes()[0].running());
}

TEST_P(LaunchEnds, WaitForRestartsTheOnesThatFailUpToALimit) {
  auto workers = value_of(start<kill_self>(with({.restarts = 2}), SIGABRT));
  const auto exit = value_of(workers.processes()[0].wait_for(60s));
  EXPECT_EQ(exit.restarts, 2);
  EXPECT_EQ(exit.signal, SIGABRT);
}

// A pipe with so many bytes, and then its end.
Pipe holding(const std::string& bytes) {
  Pipe pipe;
  if (write(pipe.write_end.get(), bytes.data(), bytes.size()) < 0)
    throw std::runtime_error("write");
  pipe.write_end = FileDescriptor();
  return pipe;
}

long fail_twice(const Worker& self, const std::string& text, Open failures, Open said) {
  say(said);
  std::array<char, 4> byte = {};
  if (self.rank == 1 && read(failures.descriptor, byte.data(), 1) == 1)
    throw std::runtime_error("not yet");
  return static_cast<long>(text.size());
}

TEST_P(LaunchEnds, OnesThatFailAreStartedAgain) {
  const Pipe said;
  const Pipe failures = holding("xx");
  const auto options = with({.count = 2, .restarts = 3});
  const auto results = [&] {
    std::string temporary = "hello";  // gone when they are started again
    auto workers = value_of(start<fail_twice>(options, temporary, failures.from(), said.to()));
    temporary = "";
    return value_of(workers.wait());
  }();
  EXPECT_EQ(results[0].value, 5);
  EXPECT_EQ(results[0].restarts, 0);
  EXPECT_EQ(results[1].value, 5);
  EXPECT_EQ(results[1].restarts, 2);
}

double leave_once(Open failures) {
  std::array<char, 1> byte = {};
  if (read(failures.descriptor, byte.data(), 1) == 1) _exit(0);
  return 5;
}

TEST_P(LaunchEnds, OneThatEndedWithoutItsValueHasFailed) {
  const Pipe failures = holding("x");
  const auto result = end_of(start<leave_once>(with({.restarts = 1}), failures.from()));
  EXPECT_EQ(result.value, 5);
  EXPECT_EQ(result.restarts, 1);
}

TEST_P(LaunchEnds, APatienceWithoutEndIsNone) {
  EXPECT_TRUE(
      end_of(start<kill_self>(with({.start_timeout = std::chrono::milliseconds::max()}), 0)).ok());
}

TEST_P(LaunchEnds, WorkersThatWereMovedFromSaySo) {
  auto workers = value_of(start<kill_self>(one(), 0));
  auto other = std::move(workers);
  // NOLINTNEXTLINE(bugprone-use-after-move): it is what this is about
  EXPECT_THAT(workers.wait(), Fails(ErrorCode::invalid_argument));
  EXPECT_THAT(workers.stop(std::chrono::steady_clock::now()), Fails(ErrorCode::invalid_argument));
  EXPECT_THAT(workers.wait_for(0ms), Fails(ErrorCode::invalid_argument));
  EXPECT_TRUE(workers.processes().empty());
  EXPECT_TRUE(value_of(other.wait())[0].ok());
}

// As many descriptors as there are, and so many more.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t more) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const FileDescriptor first_free(dup(STDOUT_FILENO));
    const rlimit few = {static_cast<rlim_t>(first_free.get()) + more, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_ = {};
};

std::string read_byte_and_return_many(Open from) {
  char byte = 0;
  return std::string(read(from.descriptor, &byte, 1) == 1 ? 100'000 : 0, 'x');
}

TEST_P(LaunchEnds, AValueForWhichThereIsNoDescriptorSaysSo) {
  if (test::kAddressSanitizer)
    GTEST_SKIP() << "the sanitizer's check of an object's type needs two descriptors of its own";
  const Pipe told;
  auto workers = value_of(start<read_byte_and_return_many>(one(), told.from()));
  const auto results = [&] {
    const FewDescriptors none(0);
    EXPECT_EQ(write(told.write_end.get(), "x", 1), 1);
    return value_of(workers.wait());
  }();
  EXPECT_FALSE(results[0].value);
  EXPECT_THAT(results[0].error,
              EndsWith("receiving what came with a worker's message: Too many open "
                       "files"));
}

TEST_P(LaunchEnds, AStartForWhichThereAreTooFewDescriptorsLeavesNobody) {
  if (test::kAddressSanitizer)
    GTEST_SKIP() << "the sanitizer's check of an exception's type needs two descriptors of its own";
  Pipe said;
  const auto options = with({.count = 2});
  bool started = false;
  for (rlim_t more = 0; !started; ++more) {
    ASSERT_LT(more, 64U);
    const FewDescriptors few(more);
    const auto workers = start<say_and_wait>(options, said.to());
    started = workers.has_value();
    if (!started) EXPECT_THAT(workers.error().message, HasSubstr("Too many open files")) << more;
  }
  said.write_end = FileDescriptor();
  while (said.read_byte()) {
  }
}

// A process that has started workers which hold the pipe.
class DyingParent {
 public:
  template <class Body>
  explicit DyingParent(const Body& body)
      : child_([&] {
          said_.read_end = FileDescriptor();
          body(said_.to());
          return pause();
        }) {
    said_.write_end = FileDescriptor();
  }
  void kill() {
    child_.signal(SIGKILL);
    child_.wait();
  }
  bool read_byte() const { return said_.read_byte(); }

 private:
  Pipe said_;
  Child child_;
};

TEST_P(LaunchEnds, DieWithTheirParent) {
  const Start method = GetParam();
  DyingParent parent([&](Open out) {
    auto workers = start<say_and_wait>({.method = method, .count = 2}, out);
    pause();
  });
  EXPECT_TRUE(parent.read_byte());
  EXPECT_TRUE(parent.read_byte());
  parent.kill();
  EXPECT_FALSE(parent.read_byte());  // nobody has the other end any more, nor the forkserver
}

void say_when_told(Open told, Open said) {
  say(said);
  std::array<char, 1> byte = {};
  (void)!read(told.descriptor, byte.data(), 1);
  say(said);
}

TEST_P(LaunchEnds, OutliveTheirParentIfAsked) {
  const Start method = GetParam();
  Pipe told;
  DyingParent parent([&](Open out) {
    told.write_end = FileDescriptor();
    auto workers =
        start<say_when_told>({.method = method, .die_with_parent = false}, told.from(), out);
    pause();
  });
  EXPECT_TRUE(parent.read_byte());
  parent.kill();
  told.write_end = FileDescriptor();
  EXPECT_TRUE(parent.read_byte());
  EXPECT_FALSE(parent.read_byte());
}

TEST_P(LaunchEnds, AForkedCopyOfTheHandleLeavesThemAlone) {
  const Pipe said;
  const Pipe told;
  auto workers = value_of(start<say_when_told>(one(), told.from(), said.to()));
  EXPECT_TRUE(said.read_byte());
  (void)Child([&] {
    const auto taken = std::move(workers);
    return 0;
  }).wait();
  ASSERT_EQ(write(told.write_end.get(), "x", 1), 1);
  EXPECT_TRUE(value_of(workers.wait())[0].ok());
}

TEST_P(LaunchEnds, AParentWithThreadsIsRefusedForForkAlone) {
  if (test::kThreadSanitizer && GetParam() == Start::fork)
    GTEST_SKIP() << "ThreadSanitizer does not support a fork while threads run";
  const WorkersOptions options = one();
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) std::this_thread::sleep_for(1ms);
  });
  auto workers = start<[]() { return 4L; }>(options);
  pthread_setname_np(other.native_handle(), "cowshed-undo");
  const auto beside_undo = end_of(start<[]() { return 4L; }>(options));
  WorkersOptions allowed = options;
  allowed.threads = Threads::allow;
  const auto result = end_of(start<[]() { return 4L; }>(allowed));
  stop = true;
  other.join();
  EXPECT_EQ(result.value, 4);
  EXPECT_EQ(beside_undo.value, 4);
  if (GetParam() == Start::fork) {
    EXPECT_THAT(workers, Fails(ErrorCode::threads_running, "other threads: "));
    EXPECT_THAT(workers, Fails(ErrorCode::threads_running, "Start::spawn"));
  } else {
    EXPECT_EQ(value_of(workers->wait())[0].value, 4);
  }
}

TEST_P(LaunchEnds, ManyThreadsStartAtOnce) {
  if (test::kThreadSanitizer && GetParam() == Start::fork)
    GTEST_SKIP() << "ThreadSanitizer does not support a fork while threads run";
  if (test::kAddressSanitizer && GetParam() == Start::fork)
    GTEST_SKIP() << "AddressSanitizer's fflush() takes a lock, which a fork meanwhile leaves taken";
  auto options = with({.count = 2});
  options.threads = Threads::allow;
  std::atomic<int> right = 0;
  (void)begin_threads(4, [&](int i) {
    for (int round = 0; round < 5; ++round) {
      auto workers = value_of(
          start<[](const Worker& self, int number) { return long{number} * 10 + self.rank; }>(
              options, i));
      for (const auto& result : value_of(workers.wait()))
        right += static_cast<int>(result.value == i * 10 + result.rank);
    }
  });
  EXPECT_EQ(right, 4 * 5 * 2);
}

// As everybody writes it: the loop keeps the results alive.
TEST_P(LaunchEnds, ResultsAreThereInALoopOverATemporary) {
  auto workers = value_of(
      start<[](const Worker& self) { return std::string(100, 'a') + std::to_string(self.rank); }>(
          with({.count = 3})));
  std::string ranks;
  for (auto& end : workers.wait().value()) ranks += end.value.value_or("none").back();
  for (const auto& end : *workers.wait()) ranks += std::to_string(end.rank);
  for (auto&& end : workers.wait_for(0ms).value()) ranks += std::to_string(end.rank);
  EXPECT_EQ(ranks, "012012012");
  static_assert(!std::is_reference_v<decltype(workers.wait().value())>);
  static_assert(!std::is_reference_v<decltype(*workers.wait())>);
}

// A thread that was begun since start() would leave what it holds locked in the new worker.
// The kernel closes its descriptors, and so frees this memory, after pthread_join() has returned.
TEST(LaunchThreads, ThatWereJoinedHoldUpNoFork) {
  for (int i = 0; i < 10; ++i) {
    std::jthread([] {
      unshare(CLONE_FILES);
      fallocate(memfd_create("freed late", 0), 0, 0, 64_MiB);
    }).join();
    EXPECT_EQ(end_of(start({}, [] { return 4L; })).value, 4);
  }
}

TEST(LaunchThreads, HoldUpARestartUntilTheyHaveEnded) {
  if (test::kThreadSanitizer)
    GTEST_SKIP() << "ThreadSanitizer does not support a fork while threads run";
  const Pipe failures = holding("xxx");
  auto workers = value_of(start({.count = 3, .name = "again", .restarts = 2}, [&] {
    std::array<char, 1> byte = {};
    if (read(failures.read_end.get(), byte.data(), 1) == 1) std::abort();
  }));
  for (const WorkerProcess& worker : workers.processes())
    EXPECT_TRUE(internal::is_ready(worker.pidfd(), POLLIN, 60'000));
  std::atomic<bool> done = false;
  std::thread other([&] { done.wait(false); });
  const auto ends = workers.wait();
  done = true;
  done.notify_one();
  other.join();
  EXPECT_THAT(ends, Fails(ErrorCode::threads_running, "workers 'again': "));
  for (const auto& end : workers.wait().value()) {
    EXPECT_EQ(end.error, "");
    EXPECT_EQ(end.restarts, 1);
  }
}

// The kernel kills it when the thread ends that forked it.
TEST(LaunchThreads, ThatRestartedAWorkerTakeItAlong) {
  const Pipe said;
  auto workers = value_of(start<say_and_wait>({.method = Start::spawn, .restarts = 1}, said.to()));
  const WorkerProcess worker = workers.processes()[0];
  EXPECT_TRUE(said.read_byte());
  ASSERT_TRUE(worker.send_signal(SIGTERM));
  EXPECT_TRUE(internal::is_ready(worker.pidfd(), POLLIN, 60'000));
  std::filesystem::path restarter = "/proc/self/task";
  std::thread([&] {
    restarter /= std::to_string(gettid());
    EXPECT_THAT(workers.wait_for(0ms), Fails(ErrorCode::timed_out));
    EXPECT_TRUE(said.read_byte());
  }).join();
  while (std::filesystem::exists(restarter)) std::this_thread::sleep_for(1ms);
  const WorkerExit end = value_of(workers.wait())[0];
  EXPECT_EQ(end.restarts, 1);
  EXPECT_THAT(end.error, HasSubstr("the thread that started it has ended"));
}

}  // namespace
}  // namespace cowshed
