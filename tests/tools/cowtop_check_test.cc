#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/probes/support.h>
#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/measurement_json.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::PublicCopy;
using test::run;
using test::Subprocess;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr int kOver = 99;
constexpr int kNotMeasured = 125;

// Two children copy 2,000 pages each, 7.8 MiB, of 11.7 MiB that they share, and stay for a while so
// that sampling finds them, too.
const std::vector<std::string> two_copiers = {COPY_SUBJECT, "3000", "2", "2000", "400"};

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Finished check(const std::vector<std::string>& options,
               const std::vector<std::string>& command = two_copiers) {
  return run(std::vector<std::string>{COWTOP, "check"} + options + std::vector<std::string>{"--"} +
             command);
}

class CowtopCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    ::unsetenv("GITHUB_ACTIONS");
  }

  TestFolder folder_;
};

class CowtopCheckBackend : public CowtopCheck, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    CowtopCheck::SetUp();
    if (const auto possible = probe_support(); GetParam() == "tracepoint" && !possible) {
      GTEST_SKIP() << possible.error().message;
    }
  }
  std::vector<std::string> with(const std::vector<std::string>& options) const {
    return std::vector<std::string>{"--backend", GetParam()} + options;
  }
};

TEST_P(CowtopCheckBackend, EachChildIsHeldToIt) {
  const Finished within = check(with({"--max-copied", "100MiB"}));
  EXPECT_EQ(within.exit_status(), 0);
  EXPECT_THAT(within.err, HasSubstr("cowtop: within budget: child "));
  EXPECT_THAT(within.err, HasSubstr("(copy_subject): limited to 100.0 MiB, used "));
  const Finished over = check(with({"--max-copied", "1MiB"}));
  EXPECT_EQ(over.exit_status(), kOver);
  EXPECT_THAT(over.err, HasSubstr("cowtop: over budget: child "));
  EXPECT_THAT(over.err, HasSubstr("(copy_subject): limited to 1.0 MiB, used "));
  EXPECT_THAT(over.err, Not(HasSubstr("within budget")));
}

TEST_P(CowtopCheckBackend, Ratio) {
  EXPECT_EQ(check(with({"--max-ratio", "200%"})).exit_status(), 0);
  const Finished over = check(with({"--max-ratio", "5%"}));
  EXPECT_EQ(over.exit_status(), kOver);
  EXPECT_THAT(over.err, HasSubstr("limited to 5.0% ("));
}

// More than either child, less than both.
TEST_P(CowtopCheckBackend, TheTreeIsTheSum) {
  EXPECT_EQ(check(with({"--tree", "--max-copied", "200MiB"})).exit_status(), 0);
  const Finished over = check(with({"--tree", "--max-copied", "12MiB"}));
  EXPECT_EQ(over.exit_status(), kOver);
  EXPECT_THAT(over.err, HasSubstr("over budget: tree: limited to 12.0 MiB, used "));
  EXPECT_THAT(over.err, HasSubstr("; culprits: child "));
}

TEST_P(CowtopCheckBackend, TheCommandsOwnFailureComesFirst) {
  const std::vector<std::string> fails = {"sh", "-c",
                                          std::string(COPY_SUBJECT) + " 3000 1 2000 400; exit 7"};
  const Finished over = check(with({"--max-copied", "1MiB"}), fails);
  EXPECT_EQ(over.exit_status(), 7);
  EXPECT_THAT(over.err, HasSubstr("over budget"));
  EXPECT_EQ(check(with({"--max-copied", "1GiB"}), fails).exit_status(), 7);
  EXPECT_EQ(check(with({"--max-copied", "1MiB"}), {"sh", "-c", "kill -TERM $$"}).exit_status(),
            128 + SIGTERM);
  EXPECT_EQ(check(with({"--max-copied", "1MiB"}), {"/no/such"}).exit_status(), 127);
}

TEST_P(CowtopCheckBackend, WarningsLeaveTheStatusAlone) {
  const Finished over = check(with({"--max-copied", "1MiB", "--warn"}));
  EXPECT_EQ(over.exit_status(), 0);
  EXPECT_THAT(over.err, HasSubstr("over budget: child "));
  const Finished failed =
      check(with({"--max-copied", "1MiB", "--warn"}), {"sh", "-c", "(:); exit 3"});
  EXPECT_EQ(failed.exit_status(), 3);
}

TEST_P(CowtopCheckBackend, NothingToHoldIsNoSuccess) {
  const Finished finished = check(with({"--max-copied", "1MiB"}), {"sleep", "0.3"});
  EXPECT_EQ(finished.exit_status(), kNotMeasured);
  EXPECT_THAT(finished.err, HasSubstr("cowtop: not measured: max_copied: "));
}

// run() returns when nobody has its pipes open any more.
TEST_P(CowtopCheckBackend, KillEndsATreeThatWouldGoOn) {
  const Finished finished = check(with({"--kill", "--max-copied", "1MiB"}),
                                  {COPY_SUBJECT, "3000", "2", "2000", "3600000"});
  EXPECT_EQ(finished.exit_status(), kOver);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("cowtop: ending all that is measured\n"),
                                  HasSubstr("over budget: child ")));
}

TEST_P(CowtopCheckBackend, KillLeavesAloneWhatIsWithin) {
  Subprocess subject({"sh", "-c", "echo up; exec sleep 600"});
  subject.read_until("up");
  Subprocess cowtop(std::vector<std::string>{COWTOP, "check"} +
                    with({"--kill", "--max-copied", "1GiB", "-p", std::to_string(subject.pid())}));
  cowtop.read_until("attached");
  ::kill(cowtop.pid(), SIGINT);
  EXPECT_EQ(cowtop.finish().exit_status(), kNotMeasured) << "there is no process below it";
  EXPECT_EQ(::waitpid(subject.pid(), nullptr, WNOHANG), 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, CowtopCheckBackend, ::testing::Values("tracepoint", "pagemap"),
                         [](const auto& backend) { return backend.param; });

class CowtopCheckExact : public CowtopCheck {
 protected:
  void SetUp() override {
    CowtopCheck::SetUp();
    if (const auto possible = probe_support(); !possible) GTEST_SKIP() << possible.error().message;
  }
};

// Each subshell copies a little, for ever.
TEST_F(CowtopCheckExact, KillEndsATreeThatGoesOnCopying) {
  const Finished finished =
      check({"--kill", "--tree", "--max-copied", "4MiB"}, {"sh", "-c", "while :; do (:); done"});
  EXPECT_EQ(finished.exit_status(), kOver);
  EXPECT_THAT(finished.err, HasSubstr("over budget: tree: limited to 4.0 MiB"));
}

TEST_F(CowtopCheckExact, KillEndsWhoeverIgnoresSigterm) {
  const Finished finished = check({"--kill", "--tree", "--max-copied", "4MiB"},
                                  {"sh", "-c", "trap '' TERM; sleep 3600 & while :; do (:); done"});
  EXPECT_EQ(finished.exit_status(), kOver);
}

TEST_F(CowtopCheckExact, KillEndsARunningTree) {
  Subprocess subject({"sh", "-c", "echo up; while :; do (:); done"});
  subject.read_until("up");
  const Finished finished = run({COWTOP, "check", "--kill", "--tree", "--max-copied", "4MiB", "-p",
                                 std::to_string(subject.pid())});
  EXPECT_EQ(finished.exit_status(), kOver);
  EXPECT_EQ(subject.finish().status, SIGTERM);
}

TEST_F(CowtopCheckExact, SitesAreNamed) {
  const std::vector<std::string> copies = {SITE_SUBJECT, "shares", "3000"};
  const Finished without = check({"--max-copied", "1MiB"}, copies);
  EXPECT_THAT(without.err, HasSubstr("cowtop: --sites says which code copied\n"));
  const Finished with = check({"--max-copied", "1MiB", "--sites", "--github"}, copies);
  EXPECT_EQ(with.exit_status(), kOver);
  EXPECT_THAT(with.err, HasSubstr("; culprits: site_subject::copy_often"));
  EXPECT_THAT(with.err, HasSubstr("site_subject.cc:"));
  EXPECT_THAT(with.err, Not(HasSubstr("--sites says")));
  EXPECT_THAT(with.out, StartsWith("::error title=cowtop check,file="));
  EXPECT_THAT(with.out, HasSubstr("tests/support/site_subject.cc,line="));
}

// Objects are sampled: on a busy machine cowtop may come too late, and then has another try.
TEST_F(CowtopCheckExact, Objects) {
  Finished over;
  for (const char* linger_ms : {"300", "1500", "6000"}) {
    over = check({"--object", "second=8KiB"}, {OBJECT_SUBJECT, linger_ms});
    if (over.exit_status() == kOver) break;
  }
  EXPECT_EQ(over.exit_status(), kOver);
  EXPECT_THAT(over.err, HasSubstr("over budget: object 'second' in child "));
  EXPECT_THAT(over.err, HasSubstr("limited to 8.0 KiB, used 12.0 KiB; culprits: object 'second' "));
  EXPECT_EQ(check({"--object", "second=12KiB", "--object", "first=8KiB"}, {OBJECT_SUBJECT, "300"})
                .exit_status(),
            0);
  const Finished of_nobody = check({"--object", "nobody=0"}, {OBJECT_SUBJECT, "300"});
  EXPECT_EQ(of_nobody.exit_status(), 125);
  EXPECT_THAT(of_nobody.err,
              HasSubstr("object 'nobody': no process was seen to publish one of that name; there "
                        "were 'first', 'second'"));
}

TEST_F(CowtopCheckExact, AgainstARecordingOrAReport) {
  const std::string recording = folder_ / "before";
  const std::string report = folder_ / "before.json";
  ASSERT_EQ(run(std::vector<std::string>{COWTOP, "record", "-o", recording, "--"} + two_copiers)
                .exit_status(),
            0);
  ASSERT_EQ(run(std::vector<std::string>{COWTOP, "--json", "-o", report, "--"} + two_copiers)
                .exit_status(),
            0);
  const std::vector<std::string> copies_more = {COPY_SUBJECT, "3000", "2", "3000"};
  for (const std::string& baseline : {recording, report}) {
    const Finished same = check({"--baseline", baseline, "--max-growth", "10%"});
    EXPECT_EQ(same.exit_status(), 0) << same.err;
    const Finished more = check({"--baseline", baseline, "--max-growth", "10%"}, copies_more);
    EXPECT_EQ(more.exit_status(), kOver) << more.err;
    EXPECT_THAT(more.err, HasSubstr("in the baseline, used "));
    EXPECT_EQ(check({"--baseline", baseline, "--max-growth", "60%"}, copies_more).exit_status(), 0);
  }
}

TEST_F(CowtopCheckExact, ABudgetFileAndWhatOverridesIt) {
  const std::string budget = folder_ / "budget.json";
  write_file(budget, R"({"schema": "cowshed.budget/1", "per": "tree", "max_copied": "12MiB"})");
  EXPECT_EQ(check({"--budget", budget}).exit_status(), kOver);
  EXPECT_EQ(check({"--budget", budget, "--max-copied", "200MiB"}).exit_status(), 0);
  EXPECT_EQ(check({"--budget", budget, "--per-child"}).exit_status(), 0);
  EXPECT_EQ(check({"--budget", budget, "--per-child", "--max-ratio", "5%"}).exit_status(), kOver);
}

TEST_F(CowtopCheckExact, JunitAndJson) {
  const std::string junit = folder_ / "junit.xml";
  const std::string json = folder_ / "check.json";
  const Finished over = check(
      {"--max-copied", "1MiB", "--max-ratio", "200%", "--junit", junit, "--json", "-o", json});
  EXPECT_EQ(over.exit_status(), kOver);
  EXPECT_THAT(over.out, Not(HasSubstr("{"))) << "both went into files";
  const Json verdict = Json::parse(contents_of(json));
  EXPECT_EQ(verdict["schema"], "cowshed.check/1");
  EXPECT_EQ(verdict["verdict"], "over");
  ASSERT_EQ(verdict["held"].size(), 4U);
  EXPECT_EQ(verdict["held"][0]["limit_bytes"], 1 << 20);
  EXPECT_GE(verdict["held"][0]["used_bytes"], 2000 * 4096);
  const Finished python = run({"/usr/bin/python3", "-c", R"(
import sys, xml.etree.ElementTree as tree
for case in tree.parse(sys.argv[1]).getroot().iter("testcase"):
    print(case.get("name"), *(each.tag for each in case))
)",
                               junit});
  EXPECT_EQ(python.out,
            "max_copied: child 1 (copy_subject) failure\n"
            "max_copied: child 2 (copy_subject) failure\n"
            "max_ratio: child 1 (copy_subject)\n"
            "max_ratio: child 2 (copy_subject)\n");
  EXPECT_EQ(check({"--max-copied", "1", "--junit", junit}, {"/no/such"}).exit_status(), 127);
  EXPECT_THAT(contents_of(junit), HasSubstr("errors=\"1\""));
  EXPECT_EQ(check({"--max-copied", "1MiB", "--warn", "--junit", junit}).exit_status(), 0);
  EXPECT_THAT(contents_of(junit),
              AllOf(HasSubstr("failures=\"0\" errors=\"0\""), HasSubstr("limited to 1.0 MiB")));
  EXPECT_EQ(check({"--max-copied", "1", "--warn", "--junit", junit}, {"/no/such"}).exit_status(),
            127);
  EXPECT_THAT(contents_of(junit), HasSubstr("errors=\"1\""));
  const Finished full = check({"--max-copied", "1GiB", "--junit", "/dev/full"});
  EXPECT_EQ(full.exit_status(), 125);
  EXPECT_THAT(full.err, HasSubstr("cannot write to /dev/full"));
}

TEST_F(CowtopCheck, NoReportIsWrittenOverAnotherFileOfIts) {
  const std::string baseline = folder_ / "baseline";
  const std::string report = json_report(full_measurement());
  write_file(baseline, report);
  const std::string budget = folder_ / "budget";
  const std::string limit = R"({"schema": "cowshed.budget/1", "max_copied": "1GiB"})";
  write_file(budget, limit);
  const std::string junit = folder_ / "junit";
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--baseline", baseline, "--max-growth", "10%", "--junit", baseline},
           {"--baseline", baseline, "--max-growth", "10%", "--json", "-o", baseline},
           {"--budget", budget, "--junit", budget},
           {"--max-copied", "1GiB", "--junit", junit, "--json", "-o", junit}}) {
    SCOPED_TRACE(::testing::PrintToString(options));
    const Finished refused = check(options, {"echo", "ran"});
    EXPECT_EQ(refused.exit_status(), 125);
    EXPECT_EQ(refused.out, "") << "the command is not run";
    EXPECT_THAT(refused.err, HasSubstr(options.back() + ": is the same file as "));
  }
  EXPECT_EQ(contents_of(baseline), report);
  EXPECT_EQ(contents_of(budget), limit);
}

TEST_F(CowtopCheckExact, GithubsAnnotationsWhereItIsGithub) {
  const auto on_github = [] { ::setenv("GITHUB_ACTIONS", "true", 1); };
  const std::vector<std::string> words =
      std::vector<std::string>{COWTOP, "check", "--max-copied", "1MiB", "--"} + two_copiers;
  EXPECT_THAT(run(words, on_github).out, HasSubstr("::error title=cowtop check::child "));
  EXPECT_THAT(run(words).out, Not(HasSubstr("::error")));
  EXPECT_THAT(check({"--github", "--warn", "--max-copied", "1MiB"}).out,
              HasSubstr("::warning title=cowtop check::child "));
  EXPECT_THAT(check({"--github", "--max-copied", "1MiB"}, {"true"}).out,
              HasSubstr("::error title=cowtop check::not measured: max_copied: "));
}

TEST_F(CowtopCheck, WithoutPrivilege) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to take privileges away";
  const PublicCopy cowtop(COWTOP);
  const PublicCopy subject(COPY_SUBJECT);
  const auto become_nobody = [] {
    std::ignore = ::setgid(65534);
    std::ignore = ::setuid(65534);
  };
  const auto held_to = [&](const std::vector<std::string>& limits) {
    return run(std::vector<std::string>{cowtop.path(), "check"} + limits +
                   std::vector<std::string>{"--", subject.path(), "3000", "1", "2000", "600"},
               become_nobody);
  };
  const Finished over = held_to({"--max-copied", "1MiB", "--max-ratio", "5%"});
  EXPECT_EQ(over.exit_status(), kOver) << over.err;
  EXPECT_THAT(over.err, HasSubstr("using the pagemap backend"));
  EXPECT_THAT(over.err, HasSubstr("limited to 1.0 MiB, used "));
  EXPECT_THAT(over.err, Not(HasSubstr("--sites says"))) << "it cannot";
  const Finished within = held_to({"--tree", "--max-copied", "100MiB"});
  EXPECT_EQ(within.exit_status(), 0) << within.err;
  EXPECT_THAT(within.err, HasSubstr("not held to max_copied: root "));
}

TEST_F(CowtopCheck, BadUsageIsOneLineAnd125AndNothingRuns) {
  write_file(folder_ / "bad", "{}");
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{},
                                             {"--max-copied"},
                                             {"--max-copied", "64MB"},
                                             {"--max-copied", ""},
                                             {"--max-ratio", "5"},
                                             {"--object", "index"},
                                             {"--tree", "--per-child", "--max-copied", "1"},
                                             {"--max-growth", "5%"},
                                             {"--baseline", "/no/such"},
                                             {"--baseline", "/no/such", "--max-growth", "5%"},
                                             {"--baseline", "/", "--max-growth", "5%"},
                                             {"--baseline", folder_ / "bad", "--max-growth", "5%"},
                                             {"--budget", "/no/such"},
                                             {"--budget", folder_ / "bad"},
                                             {"--max-copied", "1", "--warn", "--kill"},
                                             {"--max-copied", "1", "-o", folder_ / "out"},
                                             {"--max-copied", "1", "--json", "-o", ""},
                                             {"--max-copied", "1", "--json", "--github"},
                                             {"--max-copied", "1", "--junit", ""},
                                             {"--max-copied", "1", "--junit", "/no/such/file"}}) {
    SCOPED_TRACE(::testing::PrintToString(options));
    const Finished finished = check(options, {"echo", "ran"});
    EXPECT_EQ(finished.exit_status(), 125);
    EXPECT_EQ(finished.out, "");
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    EXPECT_THAT(finished.err, StartsWith("cowtop: "));
  }
}

}  // namespace
}  // namespace cowshed::cowtop
