#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include <cowshed/tests/subjects/public_copy.h>
#include <cowshed/tests/support/refusals.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/setting.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// Which backend cowtop takes, and what it says would give more, for each combination of what it may
// be allowed.
namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::PublicCopy;
using test::run;

struct Capabilities {
  const char* name;
  std::vector<std::string> launcher;  // what cowtop is started by
  const char* missing;                // what the line names; null: it may count
};

Capabilities root() { return {"root", {}, nullptr}; }

std::vector<Capabilities> all_capabilities() {
  const auto nobody_with = [](const std::string& capabilities) {
    return std::vector<std::string>{"setpriv",        "--reuid",        "65534",      "--regid",
                                    "65534",          "--clear-groups", "--inh-caps", capabilities,
                                    "--ambient-caps", capabilities};
  };
  return {{"none", nobody_with("-all"), "CAP_BPF and CAP_PERFMON missing"},
          {"bpf", nobody_with("+bpf"), "CAP_PERFMON missing"},
          {"perfmon", nobody_with("+perfmon"), "CAP_BPF missing"},
          {"bpf_perfmon", nobody_with("+bpf,+perfmon"), nullptr},
          {"sys_admin", nobody_with("+sys_admin"), nullptr},
          root(),
          {"root_without",
           {"setpriv", "--bounding-set", "-all", "--inh-caps", "-all"},
           "CAP_BPF and CAP_PERFMON missing"}};
}

// For this process and its children alone.
void mount_here(const char* type, const char* folder, const char* options = nullptr) {
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("none", folder, type, 0, options) != 0) {
    ::_exit(124);
  }
}
void hide(const char* folder) { mount_here("tmpfs", folder); }

struct Surroundings {
  bool hidepid = false;
  bool seccomp = false;
  bool btf = true;
  bool user_namespace = false;

  void enter() const {
    if (hidepid) mount_here("proc", "/proc", "hidepid=2");
    if (!btf) hide("/sys/kernel/btf");
    if (user_namespace) test::enter_user_namespace();
    if (seccomp) {
      test::refuse_call(SYS_bpf);
      test::refuse_call(SYS_perf_event_open);
    }
  }
};

class CowtopPrivilege : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to take things away";
    const auto plain = nlohmann::json::parse(run({COWTOP, "--json", "--", "true"}).out);
    if (plain["backend"] != "tracepoint") GTEST_SKIP() << "no tracepoints here";
  }

  void expect_best(const Capabilities& capabilities, const Surroundings& surroundings) {
    SCOPED_TRACE(::testing::Message()
                 << capabilities.name << (surroundings.hidepid ? ", hidepid=2" : "")
                 << (surroundings.seccomp ? ", seccomp" : "")
                 << (surroundings.btf ? "" : ", without BTF")
                 << (surroundings.user_namespace ? ", in a user namespace" : ""));
    std::vector<std::string> arguments = capabilities.launcher;
    arguments.insert(arguments.end(),
                     {cowtop_.path(), "--json", "--", subject_.path(), "100", "1", "50", "30"});
    const Finished finished = run(arguments, [&] { surroundings.enter(); });
    ASSERT_EQ(finished.exit_status(), 0) << finished.err;
    const auto report = report_of(finished);
    const bool may_count = capabilities.missing == nullptr && surroundings.btf &&
                           !surroundings.seccomp && !surroundings.user_namespace;
    EXPECT_EQ(report["backend"], may_count ? "tracepoint" : "pagemap");
    if (may_count) {
      EXPECT_EQ(finished.err, "");
      EXPECT_GE(report["processes"][1]["copied_anon_pages"], 50);
      return;
    }
    expect_line(finished, "the pagemap backend");
    expect_line(finished, capabilities.missing != nullptr ? capabilities.missing
                          : !surroundings.btf             ? "/sys/kernel/btf/vmlinux"
                          : surroundings.user_namespace   ? "user namespace"
                                                          : "seccomp");
  }

  // Of what cowtop printed; the subject's lines come first.
  static nlohmann::json report_of(const Finished& finished) {
    return nlohmann::json::parse(
        finished.out.substr(std::min(finished.out.find('{'), finished.out.size())));
  }
  // That cowtop said one line on standard error, and this in it.
  static void expect_line(const Finished& finished, const char* text) {
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << finished.err;
    EXPECT_THAT(finished.err, AllOf(StartsWith("cowtop: "), HasSubstr(text)));
  }

  PublicCopy cowtop_{COWTOP};
  PublicCopy subject_{COPY_SUBJECT};
};

TEST_F(CowtopPrivilege, EachCellTakesTheBestAndSaysWhatWouldGiveMore) {
  for (const bool hidepid : {false, true}) {
    for (const bool seccomp : {false, true}) {
      for (const bool btf : {true, false}) {
        for (const Capabilities& capabilities : all_capabilities())
          expect_best(capabilities, {hidepid, seccomp, btf});
        expect_best(root(), {hidepid, seccomp, btf, true});
      }
    }
  }
}

void refuse_perf_events() { test::refuse_call(SYS_perf_event_open); }
void refuse_pidfds() { test::refuse_call(SYS_pidfd_open); }
void refuse_scans() {
  constexpr std::size_t kBytes = 96;  // of struct pm_scan_arg, which Debian 12's headers lack
  test::refuse_request(_IOC(_IOC_READ | _IOC_WRITE, 'f', 16, kBytes));
}

// One thing is taken away.
struct Lack {
  const char* of;
  void (*take)();
  std::vector<std::string> options;
  const char* backend;  // null: it cannot measure
  const char* line;     // on standard error; null: none
};

std::vector<Lack> lacks() {
  std::vector<Lack> all = {
      Lack("perf events", refuse_perf_events, {}, "tracepoint", nullptr),
      Lack("the machine's capabilities, which it must have", test::enter_user_namespace,
           {"--backend", "tracepoint"}, nullptr,
           "the capabilities are those of a user namespace (run outside of it)"),
      Lack(
          "BTF, which it must have", [] { hide("/sys/kernel/btf"); }, {"--backend", "tracepoint"},
          nullptr, "BTF"),
      Lack("PAGEMAP_SCAN", refuse_scans, {"--backend", "pagemap"}, "pagemap", nullptr),
      Lack("pidfds", refuse_pidfds, {}, nullptr,
           "pidfd_open(2) is refused, as by a container's seccomp filter"),
  };
  if (!test::kSanitized)  // a sanitizer needs it itself
    all.push_back(Lack(
        "/proc", [] { hide("/proc"); }, {}, nullptr,
        "/proc is not mounted: mount -t proc proc /proc"));
  return all;
}

using CowtopDegraded = CowtopPrivilege;

TEST_F(CowtopDegraded, EachLackNamesTheBackendAndWhatIsNotKnown) {
  for (const Lack& lack : lacks()) {
    SCOPED_TRACE(lack.of);
    std::vector<std::string> arguments = {cowtop_.path(), "--json"};
    arguments.insert(arguments.end(), lack.options.begin(), lack.options.end());
    arguments.insert(arguments.end(), {"--", subject_.path(), "3000", "1", "2000", "400"});
    const Finished finished = run(arguments, lack.take);
    EXPECT_EQ(finished.exit_status(), lack.backend == nullptr ? 125 : 0) << finished.err;
    if (lack.line != nullptr) expect_line(finished, lack.line);
    else EXPECT_EQ(finished.err, "");
    if (lack.backend == nullptr) continue;
    const auto report = report_of(finished);
    EXPECT_EQ(report["backend"], lack.backend);
    EXPECT_EQ(report["exact"], lack.backend == std::string("tracepoint"));
    EXPECT_GE(report["processes"][1]["copied_anon_pages"], 2000);
    EXPECT_LE(report["processes"][1]["copied_anon_pages"], 2100);
  }
}

// The kernel goes into each mode, and never back.
using CowtopLockdown = CowtopPrivilege;

TEST_F(CowtopLockdown, ConfidentialityIsNamedWithAndWithoutSecurityfs) {
  if (std::getenv("COWSHED_MAY_LOCK_DOWN") == nullptr)
    GTEST_SKIP() << "locks the kernel down, and COWSHED_MAY_LOCK_DOWN is not set";
  const std::string folder = "/sys/kernel/security";
  ASSERT_EQ(::mount("none", folder.c_str(), "securityfs", 0, nullptr), 0);
  const std::vector<std::string> command = {cowtop_.path(), "--json", "--", "true"};
  test::write_file(folder + "/lockdown", "integrity");
  Finished finished = run(command);
  EXPECT_EQ(report_of(finished)["backend"], "tracepoint") << finished.err;
  test::write_file(folder + "/lockdown", "confidentiality");
  for (const bool securityfs : {true, false}) {
    if (!securityfs) ASSERT_EQ(::umount(folder.c_str()), 0);
    finished = run(command);
    EXPECT_EQ(report_of(finished)["backend"], "pagemap");
    expect_line(finished, "lockdown mode confidentiality");
  }
}

// Neither setting gives or takes anything: nothing is opened that they decide about.
TEST_F(CowtopPrivilege, SettingsOfTheMachine) {
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") == nullptr)
    GTEST_SKIP() << "changes sysctls, and COWSHED_MAY_SET_SYSCTLS is not set";
  for (const char* paranoid : {"-1", "2", "3"}) {
    const test::Setting first("/proc/sys/kernel/perf_event_paranoid", paranoid);
    for (const char* disabled : {"0", "2"}) {
      const test::Setting second("/proc/sys/kernel/unprivileged_bpf_disabled", disabled);
      SCOPED_TRACE(::testing::Message() << paranoid << " " << disabled);
      for (const Capabilities& capabilities : all_capabilities()) expect_best(capabilities, {});
      expect_best(root(), {.user_namespace = true});
    }
  }
}

}  // namespace
}  // namespace cowshed::cowtop
