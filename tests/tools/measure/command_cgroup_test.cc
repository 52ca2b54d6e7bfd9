#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/measure/command_cgroup.h>

namespace cowshed::cowtop {
namespace {

// A hierarchy of cgroups, in which this process and others are members.
class CommandCgroupTest : public ::testing::Test {
 protected:
  void add(const std::string& path, const std::string& controllers, const std::string& enabled,
           const std::vector<pid_t>& members = {}) const {
    std::string lines;
    for (const pid_t pid : members) lines += std::to_string(pid) + "\n";
    mount_.write(path + "/cgroup.procs", lines);
    mount_.write(path + "/cgroup.controllers", controllers + "\n");
    mount_.write(path + "/cgroup.subtree_control", enabled + "\n");
    if (path != ".") mount_.write(path + "/cgroup.type", "domain\n");
  }
  // As "FOLDER" or "FOLDER, aside"; empty: there is none.
  std::string place_for(const std::string& path) const {
    const std::string mount = mount_.path();
    const auto place = find_cgroup_place(mount, path, self_);
    if (!place) return "";
    EXPECT_EQ(place->own, mount + (path == "/" ? "" : path));
    const std::string folder = place->folder.substr(mount.size());
    const std::string name = "/cowtop-" + std::to_string(self_);
    EXPECT_TRUE(folder.ends_with(name));
    return folder.substr(0, folder.size() - name.size()) + (place->aside.empty() ? "/" : "/ aside");
  }

  const pid_t self_ = ::getpid();
  const pid_t other_ = ::getppid();
  const test::Folder mount_;
};

TEST_F(CommandCgroupTest, IsBelowTheRoot) {
  add(".", "cpu memory", "cpu memory", {other_, self_});
  EXPECT_EQ(place_for("/"), "/");
  add(".", "cpu memory", "cpu", {other_, self_});
  EXPECT_EQ(place_for("/"), "");
}

TEST_F(CommandCgroupTest, IsBelowItsOwnIfNobodyElseIsThere) {
  add("system.slice/x.service", "memory pids", "", {self_});
  EXPECT_EQ(place_for("/system.slice/x.service"), "/system.slice/x.service/ aside");
  for (const std::vector<pid_t>& members : {std::vector{self_, other_}, {self_, 0}, {other_}}) {
    add("system.slice/x.service", "memory pids", "", members);
    EXPECT_EQ(place_for("/system.slice/x.service"), "");
  }
  add("system.slice/x.service", "pids", "", {self_});
  EXPECT_EQ(place_for("/system.slice/x.service"), "");
}

TEST_F(CommandCgroupTest, IsBesideTheScopeOfASession) {
  for (const std::string parent : {"/user.slice/user-0.slice", "/system.slice", "/machine"}) {
    add(parent.substr(1), "memory", "memory");
    add(parent.substr(1) + "/session-1.scope", "memory", "", {other_, self_});
    EXPECT_EQ(place_for(parent + "/session-1.scope"),
              parent.starts_with("/user.slice") ? parent + "/" : "");
  }
  add("user.slice/user-0.slice", "memory", "pids");
  EXPECT_EQ(place_for("/user.slice/user-0.slice/session-1.scope"), "");
}

TEST_F(CommandCgroupTest, ALimitIsAnotherSetting) {
  const auto is_same_with = [&](const std::string& file, const char* own, const char* fresh) {
    const test::Folder groups;
    groups.write("own/memory.max", "max\n");
    groups.write("fresh/memory.max", "max\n");
    groups.write("own/" + file, own);
    groups.write("fresh/" + file, fresh);
    return has_same_settings(groups / "own", groups / "fresh");
  };
  EXPECT_TRUE(is_same_with("cgroup.procs", "1\n", ""));
  EXPECT_TRUE(is_same_with("memory.peak", "4096\n", "0\n"));
  EXPECT_TRUE(is_same_with("memory.pressure", "some 1\n", "some 0\n"));
  EXPECT_FALSE(is_same_with("memory.max", "1000\n", "max\n"));
  EXPECT_FALSE(is_same_with("a.later.setting", "1\n", "0\n"));
}

}  // namespace
}  // namespace cowshed::cowtop
