#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iostream>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "child.h"
#include "make_arena.h"
#include "open_descriptors.h"

namespace cowshed {
namespace {

using test::make_arena;
using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

struct Index {
  int answer = 42;
  int more[100] = {};
};

// Starts, waits, and returns what became of all.
template <class... Args>
std::vector<WorkerExit> run(int count, const Args&... args) {
  auto workers = start({.count = count}, args...);
  if (!workers) {
    throw std::runtime_error(workers.error().message);
  }
  return workers->wait().value();
}

int answer_of(const Index& index) { return index.answer; }
int rank_of(const Worker& self, int base) { return base + self.rank * 10 + self.count; }

TEST(Workers, AReferenceArrivesAsTheObject) {
  Arena arena = make_arena();
  const auto ref = publish("index", *arena.make<Index>());
  ASSERT_TRUE(arena.freeze());
  for (const auto& exit : run(3, answer_of, *ref)) {
    EXPECT_EQ(exit.exit_code, 42) << exit.error;
  }
}

TEST(Workers, KnowTheirRank) {
  const auto exits = run(3, rank_of, 100);
  ASSERT_EQ(exits.size(), 3U);
  for (int i = 0; i < 3; ++i) {
    const auto& exit = exits[static_cast<std::size_t>(i)];
    EXPECT_EQ(exit.rank, i);
    EXPECT_EQ(exit.exit_code, 100 + i * 10 + 3);
    EXPECT_FALSE(exit.ok());
    EXPECT_GT(exit.start_ns, 0U);
    EXPECT_EQ(exit.error, "worker " + std::to_string(i) + " (pid " + std::to_string(exit.pid) +
                              ") exited with " + std::to_string(exit.exit_code));
  }
}

TEST(Workers, StartBeforeFreezeSaysSo) {
  Arena arena = make_arena();
  const auto ref = publish("index", *arena.make<Index>());
  const auto workers = start({.count = 1}, answer_of, *ref);
  ASSERT_FALSE(workers);
  EXPECT_EQ(workers.error().code, ErrorCode::arena_not_frozen);
  EXPECT_THAT(workers.error().message, HasSubstr("freeze() it before start()"));
}

TEST(Workers, ABadReferenceIsNotStarted) {
  const auto workers = start({.count = 1}, answer_of, Ref<Index>{});
  ASSERT_FALSE(workers);
  EXPECT_EQ(workers.error().code, ErrorCode::null_reference);
  EXPECT_EQ(start({.count = 0}, [] {}).error().code, ErrorCode::invalid_argument);
}

TEST(Workers, AnExceptionReachesTheParentAsText) {
  const auto exits = run(2, [](const Worker& self) {
    if (self.rank == 1) {
      throw std::runtime_error("no such corpus");
    }
  });
  EXPECT_TRUE(exits[0].ok());
  EXPECT_EQ(exits[0].error, "");
  EXPECT_EQ(exits[1].exit_code, 1);
  EXPECT_EQ(exits[1].error, "worker 1 (pid " + std::to_string(exits[1].pid) + "): no such corpus");
  EXPECT_THAT(run(1, [] { throw 1; })[0].error, HasSubstr("no std::exception"));
  EXPECT_LT(run(1, [] { throw std::runtime_error(std::string(10000, 'x')); })[0].error.size(),
            3000U);
}

TEST(Workers, AnErrorIsOneLine) {
  const auto exit = run(1, [] { throw std::runtime_error("boom\nand more"); })[0];
  EXPECT_THAT(exit.error, testing::EndsWith("): boom and more"));
}

TEST(Workers, WhatAWorkerForksDoesNotReportAsTheWorker) {
  Arena arena = make_arena();
  Index* index = *arena.make<Index>();
  ASSERT_TRUE(arena.freeze());
  const auto in_grandchild = [](const auto& body) {
    const pid_t pid = fork();
    if (pid == 0) {
      body();
      _exit(0);
    }
    waitpid(pid, nullptr, 0);
  };
  const auto wrote = run(1, [&] {
    in_grandchild([&] { index->answer = 1; });
    return 7;
  })[0];
  EXPECT_THAT(wrote.error, testing::EndsWith("exited with 7"));
  const auto threw = run(1, [&] {
    in_grandchild([] { throw std::runtime_error("from the grandchild"); });
    return 0;
  })[0];
  EXPECT_EQ(threw.error, "");
}

TEST(Workers, StartSaysThatTheirExitsWouldBeLost) {
  struct sigaction before = {};
  sigaction(SIGCHLD, nullptr, &before);
  (void)std::signal(SIGCHLD, SIG_IGN);
  const auto workers = start({.count = 1}, [] {});
  sigaction(SIGCHLD, &before, nullptr);
  ASSERT_FALSE(workers);
  EXPECT_EQ(workers.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(workers.error().message, HasSubstr("SIGCHLD is ignored"));
}

TEST(Workers, SignalsAreReported) {
  const auto exit = run(1, [] { (void)raise(SIGKILL); })[0];
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_EQ(exit.exit_code, -1);
  EXPECT_THAT(exit.error, HasSubstr("died of signal 9 (Killed)"));
}

TEST(Workers, AStrayWriteIsReported) {
  Arena arena = make_arena();
  Index* index = *arena.make<Index>();
  const auto ref = publish("index", index);
  ASSERT_TRUE(arena.freeze());
  auto workers = start({.count = 1, .name = "search"}, [&] { index->more[20] = 1; });
  ASSERT_TRUE(workers);
  const WorkerExit exit = workers->wait().value()[0];
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // these exit by themselves
  EXPECT_EQ(exit.signal, SIGSEGV);
#endif
  EXPECT_THAT(exit.error, StartsWith("search 0 (pid " + std::to_string(exit.pid) +
                                     ") died: wrote to frozen arena 'index' at 0x"));
  EXPECT_THAT(exit.error, HasSubstr("(object 'index' + 84)"));
}

TEST(Workers, ASegmentationFaultElsewhereIsJustThat) {
  const auto exit = run(1, [] { (void)raise(SIGSEGV); })[0];
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_EQ(exit.signal, SIGSEGV);
#endif
  EXPECT_THAT(exit.error, testing::Not(HasSubstr("frozen")));
}

// Text that is still in a buffer at the fork comes out once, the workers' own too.
TEST(Workers, NothingIsPrintedTwice) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    (void)std::setvbuf(stdout, nullptr, _IOFBF, 65536);
    std::cout << "before ";
    (void)std::fputs("also ", stdout);
    (void)run(2, [] { std::cout << "worker "; });
    std::cout << "after";
    std::cout.flush();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t count = 0; (count = read(ends[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  close(ends[0]);
  EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
  EXPECT_EQ(text, "before also worker worker after");
}

TEST(Workers, DieWithTheirParent) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    close(ends[0]);
    const auto workers = start({.count = 2}, [] { pause(); });
    _exit(workers ? 0 : 1);  // without waiting, without destructors
  }
  close(ends[1]);
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  char byte = 0;
  EXPECT_EQ(read(ends[0], &byte, 1), 0);  // returns when nobody holds the other end any more
  close(ends[0]);
}

TEST(Workers, LeaveNoZombiesAndNoDescriptors) {
  (void)run(1, [] {});  // a process that has started any has its tree's descriptor from then on
  const std::size_t before = test::open_descriptors();
  // A worker has one of its own, to its parent.
  const auto in_child = run(4, [before] { return test::open_descriptors() == before + 1 ? 0 : 1; });
  for (const auto& exit : in_child) {
    EXPECT_TRUE(exit.ok()) << "a worker has a descriptor more";
  }
  {
    auto workers = start({.count = 4}, [] { pause(); });
  }  // killed by the destructor
  EXPECT_EQ(test::open_descriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(Workers, WaitingTwiceSaysTheSame) {
  auto workers = start({.count = 1}, [] { return 3; });
  EXPECT_EQ(workers->wait().value()[0].exit_code, 3);
  EXPECT_EQ(workers->wait().value()[0].exit_code, 3);
  EXPECT_EQ(workers->pids().size(), 1U);
}

TEST(Workers, StopTerminatesThenKills) {
  auto willing = start({.count = 2}, [] {
    for (;;) {
      pause();
    }
  });
  const auto exits = willing->stop(std::chrono::steady_clock::now() + 60s);
  for (const auto& exit : *exits) {
    EXPECT_EQ(exit.signal, SIGTERM);
  }
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  auto stubborn = start({.count = 1}, [&] {
    (void)std::signal(SIGTERM, SIG_IGN);
    if (write(ends[1], "x", 1) != 1) {
      return;
    }
    for (;;) {
      pause();
    }
  });
  char byte = 0;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  EXPECT_EQ(stubborn->stop(std::chrono::steady_clock::now() + 50ms).value()[0].signal, SIGKILL);
  close(ends[0]);
  close(ends[1]);
}

TEST(Workers, AForkedCopyOfTheHandleLeavesThemAlone) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  auto workers = start({.count = 1}, [&] {
    char byte = 0;
    return read(ends[0], &byte, 1) == 1 ? 7 : 8;
  });
  (void)test::run_in_child([&] {
    const Workers<> taken = std::move(*workers);
    return "";
  });
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  EXPECT_EQ(workers->wait().value()[0].exit_code, 7);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace cowshed
