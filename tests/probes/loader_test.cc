#include <grp.h>
#include <sys/mount.h>

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/kernel_objects.h>
#include <cowshed/tests/support/test.h>

#include "subject.h"

// What the loader needs, what it says where that is missing, and what it leaves behind: nothing.

namespace cowshed::test {
namespace {

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
    if (const std::string reason = cannot_probe(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(Loader, NeedsNoTracefsNorDebugfsNorBpffs) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  EXPECT_EQ(run_in_child([]() -> std::string {
              if (!enter_private_mounts() || !hide("/sys/kernel/tracing") ||
                  !hide("/sys/kernel/debug") || !hide("/sys/fs/bpf")) {
                return "cannot hide the file systems";
              }
              return outcome_of_load();
            }).said,
            "loaded");
}

TEST_F(Loader, SaysThatBtfIsMissing) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  const std::string outcome = run_in_child([]() -> std::string {
                                if (!enter_private_mounts() || !hide("/sys/kernel/btf"))
                                  return "cannot hide BTF";
                                return outcome_of_load();
                              }).said;
  EXPECT_THAT(outcome, AllOf(HasSubstr("unsupported: "), HasSubstr("/sys/kernel/btf/vmlinux"),
                             Not(HasSubstr("\n"))));
}

TEST_F(Loader, SaysWhichCapabilityIsMissing) {
  const std::string outcome =
      run_in_child([]() -> std::string {
        if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)
          return "cannot become nobody";
        return outcome_of_load();
      }).said;
  EXPECT_THAT(outcome, AllOf(HasSubstr("permission_denied: "), HasSubstr("CAP_BPF and CAP_PERFMON"),
                             Not(HasSubstr("\n"))));
}

TEST_F(Loader, LeavesNothingBehindWhenItIsKilled) {
  Child child([](const Line& test) {
    const auto probe = Probe::load();
    test.say(probe ? "loaded" : "not loaded");
    test.hear();
    return 1;
  });
  ASSERT_EQ(child.hear(), "loaded");
  const KernelObjects objects = objects_held_by(child.pid());
  EXPECT_GE(objects.programs.size(), 8U);
  EXPECT_GE(objects.links.size(), 8U);
  EXPECT_EQ(still_there(objects), objects.count());
  child.signal(SIGKILL);
  child.wait();
  EXPECT_TRUE(are_gone(objects));
}

TEST_F(Loader, TwoProbesAreIndependent) {
  Probe first = must(Probe::load());
  Probe second = must(Probe::load());
  const Child child([] { return pause(); });
  EXPECT_EQ(must(first.attach_trees(std::array{child.pid()})).processes, 1);
  EXPECT_EQ(must(first.snapshot()).processes.size(), 1U);
  EXPECT_EQ(must(second.snapshot()).processes.size(), 0U);
}

// A file system root as probe_support() reads it.
class FakeRoot {
 public:
  FakeRoot(const char* capabilities, bool btf) {
    root_.write("proc/self/status", std::string("Name:\tx\nCapEff:\t") + capabilities + "\n");
    if (btf) root_.write("sys/kernel/btf/vmlinux", "BTF");
  }
  const std::filesystem::path& path() const { return root_.path(); }

 private:
  Folder root_;
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
