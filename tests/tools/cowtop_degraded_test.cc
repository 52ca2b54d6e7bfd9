#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/refusals.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// cowtop where something that it would like to have is missing.
namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::PublicCopy;
using test::run;

class CowtopDegraded : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to take things away";
  }
};

// An empty folder in the place of `folder`, for this process and its children alone.
void hide(const char* folder) {
  ::unshare(CLONE_NEWNS);
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  ::mount("none", folder, "tmpfs", 0, nullptr);
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
  const auto hide_btf = [] { hide("/sys/kernel/btf"); };
  std::vector<Lack> all = {
      Lack("perf events", refuse_perf_events, {}, "tracepoint", nullptr),
      Lack("the machine's capabilities", test::enter_user_namespace, {}, "pagemap",
           "using the pagemap backend"),
      Lack("the machine's capabilities, which it must have", test::enter_user_namespace,
           {"--backend", "tracepoint"}, nullptr,
           "the capabilities are those of a user namespace (run outside of it)"),
      Lack("BTF", hide_btf, {}, "pagemap", "BTF"),
      Lack("BTF, which it must have", hide_btf, {"--backend", "tracepoint"}, nullptr, "BTF"),
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

TEST_F(CowtopDegraded, EachLackNamesTheBackendAndWhatIsNotKnown) {
  if (const auto supported = probe_support(); !supported) GTEST_SKIP() << supported.error().message;
  const PublicCopy cowtop(COWTOP);
  const PublicCopy subject(COPY_SUBJECT);
  for (const Lack& lack : lacks()) {
    SCOPED_TRACE(lack.of);
    std::vector<std::string> arguments = {cowtop.path(), "--json"};
    arguments.insert(arguments.end(), lack.options.begin(), lack.options.end());
    arguments.insert(arguments.end(), {"--", subject.path(), "3000", "1", "2000", "400"});
    const Finished finished = run(arguments, lack.take);
    EXPECT_EQ(finished.exit_status(), lack.backend == nullptr ? 125 : 0) << finished.err;
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), lack.line ? 1 : 0)
        << finished.err;
    if (lack.line != nullptr)
      EXPECT_THAT(finished.err, AllOf(StartsWith("cowtop: "), HasSubstr(lack.line)));
    if (lack.backend == nullptr) continue;
    const auto report = nlohmann::json::parse(
        finished.out.substr(std::min(finished.out.find('{'), finished.out.size())));
    EXPECT_EQ(report["backend"], lack.backend);
    EXPECT_EQ(report["exact"], lack.backend == std::string("tracepoint"));
    EXPECT_GE(report["processes"][1]["copied_anon_pages"], 2000);
    EXPECT_LE(report["processes"][1]["copied_anon_pages"], 2100);
  }
}

}  // namespace
}  // namespace cowshed::cowtop
