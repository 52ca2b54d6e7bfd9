#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <vector>

#include "channel_parties.h"
#include "channel_tree.h"
#include "every_method.h"

// Four senders and four receivers, started by fork, spawn and a forkserver of a process that owns
// the channel; at random moments some of them, the forkserver or the owner are killed, or stopped
// and continued, and others take their place.  What must hold, as the design has it:
//
//   "kill -9 of any party at any instruction leaves the others working: what was sent is received
//   at most once, and exactly once unless its receiver was killed with it in hand (at most one
//   message per killed receiver, counted and named); what was being written is dropped whole;
//   waiters wake.  While a stopped process holds a lock, timed forms return `peer_stopped` and
//   blocking ones wait and can be interrupted; after SIGCONT nothing is lost or doubled."
//
// and, when all are gone, no memory, descriptor, process or file is left.
namespace cowshed::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMoments = 20;  // of each test
constexpr int kMomentsOfTree = 10;
#else
constexpr int kMoments = 250;
constexpr int kMomentsOfTree = 25;
#endif

// What is in a directory of /proc, whose process may end meanwhile.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> entries;
  std::error_code gone;
  for (std::filesystem::directory_iterator entry(directory, gone);
       !gone && entry != std::filesystem::directory_iterator(); entry.increment(gone)) {
    entries.push_back(entry->path());
  }
  return entries;
}

// Of all processes, those that have such a memfd open or mapped.
std::string holders_of(const std::string& memfd) {
  std::string holders;
  for (const auto& process : entries_of("/proc")) {
    bool holds = false;
    for (const auto& descriptor : entries_of(process / "fd")) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(descriptor, gone);
      holds = holds || target.native().find(memfd) != std::string::npos;
    }
    std::ifstream maps(process / "maps");
    for (std::string line; std::getline(maps, line);) {
      holds = holds || line.find(memfd) != std::string::npos;
    }
    holders += holds ? process.string() + " " : "";
  }
  return holders;
}

template <class Traffic>
class ChannelRandomKill : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    std::filesystem::create_directory(directory_);
    std::filesystem::current_path(directory_);
  }
  void TearDown() override {
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    EXPECT_TRUE(std::filesystem::is_empty(directory_));
    std::filesystem::current_path("/");
    std::filesystem::remove_all(directory_);
    EXPECT_EQ(open_descriptors(), descriptors_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
    EXPECT_EQ(holders_of(channel_name()), "");
  }

 private:
  std::size_t descriptors_ = open_descriptors();
  std::filesystem::path directory_ = std::filesystem::temp_directory_path() / channel_name();
};

using Kinds = testing::Types<SingleValues, BatchedValues, AllBytes, Objects>;
class KindNames {
 public:
  template <class Traffic>
  static std::string GetName(int index) {  // NOLINT(readability-identifier-naming): gtest's
    return std::array{"Values", "Batches", "Bytes", "Objects"}.at(static_cast<std::size_t>(index));
  }
};
TYPED_TEST_SUITE(ChannelRandomKill, Kinds, KindNames);

// COWSHED_SEED chooses other moments; how the processes take turns is chance all the same.
std::uint64_t get_seed() {
  const char* seed = std::getenv("COWSHED_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

TYPED_TEST(ChannelRandomKill, LeavesTheOthersWorking) {
  Hits hits{.most = kMoments};
  int trees = 0;
  for (; hits.moments < kMoments && !this->HasFailure(); ++trees) {
    const std::uint64_t seed = get_seed() + static_cast<std::uint64_t>(trees);
    SCOPED_TRACE("COWSHED_SEED=" + std::to_string(seed));
    Tree<TypeParam>(seed, hits).run(kMomentsOfTree);
  }
  std::string killed;
  for (const auto& [who, count] : hits.killed) {
    killed += std::to_string(count) + " " + who + ", ";
  }
  std::printf(
      "%d moments in %d trees: killed %sstopped %d; of %llu messages %llu died with theirs\n",
      hits.moments, trees, killed.c_str(), hits.stopped, static_cast<unsigned long long>(hits.sent),
      static_cast<unsigned long long>(hits.lost));
}

}  // namespace
}  // namespace cowshed::test
