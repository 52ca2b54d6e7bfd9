#include <cowshed/cow/backends/pagemap_backend.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/cow/backends/measure_command.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/cow/proc/fake_proc.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kBrief = 50;

TEST(ProcessesNotSeen, AreKnownWithinBounds) {
  test::PausedChild parent([] {
    for (std::uint64_t i = 0; i < kBrief; ++i) {
      const pid_t child = ::fork();
      if (child == 0) ::_exit(0);
      ::waitpid(child, nullptr, 0);
    }
  });
  PagemapBackend backend;
  ASSERT_EQ(backend.attach({parent.pid()}).value().processes, 1);
  ASSERT_TRUE(backend.sample());
  EXPECT_EQ(backend.measurement().not_seen->at_least, 0U);
  parent.work();
  ASSERT_TRUE(backend.sample());
  const Measurement measured = backend.measurement();
  EXPECT_EQ(measured.processes.size(), 1U);
  EXPECT_EQ(measured.not_seen->at_least, 1U);
  EXPECT_GE(measured.not_seen->at_most.value_or(0), kBrief);
}

class ProcessesNotSeenOf : public FakeProc {};

TEST_F(ProcessesNotSeenOf, ACommandAreNoneThatWereForkedBeforeIt) {
  write("stat", "cpu 1 2\nprocesses 100\n");
  std::string fields = "7 (cat) S";
  for (int i = 0; i < 49; ++i) fields += " 1";
  write("7/stat", fields + "\n");
  PagemapBackend backend(proc());
  write("stat", "cpu 1 2\nprocesses 103\n");
  ASSERT_TRUE(backend.track_command(7));
  EXPECT_EQ(backend.measurement().not_seen->at_most, 0U);
  write("stat", "cpu 1 2\nprocesses 105\n");
  EXPECT_EQ(backend.measurement().not_seen->at_most, 2U);
}

// Also with few descriptors.
TEST(PagemapBackend, AThousandChildren) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{256, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  constexpr std::size_t kChildren = 1000;
  constexpr std::uint64_t kCopies = 50;
  std::uint64_t right = 0;
  for (const char* linger_ms : {"4000", "20000", "60000"}) {  // a busy machine takes longer
    PagemapBackend backend;
    const Measurement measured =
        test::measure_command(backend, {COPY_SUBJECT, "200", "1000", "50", linger_ms});
    const std::size_t seen = measured.processes.size() - 1;
    EXPECT_LE(seen + measured.not_seen->at_least, kChildren);
    EXPECT_GE(seen + measured.not_seen->at_most.value_or(kChildren), kChildren);
    right = 0;
    for (const ProcessCopies& process : measured.processes) {
      const std::uint64_t copied = process.copied_anon_pages.value_or(0);
      if (process.memory && copied >= kCopies && copied <= kCopies + 40) ++right;
    }
    if (right == kChildren) break;
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(right, kChildren);
}

TEST(PagemapBackend, WhatAForkDoesNotGiveToTheChildIsNotShared) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const std::uint64_t held_already = ProcFiles().status_number(::getpid(), "RssAnon") * 1024;
  const cowshed::test::Child parent([](const cowshed::test::Line& test) {
    for (const int advice : {MADV_DONTFORK, MADV_WIPEONFORK}) {
      void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
      if (at == MAP_FAILED || ::madvise(at, kBytes, advice) != 0) return 1;
    }
    const cowshed::test::Child child([](const cowshed::test::Line& line) {
      line.say();
      return line.hear() ? 0 : 1;
    });
    child.hear();
    test.say();
    return test.hear() ? 0 : 1;
  });
  parent.hear();
  PagemapBackend backend;
  ASSERT_EQ(backend.attach({parent.pid()}).value().processes, 2);
  const auto shared = backend.measurement().processes.at(1).shared_at_fork_bytes;
  ASSERT_TRUE(shared);
  EXPECT_LT(*shared, held_already + kBytes);
}

class Undumpable : public cowshed::test::Child {
 public:
  Undumpable()
      : Child([](const cowshed::test::Line& test) {
          ::prctl(PR_SET_DUMPABLE, 0);
          test.say();
          return test.hear() ? 0 : 1;
        }) {
    hear();
  }
};

class PagemapBackendPrivilege : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become nobody";
  }
};

TEST_F(PagemapBackendPrivilege, AProcessOfSomebodyElse) {
  const pid_t roots = ::getpid();
  const std::string text = test::as_nobody([roots] {
    PagemapBackend backend;
    const auto attached = backend.attach({roots});
    return attached ? "attached" : attached.error().message;
  });
  EXPECT_THAT(text, AllOf(HasSubstr("PID " + std::to_string(roots) + ": not permitted"),
                          HasSubstr("belongs to somebody else")));
}

TEST_F(PagemapBackendPrivilege, AProcessThatIsNotDumpable) {
  const std::string text = test::as_nobody([] {
    const Undumpable child;
    PagemapBackend backend;
    const auto attached = backend.attach({child.pid()});
    return attached ? "attached" : attached.error().message;
  });
  EXPECT_THAT(text, HasSubstr("not dumpable"));
}

TEST_F(PagemapBackendPrivilege, AChildThatIsNotDumpableHasALineAndNoFigures) {
  const std::string text = test::as_nobody([] {
    const Undumpable child;
    PagemapBackend backend;
    if (!backend.attach({::getpid()})) return std::string("not attached");
    Measurement measured;
    // On a slow machine there is one look at a time.
    const auto is_looked_at = [](const ProcessCopies& process) {
      return process.memory || process.not_measured;
    };
    constexpr int kMostSamples = 500;
    for (int i = 0; i < kMostSamples; ++i) {
      if (!backend.sample()) return std::string("not sampled");
      measured = backend.measurement();
      if (std::ranges::all_of(measured.processes, is_looked_at)) break;
      std::this_thread::sleep_for(backend.interval());
    }
    std::string result;
    for (const ProcessCopies& process : measured.processes) {
      result += process.pid == child.pid() ? "child " : "parent ";
      result += process.memory || process.all_copied_pages() ? "figures " : "none ";
      result += process.not_measured.value_or("") + ";";
    }
    return result;
  });
  EXPECT_THAT(text, AllOf(HasSubstr("parent figures ;"), HasSubstr("child none PID "),
                          HasSubstr("not dumpable")));
}

}  // namespace
}  // namespace cowshed::cow
