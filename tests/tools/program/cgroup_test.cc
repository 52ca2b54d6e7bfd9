#include <nlohmann/json.hpp>

#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/needs_probes.h>
#include <cowshed/tests/support/subprocess.h>

// The cgroup of a command in real ones: of a session and a service, as systemd makes them.
namespace cowshed::cowtop {
namespace {

namespace fs = std::filesystem;
using test::contents_of;
using test::Subprocess;

constexpr const char* kMount = "/sys/fs/cgroup";
constexpr std::uint64_t kMiB = 1 << 20;

bool gives_memory(const fs::path& cgroup) {
  return contents_of(cgroup / "cgroup.subtree_control").find("memory") != std::string::npos;
}
std::string fills_mib(std::uint64_t mib) {
  return std::string(COPY_SUBJECT) + " " + std::to_string(mib << 8U) + " 1 0";
}
std::string cgroup_of(pid_t pid) { return contents_of("/proc/" + std::to_string(pid) + "/cgroup"); }

class CowtopCgroup : public test::NeedsProbes {
 protected:
  void SetUp() override {
    if (!gives_memory(kMount) || ::geteuid() != 0)
      GTEST_SKIP() << "no memory controller of cgroup v2 in /sys/fs/cgroup";
    NeedsProbes::SetUp();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    for (int attempt = 0; attempt < 1000 && is_any_left(); ++attempt) ::usleep(10'000);
    EXPECT_FALSE(is_any_left());
    for (auto made = made_.rbegin(); made != made_.rend(); ++made) ::rmdir(made->c_str());
  }

  static bool is_any_left() {
    return std::ranges::any_of(fs::recursive_directory_iterator(kMount), [](const auto& entry) {
      return entry.path().filename().string().starts_with("cowtop-");
    });
  }
  void make(const fs::path& cgroup) {
    fs::path at = kMount;
    for (const fs::path& part : cgroup) {
      test::write_file(at / "cgroup.subtree_control", "+memory");
      if (fs::create_directory(at /= part)) made_.push_back(at);
    }
  }
  // The command prints to standard error: cowtop prints JSON to the other.
  static std::vector<std::string> cowtop(const std::string& command) {
    return {COWTOP, "--json", "--", "sh", "-c", "{ " + command + "; } >&2"};
  }
  static std::function<void()> in(const fs::path& cgroup) {
    return [cgroup] {
      test::write_file(kMount / cgroup / "cgroup.procs", std::to_string(::getpid()));
    };
  }
  static nlohmann::json memory_of(const test::Finished& finished) {
    return nlohmann::json::parse(finished.out).value("memory_cgroup", nlohmann::json());
  }

  const std::string pid_ = std::to_string(::getpid());
  const fs::path session_ = "user.slice/cowshed" + pid_ + ".slice/session-1.scope";
  const fs::path service_ = "system.slice/cowshed" + pid_ + ".service";

 private:
  std::vector<fs::path> made_;
};

TEST_F(CowtopCgroup, PeakIsOfAllProcessesAndFilesInMemory) {
  make(session_);
  const Subprocess shell({"sleep", "600"}, in(session_));
  const std::string file = "/dev/shm/cowshed" + pid_;
  const auto finished = test::run(
      cowtop("head -c 104857600 /dev/zero >" + file + "; " + fills_mib(200) + "; rm " + file),
      in(session_));
  const auto memory = memory_of(finished);
  ASSERT_TRUE(memory.is_object()) << finished.err;
  EXPECT_GT(memory["peak_bytes"], 300 * kMiB);
  EXPECT_LT(memory["peak_bytes"], 315 * kMiB);
  EXPECT_EQ(memory["oom_kills"], 0);
  EXPECT_FALSE(memory.contains("limit"));
}

TEST_F(CowtopCgroup, ASessionsLimitHoldsForTheCommand) {
  make(session_);
  const Subprocess shell({"sleep", "600"}, in(session_));
  test::write_file(kMount / session_ / "memory.high", "1000M");
  const auto finished = test::run(cowtop("cat /proc/self/cgroup"), in(session_));
  EXPECT_THAT(finished.err, HasSubstr(session_.string() + "\n"));
  EXPECT_TRUE(memory_of(finished).is_null());
}

TEST_F(CowtopCgroup, AServicesLimitKillsTheCommand) {
  make(service_);
  test::write_file(kMount / service_ / "memory.max", "400M");
  const auto finished = test::run(cowtop(fills_mib(500)), in(service_));
  const auto memory = memory_of(finished);
  ASSERT_TRUE(memory.is_object()) << finished.err;
  EXPECT_LE(memory["peak_bytes"], 400 * kMiB);
  EXPECT_GE(memory["oom_kills"], 1);
  EXPECT_EQ(memory["limit"], "/" + service_.string());
}

// The processes of a command go into a cgroup of 200 MiB; cowtop stays out of it.
class CowtopOutOfMemory : public test::NeedsProbes {
 protected:
  void SetUp() override {
    NeedsProbes::SetUp();
    is_v2_ = gives_memory(kMount);
    group_ = fs::path(kMount) / (is_v2_ ? "" : "memory") / name_;
    if (::mkdir(group_.c_str(), 0755) != 0)
      GTEST_SKIP() << "no memory controller in /sys/fs/cgroup that may be used";
    test::write_file(group_ / (is_v2_ ? "memory.max" : "memory.limit_in_bytes"), "200M");
  }
  void TearDown() override {
    for (int attempt = 0; ::rmdir(group_.c_str()) != 0 && errno == EBUSY && attempt < 1000;
         ++attempt)
      ::usleep(10'000);
  }
  // The process that was killed; null: none was.
  nlohmann::json killed(const char* backend) const {
    const auto finished =
        test::run({COWTOP, "--json", "--backend", backend, "--", "sh", "-c",
                   "echo $$ >" + (group_ / "cgroup.procs").string() + "; sleep 0.3; { " +
                       fills_mib(500) + "; sleep 0.3; } >&2"});
    const auto report = nlohmann::json::parse(finished.out);
    for (const auto& process : report["processes"])
      if (process.contains("out_of_memory")) return process;
    return nullptr;
  }

  const std::string name_ = "cowshed-oom-" + std::to_string(::getpid());
  fs::path group_;
  bool is_v2_ = false;
};

TEST_F(CowtopOutOfMemory, NamesTheLimitWhoAskedAndWhoHeldMost) {
  const auto process = killed("tracepoint");
  ASSERT_TRUE(process.is_object());
  EXPECT_EQ(process["comm"], "copy_subject");
  EXPECT_EQ(process["signal"], SIGKILL);
  EXPECT_EQ(process["sender"]["pid"], process["pid"]);
  const auto& why = process["out_of_memory"];
  EXPECT_EQ(why["sure"], true);
  if (is_v2_) {
    EXPECT_EQ(why["limit"], "/" + name_);
    EXPECT_EQ(why["limit_bytes"], 200 * kMiB);
  }
  EXPECT_EQ(why["holders"][0]["comm"], "copy_subject");
  EXPECT_GT(why["holders"][0]["bytes"], 150 * kMiB);
  EXPECT_LE(why["holders"][0]["bytes"], 210 * kMiB);
}

TEST_F(CowtopOutOfMemory, TheSampledBackendTakesItFromTheCgroupsCount) {
  if (!is_v2_) GTEST_SKIP() << "no memory controller of cgroup v2 in /sys/fs/cgroup";
  const auto process = killed("pagemap");
  ASSERT_TRUE(process.is_object());
  EXPECT_EQ(process["comm"], "copy_subject");
  EXPECT_EQ(process["out_of_memory"]["sure"], false);
  EXPECT_EQ(process["out_of_memory"]["limit"], "/" + name_);
}

// TearDown() looks whether a cgroup is left.
TEST_F(CowtopCgroup, WhatOutlivesItGoesBackHoweverItEnds) {
  make(service_);
  make(session_);
  const Subprocess shell({"sleep", "600"}, in(session_));
  for (const fs::path& own : {session_, service_}) {
    for (const int signal : {SIGINT, SIGKILL, 0}) {
      SCOPED_TRACE(own.string() + " " + std::to_string(signal));
      const std::string waits = signal == 0 ? "" : "; exec sleep 600";
      Subprocess run(cowtop("setsid sleep 600 & echo $! $$ ready" + waits), in(own));
      pid_t daemon = 0;
      pid_t command = 0;
      std::istringstream(run.read_until("ready").err) >> daemon >> command;
      EXPECT_THAT(cgroup_of(daemon), HasSubstr("cowtop-"));
      if (signal != 0) ::kill(run.pid(), signal);
      const std::string back = "0::/" + own.string() + "\n";
      for (int attempt = 0; attempt < 1000 && cgroup_of(daemon) != back; ++attempt)
        ::usleep(10'000);
      EXPECT_EQ(cgroup_of(daemon), back);
      EXPECT_FALSE(gives_memory(kMount / own));
      ::kill(daemon, SIGKILL);
      if (signal == SIGKILL) ::kill(command, SIGKILL);
      run.finish();
    }
  }
}

}  // namespace
}  // namespace cowshed::cowtop
