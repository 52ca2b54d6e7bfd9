#include <cowshed/base/memory_limits.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/share/environment.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {

using namespace internal;

namespace {

// A machine's cgroups, and what a process's /proc says of them.
class MemoryLimitsTest : public testing::Test {
 protected:
  void SetUp() override {
    put("proc/cgroup", "");
    put("proc/mountinfo", "");
  }

  void put(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::app) << text;
  }
  void put_v1(const std::string& group, std::size_t limit, std::size_t usage,
              std::size_t cache = 0) const {
    put(group + "/memory.limit_in_bytes", std::to_string(limit) + "\n");
    put(group + "/memory.usage_in_bytes", std::to_string(usage) + "\n");
    put(group + "/memory.stat", "cache 1\ninactive_file 5\nactive_file 5\ntotal_inactive_file " +
                                    std::to_string(cache) + "\ntotal_active_file 0\n");
  }
  void put_v2(const std::string& group, const std::string& limit, std::size_t usage,
              std::size_t inactive = 0, std::size_t active = 0) const {
    put(group + "/memory.max", limit + "\n");
    put(group + "/memory.current", std::to_string(usage) + "\n");
    put(group + "/memory.stat", "anon 7\nfile 9\ninactive_file " + std::to_string(inactive) +
                                    "\nactive_file " + std::to_string(active) + "\n");
  }
  // As in /proc/PID/mountinfo: `part` of the hierarchy is shown at `point`.
  void mount(const std::string& part, const std::string& point, const std::string& rest) const {
    put("proc/mountinfo", "31 23 0:28 " + part + " " + root_ + "/" + point +
                              " rw,relatime shared:1 - " + rest + "\n");
  }
  void use_v2(const std::string& group) const {
    put("proc/cgroup", "0::" + group + "\n");
    mount("/", "cg", "cgroup2 cgroup2 rw,nsdelegate");
  }
  std::size_t headroom() const { return MemoryLimits::of_this_process(root_ + "/proc").headroom(); }

  const test::Folder folder_;
  const std::string root_ = folder_.path();
};

constexpr std::size_t kUnlimitedInV1 = 9223372036854771712U;

TEST_F(MemoryLimitsTest, WithoutGroupsNothingIsLimited) {
  EXPECT_EQ(headroom(), MemoryLimits::kUnlimited);
  EXPECT_EQ(MemoryLimits::of_this_process(root_ + "/absent").headroom(), MemoryLimits::kUnlimited);
  EXPECT_EQ(MemoryLimits().headroom(), MemoryLimits::kUnlimited);
}

TEST_F(MemoryLimitsTest, WithoutFilesNothingIsLimited) {
  use_v2("/job");
  EXPECT_EQ(headroom(), MemoryLimits::kUnlimited);
  put("cg/job/memory.max", "100\n");  // and no usage
  EXPECT_EQ(headroom(), MemoryLimits::kUnlimited);
  put("cg/job/memory.current", "60\n");  // and no cache
  EXPECT_EQ(headroom(), 40U);
}

TEST_F(MemoryLimitsTest, VersionOne) {
  put("proc/cgroup", "9:name=systemd:/\n4:cpu,memory:/job\n3:cpuset:/other\n");
  mount("/", "cpuset", "cgroup cgroup rw,cpuset");
  mount("/", "cg", "cgroup cgroup rw,cpu,memory");
  put_v1("cg", kUnlimitedInV1, 5_GiB);
  EXPECT_EQ(headroom(), MemoryLimits::kUnlimited);
  put_v1("cg/job", 256_MiB, 100_MiB, 30_MiB);
  EXPECT_EQ(headroom(), 186_MiB);
}

TEST_F(MemoryLimitsTest, VersionTwo) {
  use_v2("/a/job");
  put_v2("cg/a/job", "max", 100_MiB);
  EXPECT_EQ(headroom(), MemoryLimits::kUnlimited);
  put_v2("cg/a", std::to_string(256_MiB), 100_MiB, 20_MiB, 10_MiB);
  EXPECT_EQ(headroom(), 186_MiB);
}

TEST_F(MemoryLimitsTest, TheTightestOfAllGroupsAbove) {
  use_v2("/a/b/c");
  put_v2("cg/a/b/c", std::to_string(90_MiB), 10_MiB);
  put_v2("cg/a/b", std::to_string(200_MiB), 190_MiB);
  put_v2("cg/a", "max", 1_GiB);
  EXPECT_EQ(headroom(), 10_MiB);
}

TEST_F(MemoryLimitsTest, AboveTheLimitThereIsNothing) {
  use_v2("/a");
  put_v2("cg/a", std::to_string(10_MiB), 11_MiB);
  EXPECT_EQ(headroom(), 0U);
}

TEST_F(MemoryLimitsTest, MoreCacheThanUsageCountsAsNoUsage) {
  use_v2("/a");
  put_v2("cg/a", std::to_string(10_MiB), 1_MiB, 2_MiB);
  EXPECT_EQ(headroom(), 10_MiB);
}

// The kernel changes these all the time.
TEST_F(MemoryLimitsTest, FollowsTheFiles) {
  use_v2("/a");
  put_v2("cg/a", std::to_string(10_MiB), 1_MiB);
  const MemoryLimits limits = MemoryLimits::of_this_process(root_ + "/proc");
  EXPECT_EQ(limits.headroom(), 9_MiB);
  std::ofstream(root_ + "/cg/a/memory.current") << 3_MiB;
  EXPECT_EQ(limits.headroom(), 7_MiB);
}

TEST_F(MemoryLimitsTest, BothVersionsAtOnce) {
  put("proc/cgroup", "4:memory:/job\n0::/unit\n");
  mount("/", "unified", "cgroup2 cgroup2 rw");
  mount("/", "memory", "cgroup cgroup rw,memory");
  put_v1("memory/job", 50_MiB, 10_MiB);
  EXPECT_EQ(headroom(), 40_MiB);
  put_v2("unified/unit", std::to_string(30_MiB), 10_MiB);
  EXPECT_EQ(headroom(), 20_MiB);
}

// A container without a cgroup namespace: the process's group is named as on the host, and the
// mount shows the hierarchy from there on.
TEST_F(MemoryLimitsTest, AMountOfAPart) {
  put("proc/cgroup", "4:memory:/docker/abc/job\n");
  mount("/docker/abc", "cg", "cgroup cgroup rw,memory");
  put_v1("cg", 100_MiB, 10_MiB);
  put_v1("cg/job", 80_MiB, 10_MiB);
  put_v1("cg/docker/abc/job", 1_MiB, 0);  // not ours
  EXPECT_EQ(headroom(), 70_MiB);
}

TEST_F(MemoryLimitsTest, AMountOfAPartWhoseNameBeginsTheSame) {
  put("proc/cgroup", "4:memory:/docker/abcdef\n");
  mount("/docker/abc", "other", "cgroup cgroup rw,memory");
  mount("/docker/abcdef", "cg", "cgroup cgroup rw,memory");
  put_v1("other", 1_MiB, 0);
  put_v1("otherdef", 2_MiB, 0);
  put_v1("cg", 100_MiB, 10_MiB);
  EXPECT_EQ(headroom(), 90_MiB);
}

// Its parent's groups are above the namespace's, and cannot be seen.
TEST_F(MemoryLimitsTest, TheRootOfANamespace) {
  use_v2("/");
  put_v2("cg", std::to_string(100_MiB), 10_MiB);
  EXPECT_EQ(headroom(), 90_MiB);
}

// As of a process in a container, whose own mounts show its group elsewhere.
TEST_F(MemoryLimitsTest, OfAnotherProcessByOurMounts) {
  use_v2("/a/b");
  put_v2("cg/a", "1000", 100);
  put("container/cgroup", "0::/a/b\n");
  put("container/mountinfo", "31 23 0:28 /a/b /nowhere rw - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(MemoryLimits::of_process(root_ + "/container", root_ + "/proc").headroom(), 900U);
}

TEST_F(MemoryLimitsTest, ASpaceInAMountPoint) {
  put("proc/cgroup", "0::/my job\n");
  mount("/", "my\\040groups\\134", "cgroup2 cgroup2 rw");
  put_v2("my groups\\/my job", std::to_string(100_MiB), 10_MiB);
  EXPECT_EQ(headroom(), 90_MiB);
}

TEST(Environment, AFileSizeLimitIsFoundByTheCheck) {
  const auto child = test::run_in_child([] {
    const rlimit limit = {1, 1};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string said;
    for (const RefusedCall& each : check_environment())
      if (each.error == EFBIG) said += each.call;
    return said;
  });
  EXPECT_EQ(child.said, "ftruncate") << "signal " << child.signal;
}

}  // namespace
}  // namespace cowshed
