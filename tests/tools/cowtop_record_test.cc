#include <chrono>
#include <csignal>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <thread>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/zstd_lines.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using test::Subprocess;
using ::testing::HasSubstr;
using ::testing::Not;

class CowtopRecord : public ::testing::Test {
 protected:
  std::string report(const std::string& kind) const {
    const Finished finished =
        kind.empty() ? run({COWTOP, "report", path_}) : run({COWTOP, "report", kind, path_});
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    return finished.out;
  }

  TestFolder folder_;
  std::string path_ = folder_ / "recording";
};

std::uint64_t copied_pages_of(const nlohmann::json& report) {
  std::uint64_t pages = 0;
  for (const auto& process : report["processes"]) {
    pages += process["copied_pages"].is_null() ? 0 : process["copied_pages"].get<std::uint64_t>();
  }
  return pages;
}

TEST_F(CowtopRecord, EveryReportOfItHasTheSameTotal) {
  const Finished recorded = run(
      {COWTOP, "record", "-o", path_, "--sites", "-c", "5", "--", SITE_SUBJECT, "shares", "3000"});
  ASSERT_EQ(recorded.exit_status(), 0) << recorded.err;
  EXPECT_THAT(recorded.err, HasSubstr("cowtop report " + path_));
  const auto json = nlohmann::json::parse(report("--json"));
  const std::uint64_t pages = copied_pages_of(json);
  EXPECT_GE(pages, 3000);
  std::uint64_t folded = 0;
  std::istringstream lines(report("--folded"));
  for (std::string line; std::getline(lines, line);) {
    folded += std::stoull(line.substr(line.rfind(' ')));
  }
  EXPECT_EQ(folded, pages);
  std::ostringstream total;
  total.precision(1);
  total << "total copied: " << std::fixed << static_cast<double>(pages) / 256 << " MiB";
  EXPECT_THAT(report(""), HasSubstr(total.str()));
  EXPECT_THAT(report("--folded"), HasSubstr(";main;"));
}

TEST_F(CowtopRecord, TheCommandsExitStatusIsPassedThrough) {
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "--", "sh", "-c", "exit 7"}).exit_status(), 7);
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["exit_status"], 7);
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "--", "/no/such"}).exit_status(), 127);
}

TEST_F(CowtopRecord, CtrlCEndsIt) {
  Subprocess cowtop({COWTOP, "record", "-o", path_, "--", "sh", "-c", "echo up; exec sleep 60"});
  cowtop.read_until("up");
  ::kill(cowtop.pid(), SIGINT);
  EXPECT_EQ(cowtop.finish().exit_status(), 128 + SIGINT);
  const auto root = nlohmann::json::parse(report("--json"))["processes"][0];
  EXPECT_EQ(root["signal"], SIGINT);
  EXPECT_TRUE(root["exit_status"].is_null());
}

TEST_F(CowtopRecord, AHangupEndsItUnlessItIsIgnored) {
  Subprocess ended({"env", "--default-signal=HUP", COWTOP, "record", "-o", path_, "--", "sh", "-c",
                    "echo up; exec sleep 60"});
  ended.read_until("up");
  ::kill(ended.pid(), SIGHUP);
  EXPECT_EQ(ended.finish().exit_status(), 128 + SIGHUP);
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["signal"], SIGHUP);

  Subprocess kept(
      {"nohup", COWTOP, "record", "-o", path_, "--", "sh", "-c", "echo up; sleep 1; exit 3"});
  kept.read_until("up");
  ::kill(kept.pid(), SIGHUP);
  EXPECT_EQ(kept.finish().exit_status(), 3);
}

TEST_F(CowtopRecord, AFileThatAnotherWritesIsLeftAlone) {
  Subprocess first({COWTOP, "record", "-o", path_, "--", "sh", "-c", "echo up; sleep 1; exit 3"});
  first.read_until("up");
  const Finished second = run({COWTOP, "record", "-o", path_, "--", "echo", "ran"});
  EXPECT_EQ(second.exit_status(), 125);
  EXPECT_EQ(second.out, "");
  EXPECT_EQ(second.err,
            "cowtop: " + path_ + ": another cowtop is writing to it; name another file\n");
  EXPECT_EQ(first.finish().exit_status(), 3);
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["exit_status"], 3);
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
}

// Opened again by that name, it would be cut, and written from its beginning.
TEST_F(CowtopRecord, StandardOutputByAnotherNameLosesNothing) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
  const std::string all = folder_ / "all";
  for (const char* redirection : {">", ">>"}) {
    write_file(all, "");
    const Finished finished =
        run({"sh", "-c",
             std::string(R"({ echo before; "$0" report --json -o /dev/stdout )"
                         R"("$1"; echo after; } )") +
                 redirection + " \"$2\"",
             COWTOP, path_, all});
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    EXPECT_EQ(contents_of(all), "before\n" + report("--json") + "after\n");
  }
}

// What a command prints would be in the midst of it.
TEST_F(CowtopRecord, AFileThatAStandardStreamGoesToIsRefused) {
  write_file(path_, "before\n");
  for (const auto& [redirection, name] : std::vector<std::pair<std::string, std::string>>{
           {">>", "standard output"}, {"2>>", "standard error"}}) {
    const Finished refused =
        run({"sh", "-c", R"("$0" record -o "$1" -- echo ran )" + redirection + "\"$1\"", COWTOP,
             path_});
    EXPECT_EQ(refused.exit_status(), 125);
    EXPECT_EQ(refused.out, "");
    const std::string said = "cowtop: " + path_ + ": " + name +
                             " goes to the same file, amid the recording; name another file\n";
    EXPECT_EQ(contents_of(path_) + refused.err, "before\n" + said);
  }
  // A process that is attached to prints elsewhere.
  Subprocess subject({COPY_SUBJECT, "100", "1", "50", "60000"});
  subject.read_until("\n");
  Subprocess cowtop({"sh", "-c", R"(exec "$0" record -o /dev/stdout -p "$2" >"$1")", COWTOP, path_,
                     std::to_string(subject.pid())});
  cowtop.read_until("attached");
  ::kill(cowtop.pid(), SIGINT);
  EXPECT_EQ(cowtop.finish().exit_status(), 0);
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["pid"], subject.pid());
}

TEST_F(CowtopRecord, KilledItIsReadableUpToTheLastSecond) {
  Subprocess subject({COPY_SUBJECT, "100", "1", "50", "60000"});
  subject.read_until("\n");
  Subprocess cowtop({COWTOP, "record", "-o", path_, "-p", std::to_string(subject.pid())});
  cowtop.read_until("attached");
  // Its header and one interval: that of its first sample.
  for (std::size_t size = 0, before = 1; size != before || size == 0;) {
    before = size;
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    size = contents_of(path_).size();
    if (size > 0 && run({COWTOP, "report", path_}).exit_status() == 0) break;
  }
  ::kill(cowtop.pid(), SIGKILL);
  cowtop.finish();
  const Finished finished = run({COWTOP, "report", "--json", path_});
  EXPECT_EQ(finished.exit_status(), 0);
  EXPECT_THAT(finished.err, HasSubstr("has no end: cowtop was killed"));
  EXPECT_EQ(nlohmann::json::parse(finished.out)["processes"][0]["pid"], subject.pid());
}

// As many processes as are listed, one of them a sum: everything says the same of all.
TEST_F(CowtopRecord, AJobThatForksForEver) {
#if defined(__SANITIZE_ADDRESS__)
  constexpr bool kIsPlain = false;  // and slow
  constexpr std::uint64_t kForks = 1'000;
#else
  constexpr bool kIsPlain = true;
  constexpr std::uint64_t kForks = 10'000;
#endif
  const std::string program = "i=0; while [ $i -lt " + std::to_string(kForks) +
                              " ]; do (:); i=$((i+1)); done; cat /proc/$PPID/status";
  const Finished recorded = run({COWTOP, "record", "-o", path_, "--", "sh", "-c", program});
  ASSERT_EQ(recorded.exit_status(), 0) << recorded.err;
  if (kIsPlain) {
    const auto peak = recorded.out.find("VmHWM:");
    ASSERT_NE(peak, std::string::npos) << recorded.out;
    EXPECT_LT(std::stoull(recorded.out.substr(peak + 6)), 64U << 10) << "KiB";
  }
  const auto json = nlohmann::json::parse(report("--json"));
  if (!json["exact"].get<bool>()) GTEST_SKIP() << "sampled, few of them are seen";
  if (kIsPlain) {
    EXPECT_LT(json["processes"].size(), kForks / 2);
  }
  std::uint64_t processes = 0;
  for (const auto& process : json["processes"]) {
    processes += process.value("processes", std::uint64_t{1});
  }
  EXPECT_EQ(processes, kForks + 2);
  EXPECT_EQ(json["processes"][0]["tree_processes"], processes);
  EXPECT_EQ(json["lost_events"], 0);
  const std::uint64_t pages = copied_pages_of(json);
  EXPECT_EQ(json["processes"][0]["tree_copied_pages"], pages);
  EXPECT_GT(pages, kForks);
  const std::string table = report("");
  EXPECT_THAT(table, HasSubstr("; " + std::to_string(kForks + 2) + " processes in"));
  if (kIsPlain) {
    EXPECT_THAT(table, HasSubstr("of the processes that ended, which copied least, are summed"));
  }
  std::uint64_t folded = 0;
  std::istringstream lines(report("--folded"));
  for (std::string line; std::getline(lines, line);) {
    folded += std::stoull(line.substr(line.rfind(' ')));
  }
  EXPECT_EQ(folded, pages);
  const std::string page = folder_ / "page.html";
  EXPECT_EQ(run({COWTOP, "report", path_, "--html", page}).exit_status(), 0);
  EXPECT_THAT(contents_of(page), HasSubstr("\"tree_processes\":" + std::to_string(kForks + 2)));
}

TEST_F(CowtopRecord, WhatCannotBeWritten) {
  const Finished full = run({COWTOP, "record", "-o", "/dev/full", "--", "echo", "ran"});
  EXPECT_EQ(full.exit_status(), 125);
  EXPECT_EQ(full.out, "") << "known before the command runs";
  EXPECT_EQ(full.err, "cowtop: cannot write to /dev/full: No space left on device\n");
  EXPECT_EQ(run({COWTOP, "record", "-o", "/no/such/x", "--", "true"}).exit_status(), 125);
}

TEST_F(CowtopRecord, WhereNothingIsMeasuredAnEarlierOneStays) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
  const std::string earlier = contents_of(path_);
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "--", "/no/such"}).exit_status(), 127);
  EXPECT_EQ(contents_of(path_), earlier);
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "-p", "99999999"}).exit_status(), 125);
  EXPECT_EQ(contents_of(path_), earlier);
  EXPECT_EQ(run({COWTOP, "record", "-o", path_, "--", "sh", "-c", "exit 7"}).exit_status(), 7);
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["exit_status"], 7);
}

TEST_F(CowtopRecord, NoReportIsMadeOfOneThatIsDamagedBeforeItsFirstInterval) {
  ZstdLineEncoder encoder;
  write_file(path_, encoder.encode(R"({"schema": "cowshed.recording/1"})") +
                        encoder.encode(R"({"patch": 7})"));
  const std::string page = folder_ / "page.html";
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"-o", page}, {"--json", "-o", page}, {"--html", page}}) {
    std::vector<std::string> words = {COWTOP, "report", path_};
    words.insert(words.end(), options.begin(), options.end());
    const Finished refused = run(words);
    EXPECT_EQ(refused.exit_status(), 125) << options[0];
    EXPECT_THAT(refused.err, HasSubstr("before the first interval"));
    EXPECT_EQ(contents_of(page), "");
  }
}

std::string many(const std::string& text, std::size_t times) {
  std::string result;
  result.reserve(text.size() * times);
  for (; times > 0; --times) result += text;
  return result;
}

// A few KiB that would become GiB.
TEST_F(CowtopRecord, ASmallFileDoesNotTakeMuchMemory) {
  constexpr std::size_t kMany = 20'000'000;
  ZstdLineEncoder encoder;
  const auto add = [&](const std::string& path, const std::string& value) {
    return encoder.encode(R"({"patch": [{"op": "add", "path": ")" + path + R"(", "value": )" +
                          value + "}]}");
  };
  const std::string begin =
      encoder.encode(R"({"schema": "cowshed.recording/1"})") + add("/schema", R"("cowshed.run/2")");
  std::string little_by_little;
  for (int i = 0; i < 5; ++i) {
    little_by_little += add("/" + std::to_string(i), "[" + many("0,", kMany / 5) + "0]");
  }
  std::vector<std::string> too_much{little_by_little};
  too_much.push_back(add("/processes", "[" + many("{},", kMany) + "{}]"));
  too_much.push_back(add("/x", "[" + many("[],", kMany) + "[]]"));
  too_much.push_back(add("/x", "[" + many("0,", kMany) + "0]"));
  for (const std::string& crafted : too_much) {
    EXPECT_LT(crafted.size(), 200'000U);
    write_file(path_, begin + crafted);
    EXPECT_THAT(run({COWTOP, "report", path_}).err,
                HasSubstr(path_ + ": is damaged: it would take more than a GiB of memory"));
  }
  // As many as there can be.
  write_file(path_, begin + add("/processes", "[" + many("{},", 30'000) + "{}]"));
  EXPECT_GT(report("--json").size(), 30'000'000U);
  rusage used{};
  ASSERT_EQ(::getrusage(RUSAGE_CHILDREN, &used), 0);
  EXPECT_LT(used.ru_maxrss, 1 << 20) << "KiB";
}

TEST_F(CowtopRecord, AnotherThatFollowsIsNotPassedOverInSilence) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
  const std::string alone = report("--json");
  write_file(path_, contents_of(path_) + contents_of(path_));
  const std::string what = "is followed by another recording";
  const Finished reported = run({COWTOP, "report", "--json", path_});
  EXPECT_EQ(reported.exit_status(), 0);
  EXPECT_EQ(reported.out, alone);
  EXPECT_THAT(reported.err, HasSubstr("cowtop: " + path_ + ": " + what));
  EXPECT_THAT(reported.err, HasSubstr("; the report is of the first "));
  const Finished compared = run({COWTOP, "diff", path_, path_});
  EXPECT_EQ(compared.exit_status(), 0);
  EXPECT_THAT(compared.err, HasSubstr("cowtop: " + path_ + " " + what));
}

TEST_F(CowtopRecord, ADeviceKeepsNothing) {
  const Finished finished =
      run({COWTOP, "record", "-o", "/dev/null", "--", "sh", "-c", "echo ran; exit 7"});
  EXPECT_EQ(finished.exit_status(), 7);
  EXPECT_EQ(finished.out, "ran\n");
  EXPECT_THAT(finished.err, HasSubstr("; /dev/null keeps nothing of it: with the name of a file, "
                                      "cowtop report shows it\n"));
  EXPECT_THAT(finished.err, Not(HasSubstr("cowtop report /dev/null")));
}

// What was written to it can be read once, by whoever is at its other end.
TEST_F(CowtopRecord, APipeIsNoFileToReport) {
  const Finished finished =
      run({"sh", "-c", R"("$0" record -o /dev/stdout -- true | "$0" report /dev/stdin)", COWTOP});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("total copied: "));
  EXPECT_THAT(finished.err, HasSubstr("recorded 1 process in "));
  EXPECT_THAT(finished.err, Not(HasSubstr("cowtop report")));
}

// It is found out when the command has ended: its own failure is not hidden.
TEST_F(CowtopRecord, WhereTheEndCannotBeWrittenTheCommandsFailurePassesFirst) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "/no/such"}).exit_status(), 127);
  const rlim_t header = contents_of(path_).size();
  for (const auto& [command, status] :
       std::vector<std::pair<std::string, int>>{{"exit 0", 125}, {"exit 7", 7}}) {
    const std::string path = folder_ / command;
    const Finished finished =
        run({COWTOP, "record", "-o", path, "--", "sh", "-c", "echo ran; " + command}, [&] {
          constexpr rlim_t kNoInterval = 64;
          const rlimit most{header + kNoInterval, header + kNoInterval};
          ::setrlimit(RLIMIT_FSIZE, &most);
        });
    EXPECT_EQ(finished.exit_status(), status) << command;
    EXPECT_EQ(finished.out, "ran\n");
    const std::string what = "cowtop: cannot write to " + path + ": File too large; ";
    EXPECT_EQ(finished.err, what + "tried again until the measurement ends\n" + what +
                                "the recording has no end\n");
  }
}

TEST_F(CowtopRecord, AFullDiskIsSaidOnceAndSoIsItsEnd) {
  Subprocess subject({COPY_SUBJECT, "100", "1", "50", "60000"});
  subject.read_until("\n");
  Subprocess cowtop({COWTOP, "record", "-o", path_, "-p", std::to_string(subject.pid())});
  cowtop.read_until("attached");
  rlimit limit{};
  ASSERT_EQ(::prlimit(cowtop.pid(), RLIMIT_FSIZE, nullptr, &limit), 0);
  const rlimit full{0, limit.rlim_max};
  ASSERT_EQ(::prlimit(cowtop.pid(), RLIMIT_FSIZE, &full, nullptr), 0);
  const std::string refused = "cowtop: cannot write to " + path_ + ": File too large; tried again";
  EXPECT_THAT(cowtop.read_until("File too large").err, HasSubstr(refused));
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // it is tried again
  ASSERT_EQ(::prlimit(cowtop.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  const std::string again = "cowtop: " + path_ + " can be written again";
  EXPECT_THAT(cowtop.read_until("again, and").err, HasSubstr(again));
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 0);
  for (const std::string& once : {refused, again}) {
    EXPECT_EQ(finished.err.find(once), finished.err.rfind(once)) << finished.err;
  }
  EXPECT_EQ(nlohmann::json::parse(report("--json"))["processes"][0]["pid"], subject.pid());
}

TEST_F(CowtopRecord, WhereAReportCannotBeWritten) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
  for (const char* option : {"-o", "--html"}) {
    const Finished finished = run({COWTOP, "report", path_, option, "/dev/full"});
    EXPECT_EQ(finished.exit_status(), 125) << option;
    EXPECT_EQ(finished.err, "cowtop: cannot write to /dev/full: No space left on device\n");
  }
  const Finished finished = run({"sh", "-c", R"("$0" report "$1" >/dev/full)", COWTOP, path_});
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("cannot write to standard output: No space left"));
  const Finished closed = run({"sh", "-c", R"("$0" report --json "$1" >&-)", COWTOP, path_});
  EXPECT_EQ(closed.exit_status(), 125);
  EXPECT_EQ(closed.err, "cowtop: cannot write to standard output: Bad file descriptor\n");
}

TEST_F(CowtopRecord, AReportIsNotWrittenOverIt) {
  ASSERT_EQ(run({COWTOP, "record", "-o", path_, "--", "true"}).exit_status(), 0);
  const std::string recording = contents_of(path_);
  for (const char* option : {"-o", "--html"}) {
    const Finished refused = run({COWTOP, "report", path_, option, path_});
    EXPECT_EQ(refused.exit_status(), 125);
    EXPECT_EQ(refused.err, "cowtop: " + path_ + ": is the same file as " + path_ +
                               ", which would be lost; name another file\n");
    EXPECT_EQ(contents_of(path_), recording);
  }
}

TEST_F(CowtopRecord, AFileAtItsLimitIsAnErrorAndNotTheEnd) {
  const Finished finished = run({COWTOP, "-o", path_, "--", "true"}, [] {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_FSIZE, &none);
  });
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("cannot write to " + path_ + ": File too large"));
}

TEST_F(CowtopRecord, BadUsageIsOneLineAnd125) {
  for (std::vector<std::string> words :
       std::vector<std::vector<std::string>>{{"record"},
                                             {"record", "--", "true"},
                                             {"record", "-o", "", "--", "true"},
                                             {"record", "-o", path_},
                                             {"report"},
                                             {"report", "/no/such"},
                                             {"report", "/"},
                                             {"report", "--json", "--folded", path_},
                                             {"report", path_, "another"}}) {
    words.insert(words.begin(), COWTOP);
    SCOPED_TRACE(::testing::PrintToString(words));
    const Finished finished = run(words);
    EXPECT_EQ(finished.exit_status(), 125);
    EXPECT_EQ(finished.out, "");
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
  }
}

}  // namespace
}  // namespace cowshed::cowtop
