#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <string>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/kernel_objects.h>

#include "subject.h"

// What the loader needs, what it says where that is missing, and what it leaves behind: nothing.

namespace cowshed::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What `work` returns, run in a child.
std::string in_child(const std::function<std::string()>& work) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) {
    return "pipe";
  }
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = work();
    _exit(write(ends[1], text.data(), text.size()) < 0 ? 1 : 0);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 512> chunk;
  for (ssize_t got = 0; (got = read(ends[0], chunk.data(), chunk.size())) > 0;) {
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

std::string outcome_of_load() {
  const auto probe = Probe::load();
  return probe ? "loaded"
               : std::string(to_string(probe.error().code)) + ": " + probe.error().message;
}

bool enter_private_mounts() {
  return unshare(CLONE_NEWNS) == 0 &&
         mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

bool hide(const char* folder) {
  return !std::filesystem::exists(folder) || mount("none", folder, "tmpfs", 0, nullptr) == 0;
}

class Loader : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cannot_probe(); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
  }
};

TEST_F(Loader, NeedsNoTracefsNorDebugfsNorBpffs) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  EXPECT_EQ(in_child([]() -> std::string {
              if (!enter_private_mounts() || !hide("/sys/kernel/tracing") ||
                  !hide("/sys/kernel/debug") || !hide("/sys/fs/bpf")) {
                return "cannot hide the file systems";
              }
              return outcome_of_load();
            }),
            "loaded");
}

TEST_F(Loader, SaysThatBtfIsMissing) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  const std::string outcome = in_child([]() -> std::string {
    if (!enter_private_mounts() || !hide("/sys/kernel/btf")) {
      return "cannot hide BTF";
    }
    return outcome_of_load();
  });
  EXPECT_THAT(outcome, AllOf(HasSubstr("unsupported: "), HasSubstr("/sys/kernel/btf/vmlinux"),
                             Not(HasSubstr("\n"))));
}

TEST_F(Loader, SaysWhichCapabilityIsMissing) {
  const std::string outcome = in_child([]() -> std::string {
    if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0) {
      return "cannot become nobody";
    }
    return outcome_of_load();
  });
  EXPECT_THAT(outcome, AllOf(HasSubstr("permission_denied: "), HasSubstr("CAP_BPF and CAP_PERFMON"),
                             Not(HasSubstr("\n"))));
}

TEST_F(Loader, LeavesNothingBehindWhenItIsKilled) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto probe = Probe::load();
    const char answer = probe ? 'y' : 'n';
    if (write(ends[1], &answer, 1) == 1) {
      pause();
    }
    _exit(1);
  }
  char loaded = 'n';
  ASSERT_EQ(read(ends[0], &loaded, 1), 1);
  ASSERT_EQ(loaded, 'y');
  const KernelObjects objects = objects_held_by(child);
  EXPECT_GE(objects.programs.size(), 8U);
  EXPECT_GE(objects.links.size(), 8U);
  EXPECT_EQ(still_there(objects), objects.count());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(are_gone(objects));
  close(ends[0]);
  close(ends[1]);
}

TEST_F(Loader, TwoProbesAreIndependent) {
  Probe first = must(Probe::load());
  Probe second = must(Probe::load());
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pause();
    _exit(0);
  }
  EXPECT_EQ(must(first.attach_trees(std::array{child})).processes, 1);
  EXPECT_EQ(must(first.snapshot()).processes.size(), 1U);
  EXPECT_EQ(must(second.snapshot()).processes.size(), 0U);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// A file system root as probe_support() reads it.
class FakeRoot {
 public:
  FakeRoot(const char* capabilities, bool btf) {
    std::string name = ::testing::TempDir() + "cowshed-root-XXXXXX";
    root_ = mkdtemp(name.data());
    std::filesystem::create_directories(root_ / "proc/self");
    std::filesystem::create_directories(root_ / "sys/kernel/btf");
    std::ofstream(root_ / "proc/self/status") << "Name:\tx\nCapEff:\t" << capabilities << "\n";
    if (btf) {
      std::ofstream(root_ / "sys/kernel/btf/vmlinux") << "BTF";
    }
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;
  ~FakeRoot() { std::filesystem::remove_all(root_); }
  const std::filesystem::path& path() const { return root_; }

 private:
  std::filesystem::path root_;
};

constexpr const char* kNoCapabilities = "0000000000000000";
constexpr const char* kSysAdmin = "0000000000200000";
constexpr const char* kPerfmon = "0000004000000000";
constexpr const char* kBpfAndPerfmon = "000000c000000000";

TEST(ProbeSupport, IsThereWithEitherSetOfCapabilities) {
  EXPECT_TRUE(probe_support(FakeRoot(kSysAdmin, true).path()));
  EXPECT_TRUE(probe_support(FakeRoot(kBpfAndPerfmon, true).path()));
}

TEST(ProbeSupport, NamesEverythingThatIsMissing) {
  const auto one = probe_support(FakeRoot(kPerfmon, true).path());
  ASSERT_FALSE(one);
  EXPECT_EQ(one.error().code, ErrorCode::permission_denied);
  EXPECT_THAT(one.error().message, HasSubstr("CAP_BPF missing"));
  const auto both = probe_support(FakeRoot(kNoCapabilities, false).path());
  ASSERT_FALSE(both);
  EXPECT_EQ(both.error().code, ErrorCode::unsupported);
  EXPECT_THAT(both.error().message,
              AllOf(HasSubstr("btf/vmlinux"), HasSubstr("CAP_BPF and CAP_PERFMON missing")));
}

}  // namespace
}  // namespace cowshed::test
