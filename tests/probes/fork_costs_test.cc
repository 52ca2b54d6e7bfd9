#include <spawn.h>
#include <sys/sysinfo.h>

#include <cowshed/base/clock.h>
#include <cowshed/tests/support/child.h>

#include "subject.h"

// What is counted of forks, against what the process that forks sees of them itself.

namespace cowshed::test {
namespace {

constexpr int kForks = 100;

char* private_pages(std::size_t bytes, char* at = nullptr) {
  void* pages = mmap(at, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | (at != nullptr ? MAP_FIXED : 0), -1, 0);
  if (pages == MAP_FAILED) throw std::runtime_error("mmap");
  return static_cast<char*>(pages);
}

// Its duration in ns; 0: it failed.
std::uint64_t fork_once() {
  const std::uint64_t begin = monotonic_ns();
  const pid_t child = fork();
  if (child == 0) _exit(0);
  const std::uint64_t end = monotonic_ns();
  if (child < 0) return 0;
  waitpid(child, nullptr, 0);
  return end - begin;
}

class ForkCostsTest : public WithProbe {
 protected:
  // Of a process that does it, and what that says.
  ForkCosts of(const std::function<std::string()>& work) {
    Child child([&work](const Line& test) {
      test.say();
      if (test.hear()) test.say(work());
      return 0;
    });
    child.hear();
    EXPECT_EQ(probe_->attach_trees(std::array{child.pid()}).value().processes, 1);
    child.say();
    said_ = child.hear().value_or("");
    child.wait();
    const Snapshot snapshot = probe_->snapshot().value();
    EXPECT_EQ(snapshot.losses.lost(), 0U);
    if (snapshot.processes.empty()) throw std::runtime_error("it was not tracked");
    return snapshot.processes.front().fork_costs.value_or(ForkCosts());
  }

  void SetUp() override {
    WithProbe::SetUp();
    if (IsSkipped()) return;
    const Child child([] { return pause(); });
    Probe probe = Probe::load().value();
    probe.attach_trees(std::array{child.pid()}).value();
    if (!probe.snapshot().value().processes.front().fork_costs)
      GTEST_SKIP() << "Linux before 6.6, without fentry";
  }

  std::string said_;
};

TEST_F(ForkCostsTest, AgreeWithTheProcesssOwnClock) {
  constexpr std::size_t kBytes = std::size_t{320} << 20U;
  const ForkCosts costs = of([] {
    const sched_param priority = {.sched_priority = 1};  // nobody runs between its clock and ours
    sched_setscheduler(0, SCHED_FIFO, &priority);
    char* pages = private_pages(kBytes);
    madvise(pages, kBytes, MADV_NOHUGEPAGE);
    std::memset(pages, 1, kBytes);
    std::vector<std::uint64_t> own;
    for (int i = 0; i < kForks; ++i) own.push_back(fork_once());
    std::ranges::sort(own);
    return std::to_string(own[kForks / 2]);
  });
  EXPECT_EQ(costs.forks(), static_cast<std::uint64_t>(kForks));
  const double own = std::stod(said_);
  // An emulated CPU needs as long again after the call, to fill its tables.
  const double within = std::getenv("COWSHED_EXPECT_FENTRY") != nullptr ? 0.5 : 0.15;
  EXPECT_NEAR(static_cast<double>(costs.median_ns().value()), own, within * own);
  EXPECT_GE(costs.longest_ns, costs.median_ns());
  EXPECT_GE(costs.total_ns, costs.longest_ns);
  EXPECT_LE(costs.total_ns, kForks * costs.longest_ns);
  EXPECT_EQ(costs.failed() + costs.spawns + costs.beside_threads, 0U);
}

TEST_F(ForkCostsTest, WhatIsWrittenAtTheEndIsNotWrittenBetweenForks) {
  constexpr std::size_t kBytes = std::size_t{4} << 20U;
  const ForkCosts costs = of([] {
    char* pages = private_pages(kBytes);
    madvise(pages, kBytes, MADV_NOHUGEPAGE);
    std::memset(pages, 1, kBytes);
    fork_once();
    std::memset(pages, 2, kBytes / 4);
    fork_once();
    std::memset(pages, 3, kBytes);
    return "";
  });
  constexpr std::uint64_t kOnePage = 4096;
  constexpr std::uint64_t kOfStack = 32;
  EXPECT_GE(costs.written_pages, kBytes / 4 / kOnePage);
  EXPECT_LE(costs.written_pages, kBytes / 4 / kOnePage + kOfStack);
}

TEST_F(ForkCostsTest, ThreadsAreNoForksAndOthersThatShareMemoryAreApart) {
  const ForkCosts costs = of([] {
    fork_once();
    const std::jthread first([](const std::stop_token& stop) {
      while (!stop.stop_requested()) std::this_thread::yield();
    });
    std::jthread second(fork_once);
    second.join();
    // The kernel makes larger tables of futexes for them.
    for (int round = 0; round < 4; ++round) {
      std::vector<std::jthread> many;
      for (int i = 0; i < 40; ++i) many.emplace_back([] {});
    }
    fork_once();
    char name[] = "true";
    char* const words[] = {name, nullptr};
    pid_t child = 0;
    if (posix_spawnp(&child, name, nullptr, nullptr, words, nullptr) == 0)
      waitpid(child, nullptr, 0);
    return "";
  });
  EXPECT_EQ(costs.forks(), 3U);
  EXPECT_EQ(costs.beside_threads, 2U);
  EXPECT_EQ(costs.most_threads, 2U);
  EXPECT_EQ(costs.spawns, 1U);
  EXPECT_EQ(costs.failed(), 0U);
}

TEST_F(ForkCostsTest, TheThreadThatUndoesCopiesDoesNotCount) {
  const ForkCosts costs = of([] {
    std::jthread undo([](const std::stop_token& stop) {
      while (!stop.stop_requested()) std::this_thread::yield();
    });
    pthread_setname_np(undo.native_handle(), "cowshed-undo");
    fork_once();
    return "";
  });
  EXPECT_EQ(costs.forks(), 1U);
  EXPECT_EQ(costs.beside_threads, 0U);
}

TEST_F(ForkCostsTest, ThatTheKernelRefusesHaveTheirErrno) {
  int overcommits = 0;
  std::ifstream("/proc/sys/vm/overcommit_memory") >> overcommits;
  if (overcommits != 0) GTEST_SKIP() << "vm.overcommit_memory is not 0";
  const ForkCosts costs = of([] {
    fork_once();
    struct sysinfo machine = {};
    sysinfo(&machine);
    const std::size_t half = (machine.totalram + machine.totalswap) / 2 >> 21U << 21U;
    char* at = reinterpret_cast<char*>(std::uintptr_t{1} << 44U);
    for (int i = 0; i < 5; ++i, at += half) private_pages(half, at);  // one mapping
    for (int i = 0; i < 3; ++i) fork_once();
    return "";
  });
  EXPECT_EQ(costs.forks(), 1U);
  ASSERT_THAT(costs.failures, SizeIs(1));
  EXPECT_EQ(costs.failures[0].forks, 3U);
  if (costs.failures[0].error != 0 || std::getenv("COWSHED_EXPECT_FENTRY") != nullptr)
    EXPECT_EQ(costs.failures[0].error, ENOMEM);
}

}  // namespace
}  // namespace cowshed::test
