#include <nlohmann/json.hpp>

#include <cowshed/tests/subjects/copiers.h>
#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {
namespace {

using test::Copiers;
using test::Finished;
using test::run;
using test::Subprocess;

std::vector<pid_t> pids_of(const std::string& report) {
  std::vector<pid_t> pids;
  const auto json = nlohmann::json::parse(report);
  for (const auto& process : json["processes"]) pids.push_back(process["pid"]);
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
  Copiers first(1, program);
  const pid_t root = first.pid();
  const std::string file = folder / "recording";
  Subprocess cowtop({COWTOP, "record", "-o", file, "--comm", "^" + name + "$"});
  ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 2 processes"));
  ::kill(first.children()[0], SIGTERM);
  first.finish();
  const Copiers second(1, program);
  // Once a second; a recording says when.
  std::vector<pid_t> pids;
  constexpr int kMostTries = 300;
  for (int i = 0; i < kMostTries && pids.size() < 4; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const Finished report = run({COWTOP, "report", "--json", file});
    if (report.exit_status() == 0) pids = pids_of(report.out);
  }
  EXPECT_THAT(pids,
              UnorderedElementsAre(root, first.children()[0], second.pid(), second.children()[0]));
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
    write_file(folder + "/below/cgroup.procs", std::to_string(subject.children()[0]));
    for (const std::string& path : {"/" + name, folder}) {
      Subprocess cowtop({COWTOP, "--json", "--cgroup", path});
      ASSERT_THAT(cowtop.read_until("attached").err, HasSubstr("attached to 1 process by"));
      ::kill(cowtop.pid(), SIGINT);
      EXPECT_THAT(pids_of(cowtop.finish().out), ElementsAre(subject.children()[0]));
    }
    ::kill(subject.children()[0], SIGKILL);
    subject.finish();
  }
  ::rmdir((folder + "/below").c_str());
  EXPECT_EQ(::rmdir(folder.c_str()), 0);
}

}  // namespace
}  // namespace cowshed::cowtop
