#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <vector>

#include <cowshed/cow/backend.h>
#include <cowshed/tests/cow/measure_command.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cow {
namespace {

// What holds for every backend, each against the same programs.
class BackendTest : public ::testing::TestWithParam<BackendChoice> {
 protected:
  void SetUp() override {
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    auto opened = open_backend(GetParam());
    if (!opened && GetParam() == BackendChoice::tracepoint) {
      GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
    }
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_EQ(opened->notice, "");
    backend_ = std::move(opened->backend);
  }

  // Runs the command to its end under the backend.
  Measurement measure(const std::vector<std::string>& arguments) {
    return test::measure_command(*backend_, arguments);
  }

  // The same for a command that takes as its last argument for how many milliseconds it lingers.
  // What is sampled can be missed on a busy machine: once more then, with more time to look.
  Measurement measure_lingering(std::vector<std::string> arguments,
                                const std::function<bool(const ProcessCopies&)>& is_seen) {
    arguments.emplace_back();
    Measurement measured;
    for (const char* linger_ms : {"500", "3000", "12000"}) {
      backend_ = std::move(open_backend(GetParam())->backend);
      arguments.back() = linger_ms;
      measured = measure(arguments);
      const auto is_done = [&is_seen](const ProcessCopies& process) {
        return process.role == Role::root || is_seen(process);
      };
      if (std::all_of(measured.processes.begin(), measured.processes.end(), is_done)) break;
    }
    return measured;
  }

  Measurement measure_arena(const char* mode, const char* writes) {
    return measure_lingering({ARENA_SUBJECT, mode, "2000", writes},
                             [](const ProcessCopies& child) { return !child.arenas.empty(); });
  }

  // Pages that a child of copy_subject copies of itself: its stack and its libraries' data.
  static constexpr std::uint64_t kOwnPages = 40;

  std::unique_ptr<Backend> backend_;
};

TEST_P(BackendTest, CountsTheCopiesOfEachChild) {
  constexpr std::uint64_t kCopies = 3000;
  const auto measured = measure_lingering(
      {COPY_SUBJECT, "10000", "3", std::to_string(kCopies)}, [this](const ProcessCopies& child) {
        return backend_->exact() || child.copied_anon_pages.value_or(0) >= kCopies;
      });
  ASSERT_EQ(measured.processes.size(), 4U);
  EXPECT_EQ(measured.processes[0].role, Role::root);
  EXPECT_EQ(measured.processes[0].comm, "copy_subject");
  for (std::size_t i = 1; i < measured.processes.size(); ++i) {
    const ProcessCopies& child = measured.processes[i];
    EXPECT_EQ(child.role, Role::child);
    EXPECT_EQ(child.ppid, measured.processes[0].pid);
    ASSERT_TRUE(child.copied_anon_pages);
    EXPECT_GE(*child.copied_anon_pages, kCopies);
    EXPECT_LE(*child.copied_anon_pages, kCopies + kOwnPages);
    ASSERT_TRUE(child.shared_at_fork_bytes);
    EXPECT_GT(*child.shared_at_fork_bytes, 9500 * kPageSize);
    ASSERT_TRUE(child.copied_ratio());
    EXPECT_NEAR(*child.copied_ratio(), 0.3, 0.05);
    EXPECT_FALSE(child.alive);
  }
}

TEST_P(BackendTest, AChildThatOnlyReadsCopiesNextToNothing) {
  const auto measured = measure({COPY_SUBJECT, "10000", "2", "0", "300"});
  ASSERT_EQ(measured.processes.size(), 3U);
  for (std::size_t i = 1; i < measured.processes.size(); ++i) {
    ASSERT_TRUE(measured.processes[i].copied_anon_pages);
    EXPECT_LE(*measured.processes[i].copied_anon_pages, kOwnPages);
  }
}

TEST_P(BackendTest, AStrictArenaIsNamedAndNotCopied) {
  const auto measured = measure_arena("strict", "0");
  ASSERT_EQ(measured.processes.size(), 3U);
  for (std::size_t i = 1; i < measured.processes.size(); ++i) {
    const ProcessCopies& child = measured.processes[i];
    ASSERT_EQ(child.arenas.size(), 1U);
    EXPECT_EQ(child.arenas[0].name, "subject");
    EXPECT_GE(child.arenas[0].bytes.value_or(0), 2000 * kPageSize);
    EXPECT_EQ(child.arenas[0].copied_pages, 0U);
    EXPECT_GE(child.shared_at_fork_bytes.value_or(0), 2000 * kPageSize);
  }
}

TEST_P(BackendTest, TheCopiesOfALenientArenaAreExact) {
  const auto measured = measure_arena("lenient", "123");
  ASSERT_EQ(measured.processes.size(), 3U);
  for (std::size_t i = 1; i < measured.processes.size(); ++i) {
    const ProcessCopies& child = measured.processes[i];
    ASSERT_EQ(child.arenas.size(), 1U);
    EXPECT_EQ(child.arenas[0].copied_pages, 123U);
    EXPECT_GE(child.copied_file_pages.value_or(0), 123U);
  }
}

TEST_P(BackendTest, ExecStartsANewImage) {
  // The shell's own child execs: what it shared with the shell is gone, and so is its copying.
  const auto measured = measure({"sh", "-c", "(sleep 0.2; exec sleep 0.3); true"});
  ASSERT_GE(measured.processes.size(), 2U);
  const ProcessCopies& child = measured.processes[1];
  EXPECT_EQ(child.execs, 1U);
  EXPECT_EQ(child.comm, "sleep");
  ASSERT_TRUE(child.copied_pages_before_exec);
  ASSERT_TRUE(child.copied_pages());
  EXPECT_LE(*child.copied_pages_before_exec, *child.copied_pages());
}

// As shells and posix_spawn start programs: what it shares is its own affair again.
TEST_P(BackendTest, AVforkedChildThatExecutedIsLookedAt) {
  const auto measured =
      measure_lingering({"sh", "-c", "\"$0\" 300 1 100 $1; true", COPY_SUBJECT},
                        [](const ProcessCopies& process) { return process.memory.has_value(); });
  ASSERT_EQ(measured.processes.size(), 3U);
  const ProcessCopies& program = measured.processes[1];
  EXPECT_EQ(program.comm, "copy_subject");
  EXPECT_FALSE(program.shares_memory);
  ASSERT_TRUE(program.memory);
  EXPECT_GE(program.memory->shared_bytes + program.memory->private_bytes, 300 * kPageSize);
}

TEST_P(BackendTest, WhatItCannotKnowIsNotZero) {
  const auto measured = measure({COPY_SUBJECT, "10", "1", "5", "200"});
  ASSERT_EQ(measured.processes.size(), 2U);
  const ProcessCopies& child = measured.processes[1];
  EXPECT_EQ(child.reused_pages.has_value(), backend_->exact());
  EXPECT_EQ(child.failed_faults.has_value(), backend_->exact());
  EXPECT_EQ(measured.lost_events.has_value(), backend_->exact());
  EXPECT_EQ(measured.exact, backend_->exact());
}

TEST_P(BackendTest, NoSuchProcess) {
  const auto attached = backend_->attach({99'999'999});
  ASSERT_FALSE(attached);
  EXPECT_EQ(attached.error().code, ErrorCode::no_such_process);
  EXPECT_THAT(attached.error().message, ::testing::HasSubstr("99999999"));
}

TEST_P(BackendTest, AttachesToARunningTree) {
  cowshed::test::Subprocess subject({COPY_SUBJECT, "2000", "2", "1000", "60000"});
  std::istringstream children(subject.read_until("\n").out);
  const auto attached = backend_->attach({subject.pid()});
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ(attached->processes, 3);
  ASSERT_TRUE(backend_->sample());
  EXPECT_TRUE(backend_->any_alive());
  for (pid_t child = 0; children >> child;) ::kill(child, SIGTERM);
  EXPECT_EQ(subject.finish().exit_status(), 0);
  ASSERT_TRUE(backend_->sample());
  EXPECT_FALSE(backend_->any_alive());
  EXPECT_EQ(backend_->measurement().processes.size(), 3U);
}

INSTANTIATE_TEST_SUITE_P(Each, BackendTest,
                         ::testing::Values(BackendChoice::tracepoint, BackendChoice::pagemap),
                         [](const auto& instance) {
                           return instance.param == BackendChoice::tracepoint ? "tracepoint"
                                                                              : "pagemap";
                         });

}  // namespace
}  // namespace cowshed::cow
