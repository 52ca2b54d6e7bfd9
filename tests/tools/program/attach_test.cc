#include <nlohmann/json.hpp>

#include <cowshed/tests/subjects/copiers.h>
#include <cowshed/tests/tools/recordings.h>

namespace cowshed::cowtop {
namespace {

using test::Copiers;
using test::run;
using test::Subprocess;

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
      const auto processes = nlohmann::json::parse(cowtop.finish().out)["processes"];
      ASSERT_THAT(processes, SizeIs(1));
      EXPECT_EQ(processes[0]["pid"], subject.children()[0]);
    }
    ::kill(subject.children()[0], SIGKILL);
    subject.finish();
  }
  ::rmdir((folder + "/below").c_str());
  EXPECT_EQ(::rmdir(folder.c_str()), 0);
}

}  // namespace
}  // namespace cowshed::cowtop
