#include <cowshed/cow/proc/memory_cgroups.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// /pod with a limit, and /pod/app in it.
class MemoryCgroupsTest : public ::testing::Test {
 protected:
  MemoryCgroupsTest() {
    set("pod", 100 * kMiB, 0, 3);
    set("pod/app", 0, 0, 3);
    cgroups_.note("/pod/app");
  }
  // `limit`: 0 is "max".
  void set(const std::string& path, std::uint64_t limit, int shortages, int kills) const {
    mount_.write(path + "/memory.max", limit == 0 ? "max\n" : std::to_string(limit) + "\n");
    mount_.write(path + "/memory.events.local",
                 "max 9\noom " + std::to_string(shortages) + "\noom_kill 0\n");
    mount_.write(path + "/memory.events", "oom 7\noom_kill " + std::to_string(kills) + "\n");
  }

  ::cowshed::test::Folder mount_;
  MemoryCgroups cgroups_{mount_.path()};
};

TEST_F(MemoryCgroupsTest, TheLimitIsOfTheGroupThatWasShort) {
  set("pod", 90 * kMiB, 1, 5);
  set("pod/app", 0, 0, 5);
  const auto look = cgroups_.look("/pod/app", 1);
  EXPECT_EQ(look.kills, 2U);
  EXPECT_EQ(look.why.limit, "/pod");
  EXPECT_EQ(look.why.limit_bytes, 90 * kMiB);
  EXPECT_EQ(cgroups_.look("/pod/app", 1).kills, 2U) << "for each process of the round";
  EXPECT_EQ(cgroups_.look("/pod/app", 2).kills, 0U);
  EXPECT_EQ(cgroups_.look("/pod/app", 2).why.limit, "");
}

TEST_F(MemoryCgroupsTest, InAContainerTheMountHasTheLimit) {
  set(".", 100 * kMiB, 0, 0);
  cgroups_.note("/");
  set(".", 100 * kMiB, 1, 1);
  const auto look = cgroups_.look("/", 1);
  EXPECT_EQ(look.kills, 1U);
  EXPECT_EQ(look.why.limit, "/");
}

TEST_F(MemoryCgroupsTest, WithoutAGroupThatWasShortItIsTheMachine) {
  set("pod/app", 0, 0, 4);
  EXPECT_EQ(cgroups_.look("/pod/app", 1).why.limit, kMachine);
}

TEST_F(MemoryCgroupsTest, OfAGroupThatIsGoneItIsTheLeastLimit) {
  std::filesystem::remove_all(mount_ / "pod");
  const auto look = cgroups_.look("/pod/app", 1);
  EXPECT_EQ(look.kills, 0U);
  EXPECT_EQ(look.why.limit, "/pod");
  EXPECT_EQ(look.why.limit_bytes, 100 * kMiB);
}

TEST_F(MemoryCgroupsTest, OfWhatEndedWithinARoundTheLargestWasPerhapsChosen) {
  std::vector<ProcessCopies> processes(4);
  for (std::uint64_t i = 0; i < processes.size(); ++i) {
    processes[i].pid = static_cast<pid_t>(i + 1);
    processes[i].alive = true;
    processes[i].cgroup = "/pod/app";
    processes[i].pss = {(i + 1) * kMiB, 0, 1};
  }
  std::vector<ProcessCopies*> all;
  for (ProcessCopies& each : processes) all.push_back(&each);
  cgroups_.guess(all, 1);
  processes[0].alive = processes[2].alive = false;
  set("pod/app", 0, 1, 4);
  cgroups_.guess(all, 2);
  cgroups_.guess(all, 3);
  EXPECT_FALSE(processes[0].out_of_memory) << "one was killed";
  EXPECT_FALSE(processes[3].out_of_memory) << "it runs";
  ASSERT_TRUE(processes[2].out_of_memory);
  EXPECT_FALSE(processes[2].out_of_memory->is_sure);
  const std::vector<MemoryHolder> holders = {
      {4, "", 4 * kMiB}, {3, "", 3 * kMiB}, {2, "", 2 * kMiB}};
  EXPECT_EQ(processes[2].out_of_memory->holders, holders);
}

}  // namespace
}  // namespace cowshed::cow
