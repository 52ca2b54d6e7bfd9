#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/refusals.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/support/user_namespace.h>

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

void expect_one_line_about(const std::string& text, const char* what) {
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_THAT(
      text, AllOf(StartsWith("cowtop: "), HasSubstr("using the pagemap backend"), HasSubstr(what)));
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
  return {
      {"perf events", refuse_perf_events, {}, "tracepoint", nullptr},
      {"the machine's capabilities",
       test::enter_user_namespace,
       {},
       "pagemap",
       "using the pagemap backend"},
      {"the machine's capabilities, which it must have",
       test::enter_user_namespace,
       {"--backend", "tracepoint"},
       nullptr,
       "the capabilities are those of a user namespace (run outside of it)"},
      {"PAGEMAP_SCAN", refuse_scans, {"--backend", "pagemap"}, "pagemap", nullptr},
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which need it themselves
      {"/proc",
       [] { hide("/proc"); },
       {},
       nullptr,
       "/proc is not mounted: mount -t proc proc /proc"},
#endif
      {"pidfds",
       refuse_pidfds,
       {},
       nullptr,
       "pidfd_open(2) is refused, as by a container's seccomp filter"},
  };
}

TEST_F(CowtopDegraded, EachLackNamesTheBackendAndWhatIsNotKnown) {
  if (const auto supported = probe_support(); !supported) GTEST_SKIP() << supported.error().message;
  const PublicCopy cowtop(COWTOP);
  const PublicCopy subject(COPY_SUBJECT);
  for (const Lack& lack : lacks()) {
    SCOPED_TRACE(lack.of);
    std::vector<std::string> arguments = {cowtop.path(), "--json"};
    arguments.insert(arguments.end(), lack.options.begin(), lack.options.end());
    for (const auto& word : {std::string("--"), subject.path(), std::string("3000"),
                             std::string("1"), std::string("2000"), std::string("400")}) {
      arguments.push_back(word);
    }
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

// Whose clocks are ahead of the kernel's by an hour and by a day.
TEST_F(CowtopDegraded, StartsAreByTheTimeNamespacesClock) {
  if (const auto supported = probe_support(); !supported) GTEST_SKIP() << supported.error().message;
  constexpr std::uint64_t kSlackNs = 60'000'000'000;
  const std::vector<std::string> ahead = {"unshare",    "--time", "--monotonic", "3600",
                                          "--boottime", "86400",  "--fork"};
  for (const char* backend : {"tracepoint", "pagemap"}) {
    for (std::vector<std::string> command : {std::vector<std::string>(), ahead}) {
      command.insert(command.end(), {COWTOP, "--backend", backend, "--json", "--", "sh", "-c",
                                     "(sleep 0.2); sleep 0.1"});
      SCOPED_TRACE(command[0] + " " + backend);
      const auto report = nlohmann::json::parse(run(command).out);
      const auto taken_ns = report["taken_ns"].get<std::uint64_t>();
      for (const auto& process : report["processes"]) {
        const auto start_ns = process["start_ns"].get<std::uint64_t>();
        EXPECT_LT(start_ns, taken_ns);
        EXPECT_GT(start_ns + kSlackNs, taken_ns);
      }
    }
  }
}

TEST_F(CowtopDegraded, WithoutBtf) {
  const auto without_btf = [] { hide("/sys/kernel/btf"); };
  const Finished sampled = run({COWTOP, "--", "true"}, without_btf);
  EXPECT_EQ(sampled.exit_status(), 0);
  expect_one_line_about(sampled.err, "BTF");
  const Finished refused = run({COWTOP, "--backend", "tracepoint", "--", "true"}, without_btf);
  EXPECT_EQ(refused.exit_status(), 125);
  EXPECT_THAT(refused.err, HasSubstr("BTF"));
}

TEST_F(CowtopDegraded, TracefsIsNotNeeded) {
  const Finished plain = run({COWTOP, "--json", "--", "true"});
  const auto backend = nlohmann::json::parse(plain.out)["backend"];
  const Finished finished = run({COWTOP, "--json", "--", "true"}, [] {
    hide("/sys/kernel/tracing");
    ::mount("none", "/sys/kernel/debug", "tmpfs", 0, nullptr);
  });
  EXPECT_EQ(nlohmann::json::parse(finished.out)["backend"], backend);
}

}  // namespace
}  // namespace cowshed::cowtop
