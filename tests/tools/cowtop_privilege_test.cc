#include <nlohmann/json.hpp>
#include <sys/mount.h>

#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/refusals.h>
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

struct Surroundings {
  bool hidepid = false;
  bool seccomp = false;
  bool btf = true;
  bool user_namespace = false;

  void enter() const {
    if (hidepid || !btf) {
      if (::unshare(CLONE_NEWNS) != 0 ||
          ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        ::_exit(124);
      }
    }
    if (hidepid && ::mount("proc", "/proc", "proc", 0, "hidepid=2") != 0) ::_exit(124);
    if (!btf && ::mount("none", "/sys/kernel/btf", "tmpfs", 0, nullptr) != 0) ::_exit(124);
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
    const auto report = nlohmann::json::parse(finished.out.substr(finished.out.find('{')));
    const bool may_count = capabilities.missing == nullptr && surroundings.btf &&
                           !surroundings.seccomp && !surroundings.user_namespace;
    EXPECT_EQ(report["backend"], may_count ? "tracepoint" : "pagemap");
    if (may_count) {
      EXPECT_EQ(finished.err, "");
      EXPECT_GE(report["processes"][1]["copied_anon_pages"], 50);
      return;
    }
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    EXPECT_THAT(finished.err, AllOf(StartsWith("cowtop: "), HasSubstr("the pagemap backend")));
    EXPECT_THAT(finished.err, HasSubstr(capabilities.missing != nullptr ? capabilities.missing
                                        : !surroundings.btf             ? "/sys/kernel/btf/vmlinux"
                                        : surroundings.user_namespace   ? "user namespace"
                                                                        : "seccomp"));
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
