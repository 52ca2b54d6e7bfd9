#include <sys/mount.h>

#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/folder.h>

#include "subject.h"

// What the loader needs, and what is said where that is missing.

namespace cowshed::test {
namespace {

using Loader = NeedsProbes;

TEST_F(Loader, NeedsNoTracefsNorDebugfsNorBpffs) {
  if (!test::can_have_private_mounts()) GTEST_SKIP() << "/ is no mount";
  const auto outcome = run_in_child([]() -> std::string {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      return "no private mounts";
    }
    // Empty, for this child alone.
    for (const char* folder : {"/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf"})
      if (std::filesystem::exists(folder) && mount("none", folder, "tmpfs", 0, nullptr) != 0)
        return std::string("cannot hide ") + folder;
    const auto probe = Probe::load();
    return probe ? "loaded" : probe.error().message;
  });
  EXPECT_EQ(outcome.said, "loaded");
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
