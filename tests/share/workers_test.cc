#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>

#include "make_arena.h"

// What is special about workers that are forked and run a closure; launch_ends_test has the rest.
namespace cowshed {
namespace {

using test::make_arena;

struct Index {
  int answer = 42;
};

// Starts, waits, and returns what became of all.
template <class... Args>
std::vector<WorkerExit> run(int count, const Args&... args) {
  auto workers = start({.count = count}, args...);
  if (!workers) throw std::runtime_error(workers.error().message);
  return workers->wait().value();
}

TEST(Workers, GetTheirRankAndTheObjectOfAReference) {
  Arena arena = make_arena();
  const auto ref = publish("index", *arena.make<Index>());
  ASSERT_TRUE(arena.freeze());
  const auto exits =
      run(3, [](const Worker& self, const Index& index) { return index.answer + self.rank; }, *ref);
  ASSERT_EQ(exits.size(), 3U);
  for (int i = 0; i < 3; ++i) {
    const auto& exit = exits[static_cast<std::size_t>(i)];
    EXPECT_EQ(exit.rank, i);
    EXPECT_FALSE(exit.ok());
    EXPECT_GT(exit.start_ns, 0U);
    EXPECT_EQ(exit.error, "worker " + std::to_string(i) + " (pid " + std::to_string(exit.pid) +
                              ") exited with " + std::to_string(42 + i));
  }
  EXPECT_EQ(start({.count = 0}, [] {}).error().code, ErrorCode::invalid_argument);
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
  EXPECT_THAT(wrote.error, EndsWith("exited with 7"));
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

TEST(Workers, ASegmentationFaultElsewhereIsJustThat) {
  const auto exit = run(1, [] { (void)raise(SIGSEGV); })[0];
  EXPECT_TRUE(test::kSanitized || exit.signal == SIGSEGV);
  EXPECT_THAT(exit.error, Not(HasSubstr("frozen")));
}

// Text that is still in a buffer at the fork comes out once, the workers' own too.
TEST(Workers, NothingIsPrintedTwice) {
  const auto child = test::run_in_child([] {
    char text[256] = {};
    int ends[2] = {};
    if (pipe(ends) != 0 || dup2(ends[1], STDOUT_FILENO) < 0) return std::string("no pipe");
    (void)std::setvbuf(stdout, nullptr, _IOFBF, 65536);
    std::cout << "before ";
    (void)std::fputs("also ", stdout);
    (void)run(2, [] { std::cout << "worker "; });
    std::cout << "after" << std::flush;
    return std::string(text, static_cast<std::size_t>(read(ends[0], text, sizeof text)));
  });
  EXPECT_EQ(child.said, "before also worker worker after");
}

}  // namespace
}  // namespace cowshed
