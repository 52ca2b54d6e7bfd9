#include <sys/mount.h>

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/folder.h>

#include "subject.h"

// What the loader needs, what it says where that is missing, and what it leaves behind: nothing.

namespace cowshed::test {
namespace {

std::string outcome_of_load() {
  const auto probe = Probe::load();
  return probe ? "loaded"
               : std::string(to_string(probe.error().code)) + ": " + probe.error().message;
}

// Where these folders are empty, for a child alone.
std::string outcome_without(const std::vector<const char*>& folders) {
  return run_in_child([&]() -> std::string {
           if (unshare(CLONE_NEWNS) != 0 ||
               mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
             return "no private mounts";
           }
           for (const char* folder : folders)
             if (std::filesystem::exists(folder) && mount("none", folder, "tmpfs", 0, nullptr) != 0)
               return std::string("cannot hide ") + folder;
           return outcome_of_load();
         })
      .said;
}

using Loader = NeedsProbes;

TEST_F(Loader, NeedsNoTracefsNorDebugfsNorBpffs) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  EXPECT_EQ(outcome_without({"/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf"}), "loaded");
}

TEST_F(Loader, SaysThatBtfIsMissing) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  EXPECT_THAT(outcome_without({"/sys/kernel/btf"}),
              AllOf(HasSubstr("unsupported: "), HasSubstr("/sys/kernel/btf/vmlinux"),
                    Not(HasSubstr("\n"))));
}

TEST_F(Loader, SaysWhichCapabilityIsMissing) {
  const std::string outcome = run_in_child([] {
                                become_nobody();
                                return outcome_of_load();
                              }).said;
  EXPECT_THAT(outcome, AllOf(HasSubstr("permission_denied: "), HasSubstr("CAP_BPF and CAP_PERFMON"),
                             Not(HasSubstr("\n"))));
}

TEST_F(Loader, TwoProbesAreIndependent) {
  Probe first = Probe::load().value();
  Probe second = Probe::load().value();
  const Child child([] { return pause(); });
  EXPECT_EQ(first.attach_trees(std::array{child.pid()}).value().processes, 1);
  EXPECT_EQ(first.snapshot().value().processes.size(), 1U);
  EXPECT_EQ(second.snapshot().value().processes.size(), 0U);
}

// A file system root as probe_support() reads it.
Expected<void> support_of(const char* capabilities, bool btf, const char* lockdown = "") {
  const Folder root;
  root.write("proc/self/status", std::string("Name:\tx\nCapEff:\t") + capabilities + "\n");
  if (btf) root.write("sys/kernel/btf/vmlinux", "BTF");
  root.write("sys/kernel/security/lockdown", lockdown);
  return probe_support(root.path());
}

constexpr const char* kNoCapabilities = "0000000000000000";
constexpr const char* kSysAdmin = "0000000000200000";
constexpr const char* kPerfmon = "0000004000000000";
constexpr const char* kBpfAndPerfmon = "000000c000000000";

TEST(ProbeSupport, IsThereWithEitherSetOfCapabilities) {
  EXPECT_TRUE(support_of(kSysAdmin, true));
  EXPECT_TRUE(support_of(kBpfAndPerfmon, true));
}

TEST(ProbeSupport, OnlyConfidentialityForbidsToReadTheKernel) {
  EXPECT_TRUE(support_of(kSysAdmin, true, "none [integrity] confidentiality\n"));
  const Error error = failure_of(support_of(kSysAdmin, true, "none integrity [confidentiality]\n"));
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_THAT(error.message, HasSubstr("lockdown mode confidentiality"));
}

TEST(ProbeSupport, NamesEverythingThatIsMissing) {
  const Error one = failure_of(support_of(kPerfmon, true));
  EXPECT_EQ(one.code, ErrorCode::permission_denied);
  EXPECT_THAT(one.message, HasSubstr("CAP_BPF missing"));
  const Error both = failure_of(support_of(kNoCapabilities, false));
  EXPECT_EQ(both.code, ErrorCode::unsupported);
  EXPECT_THAT(both.message,
              AllOf(HasSubstr("btf/vmlinux"), HasSubstr("CAP_BPF and CAP_PERFMON missing")));
}

}  // namespace
}  // namespace cowshed::test
