#include <nlohmann/json.hpp>

#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {
namespace {

using test::Finished;
using test::run;
using test::Subprocess;

// copy_subject and its child, which has copied 50 pages and stays.
struct Copiers : Subprocess {
  explicit Copiers(const std::string& program = COPY_SUBJECT,
                   const std::function<void()>& in_child = {})
      : Subprocess({program, "100", "1", "50", "60000"}, in_child) {}
  ~Copiers() { ::kill(child, SIGKILL); }

  const pid_t child = std::stoi(read_until("\n").out);
};

// What the report says of it when cowtop is interrupted.
nlohmann::json interrupted(Subprocess& cowtop) {
  ::kill(cowtop.pid(), SIGINT);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  return nlohmann::json::parse(finished.out)["processes"];
}

TEST(CowtopAttach, UntilCtrlC) {
  const Copiers subject;
  Subprocess cowtop({COWTOP, "--json", "-p", std::to_string(subject.pid())});
  ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
  const auto processes = interrupted(cowtop);
  ASSERT_EQ(processes.size(), 2U);
  EXPECT_EQ(processes[0]["pid"], subject.pid());
  EXPECT_EQ(processes[0]["role"], "root");
  EXPECT_EQ(processes[0]["alive"], true);
  EXPECT_EQ(processes[1]["role"], "child");
}

TEST(CowtopAttach, SeveralOfWhichOneIsGone) {
  const Copiers first;
  const Copiers second;
  const std::string pids =
      std::to_string(second.pid()) + ",99999999," + std::to_string(first.pid());
  Subprocess cowtop({COWTOP, "--json", "-p", pids, "-p", std::to_string(first.child)});
  const std::string said = cowtop.read_until("attached").err;
  EXPECT_THAT(said, HasSubstr("attached to 4 processes"));
  EXPECT_THAT(said, HasSubstr("cowtop: not measured: PID 99999999: no such process"));
  for (const pid_t pid : {first.child, second.child}) ::kill(pid, SIGTERM);
  const Finished finished = cowtop.finish();
  EXPECT_EQ(finished.exit_status(), 0) << "all have ended";
  std::vector<pid_t> roots;
  const auto report = nlohmann::json::parse(finished.out);
  for (const auto& process : report["processes"])
    if (process["role"] == "root") roots.push_back(process["pid"]);
  EXPECT_THAT(roots, UnorderedElementsAre(first.pid(), second.pid()));
}

std::vector<pid_t> pids_of(const nlohmann::json& processes) {
  std::vector<pid_t> pids;
  for (const auto& process : processes) pids.push_back(process["pid"]);
  return pids;
}

TEST(CowtopAttach, ByNameAlsoThoseThatStartLater) {
  const TestFolder folder;
  const std::string name = "cows" + std::to_string(::getpid());  // that no other has
  const std::string program = folder / name;
  ASSERT_EQ(::symlink(COPY_SUBJECT, program.c_str()), 0);
  const Finished none = run({COWTOP, "--comm", name});
  EXPECT_EQ(none.exit_status(), 125);
  EXPECT_THAT(none.err, HasSubstr("--comm " + name + ": there is no such process"));
  Copiers first(program);
  const pid_t root = first.pid();
  const std::string file = folder / "recording";
  Subprocess cowtop({COWTOP, "record", "-o", file, "--comm", "^" + name + "$"});
  ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
  ::kill(first.child, SIGTERM);
  first.finish();
  const Copiers second(program);
  // Once a second; a recording says when.
  std::vector<pid_t> pids;
  constexpr int kMostTries = 300;
  for (int i = 0; i < kMostTries && pids.size() < 4; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const Finished report = run({COWTOP, "report", "--json", file});
    if (report.exit_status() == 0) pids = pids_of(nlohmann::json::parse(report.out)["processes"]);
  }
  EXPECT_THAT(pids, UnorderedElementsAre(root, first.child, second.pid(), second.child));
  ::kill(cowtop.pid(), SIGINT);
  EXPECT_EQ(cowtop.finish().exit_status(), 0);
}

TEST(CowtopAttach, ByCgroup) {
  const std::string name = "cowshed-test-" + std::to_string(::getpid());
  std::string folder;
  for (const char* mount : {"/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"}) {
    const bool is_v2 = ::access((std::string(mount) + "cgroup.controllers").c_str(), F_OK) == 0;
    if (is_v2 && ::mkdir((mount + name).c_str(), 0755) == 0) folder = mount + name;
  }
  if (folder.empty()) GTEST_SKIP() << "no cgroup v2 that we may write to";
  ::mkdir((folder + "/below").c_str(), 0755);
  {
    Copiers subject;
    EXPECT_THAT(run({COWTOP, "--cgroup", "/" + name}).err, HasSubstr("no process is in it"));
    write_file(folder + "/below/cgroup.procs", std::to_string(subject.child));
    for (const std::string& path : {"/" + name, folder}) {
      Subprocess cowtop({COWTOP, "--json", "--cgroup", path});
      ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 1 process by"));
      EXPECT_THAT(pids_of(interrupted(cowtop)), ElementsAre(subject.child));
    }
    ::kill(subject.child, SIGKILL);
    subject.finish();
  }
  ::rmdir((folder + "/below").c_str());
  EXPECT_EQ(::rmdir(folder.c_str()), 0);
}

TEST(CowtopAttach, ToEverything) {
  const Copiers subject;
  Subprocess cowtop({COWTOP, "--json", "--backend", "pagemap"});
  ASSERT_THAT(cowtop.read_until("Ctrl-C").err, HasSubstr("attached to "));
  const auto pids = pids_of(interrupted(cowtop));
  EXPECT_THAT(pids, Contains(subject.pid()));
  EXPECT_THAT(pids, Contains(subject.child));
  EXPECT_THAT(pids, Not(Contains(cowtop.pid())));
}

TEST(CowtopAttach, ToEverythingOfOnesOwn) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const test::PublicCopy program(COWTOP);
  const test::PublicCopy copy(COPY_SUBJECT);
  const auto become_nobody = [] { std::ignore = ::setuid(65534); };
  const Copiers subject(copy.path(), become_nobody);
  Subprocess cowtop({program.path(), "--json"}, become_nobody);
  ASSERT_THAT(cowtop.read_until("Ctrl-C").err, HasSubstr("attached to "));
  const auto pids = pids_of(interrupted(cowtop));
  EXPECT_THAT(pids, Contains(subject.pid()));
  EXPECT_THAT(pids, Not(Contains(::getpid())));
  EXPECT_THAT(pids, Not(Contains(1)));
}

TEST(CowtopAttach, SomebodyElsesProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const test::PublicCopy cowtop(COWTOP);
  const Finished finished =
      run({cowtop.path(), "-p", std::to_string(::getpid())}, [] { std::ignore = ::setuid(65534); });
  EXPECT_EQ(finished.exit_status(), 125);
  EXPECT_THAT(finished.err, HasSubstr("belongs to somebody else"));
}

}  // namespace
}  // namespace cowshed::cowtop
