#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>

#include "child.h"
#include "system_call_failures.h"

namespace cowshed {
namespace {

constexpr std::size_t kBlock = 64_KiB;

// An arena that is filled until there is no more, block by block.
class Filled {
 public:
  explicit Filled(std::size_t capacity)
      : arena_(Arena::create({.name = "subject", .capacity = capacity}).value()) {}

  Arena& arena() { return arena_; }
  std::size_t bytes() const { return blocks_.size() * kBlock; }

  // Why it ended.
  Error fill() {
    for (;;) {
      try {
        auto* block = static_cast<unsigned char*>(arena_.allocate(kBlock, 4096));
        std::memset(block, mark(blocks_.size()), kBlock);
        blocks_.push_back(block);
      } catch (const ArenaBadAlloc& failure) {
        return failure.error();
      }
    }
  }

  bool reads_back() const {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i][0] != mark(i) || std::memcmp(blocks_[i], blocks_[i] + 1, kBlock - 1) != 0) {
        return false;
      }
    }
    return true;
  }

  // What the shortage must not have broken: "fine", or what it has.
  std::string goes_on(FreezeMode mode) {
    for (int i = 0; i < 16; ++i) {
      arena_.deallocate(blocks_.back(), kBlock, 4096);
      blocks_.pop_back();
    }
    auto* block = static_cast<unsigned char*>(arena_.allocate(kBlock, 4096));
    std::memset(block, mark(blocks_.size()), kBlock);
    blocks_.push_back(block);
    if (!reads_back()) {
      return "other bytes";
    }
    if (auto frozen = arena_.freeze(mode); !frozen) {
      return frozen.error().message;
    }
    return reads_back() ? "fine" : "other bytes when frozen";
  }

  // Writes to every frozen page: private copies.
  void write_privately(std::size_t bytes) {
    for (std::size_t i = 0; i * kBlock < bytes; ++i) {
      std::memset(blocks_[i], mark(i), kBlock);
    }
  }

 private:
  static unsigned char mark(std::size_t number) {
    return static_cast<unsigned char>(number * 7 + 1);
  }

  Arena arena_;
  std::vector<unsigned char*> blocks_;
};

std::string described(const Error& error) {
  return std::string(to_string(error.code)) + " " + std::to_string(error.system_errno);
}

TEST(MemoryShortage, OfCapacityLeavesTheArenaGood) {
  Filled filled(64_MiB);
  const Error error = filled.fill();
  EXPECT_EQ(error.code, ErrorCode::capacity_exceeded) << error.message;
  EXPECT_GT(filled.bytes(), 56_MiB);
  EXPECT_EQ(filled.fill().code, ErrorCode::capacity_exceeded);
  EXPECT_EQ(filled.goes_on(FreezeMode::strict), "fine");
}

TEST(MemoryShortage, OfAddressSpaceIsAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer needs more address space than any limit";
#endif
  const auto child = test::run_in_child([]() -> std::string {
    const rlimit limit = {4_GiB, 4_GiB};
    setrlimit(RLIMIT_AS, &limit);
    const auto arena = Arena::create({.name = "subject", .capacity = 8_GiB});
    if (arena) {
      return "created";
    }
    return described(arena.error()) +
           (Arena::create({.name = "small", .capacity = 1_GiB}) ? "" : "!");
  });
  EXPECT_EQ(child.said, "system_call " + std::to_string(ENOMEM));
}

// What the file system says when the kernel has no more pages, under vm.overcommit_memory=2 or at a
// tmpfs's limit.
TEST(MemoryShortage, OfPagesIsAnExceptionAndPasses) {
  for (const int refusal : {ENOSPC, ENOMEM}) {
    const auto child = test::run_in_child([&]() -> std::string {
      if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
        return "skip: " + reason;
      }
      Filled filled(256_MiB);
      int granted = 0;
      test::decide_system_calls([&](const test::SystemCall& call) {
        return call.number == SYS_fallocate && ++granted > 20 ? refusal : 0;
      });
      const Error error = filled.fill();
      // Asking often must not use up the capacity.
      for (int i = 0; i < 100; ++i) {
        try {
          (void)filled.arena().allocate(16_MiB, 4096);
          return "allocated";
        } catch (const ArenaBadAlloc& failure) {
          if (failure.error().code != ErrorCode::out_of_memory) {
            return "attempt " + std::to_string(i) + ": " + failure.error().message;
          }
        }
      }
      const bool whole = filled.reads_back();
      test::decide_system_calls(nullptr);
      const Error later = filled.fill();
      if (!whole || filled.bytes() < 200_MiB) {
        return std::to_string(filled.bytes()) + " bytes later" + (whole ? "" : ", and others");
      }
      return described(error) + ", later " + described(later) + ", " +
             filled.goes_on(FreezeMode::strict);
    });
    if (child.said.starts_with("skip: ")) {
      GTEST_SKIP() << child.said;
    }
    EXPECT_EQ(child.said,
              "out_of_memory " + std::to_string(ENOMEM) + ", later capacity_exceeded 0, fine");
  }
}

TEST(MemoryShortage, OfPagesIsAnErrorOfAChannel) {
  const auto child = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    auto channel = Channel<Bytes>::create().value();
    test::decide_system_calls(
        [](const test::SystemCall& call) { return call.number == SYS_fallocate ? ENOSPC : 0; });
    const auto created = Channel<Bytes>::create();
    const auto buffer = channel.buffer(1_MiB);
    const auto sent = channel.send(std::vector<std::byte>(1000));
    test::decide_system_calls(nullptr);
    return created || buffer || sent
               ? "success"
               : described(created.error()) + ", " + described(buffer.error()) + ", " +
                     described(sent.error()) + ", outstanding " +
                     std::to_string(channel.stats().outstanding);
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "out_of_memory 28, out_of_memory 28, out_of_memory 28, outstanding 0");
}

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// One setting of the machine, changed for a while.
class Setting {
 public:
  Setting(std::string path, const std::string& value)
      : path_(std::move(path)), before_(read_line(path_)) {
    std::ofstream(path_) << value << std::flush;
  }
  ~Setting() { std::ofstream(path_) << before_ << std::flush; }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  std::string path_;
  std::string before_;
};

std::size_t meminfo_kib(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) {
      return std::strtoull(line.c_str() + key.size() + 1, nullptr, 10);
    }
  }
  return 0;
}

TEST(MemoryShortage, OvercommitRefusedIsAnException) {
  const std::string mode = "/proc/sys/vm/overcommit_memory";
  std::optional<Setting> limit;
  std::optional<Setting> strict;
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") != nullptr) {
    limit.emplace("/proc/sys/vm/overcommit_kbytes",
                  std::to_string(meminfo_kib("Committed_AS") + 512_MiB / 1_KiB));
    strict.emplace(mode, "2");
  }
  if (read_line(mode) != "2") {
    GTEST_SKIP() << "vm.overcommit_memory is not 2, and COWSHED_MAY_SET_SYSCTLS is not set";
  }
  const std::size_t room = (meminfo_kib("CommitLimit") - meminfo_kib("Committed_AS")) * 1_KiB;
  const auto child = test::run_in_child([&]() -> std::string {
    Filled filled(room * 4);
    const Error error = filled.fill();
    const std::size_t bytes = filled.bytes();
    if (bytes < room / 4 || bytes > room) {
      return std::to_string(bytes) + " bytes of " + std::to_string(room);
    }
    return described(error) + ", " + filled.goes_on(FreezeMode::strict);
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_EQ(child.said, "out_of_memory " + std::to_string(ENOMEM) + ", fine");
}

// A cgroup of its own with a limit, and perhaps one below it, where there is a controller and we
// may.
class MemoryGroup {
 public:
  MemoryGroup(std::size_t limit, bool nested) {
    for (const auto& [own, limit_file] : hierarchies()) {
      path_ = own + "/cowshed_test_" + std::to_string(getpid());
      if (own.empty() || mkdir(path_.c_str(), 0755) != 0) {
        continue;
      }
      std::ofstream(path_ + "/" + limit_file) << limit << std::flush;
      if (read_line(path_ + "/" + limit_file) == std::to_string(limit)) {
        inner_ = nested ? path_ + "/inner" : path_;
        usable_ = !nested || mkdir(inner_.c_str(), 0755) == 0;
        return;
      }
      rmdir(path_.c_str());
    }
    path_.clear();
  }
  ~MemoryGroup() {
    if (inner_ != path_) {
      rmdir(inner_.c_str());
    }
    if (!path_.empty()) {
      rmdir(path_.c_str());
    }
  }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  bool usable() const { return usable_; }
  bool gone() const { return access(path_.c_str(), F_OK) != 0; }

  // Of the calling process.
  bool enter() const {
    std::ofstream file(inner_ + "/cgroup.procs");
    file << 0 << std::flush;
    return static_cast<bool>(file);
  }

 private:
  // This process's group in both versions, and the name of its limit there.
  static std::array<std::pair<std::string, const char*>, 2> hierarchies() {
    std::array<std::pair<std::string, const char*>, 2> result = {
        {{"", "memory.limit_in_bytes"}, {"", "memory.max"}}};
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const std::string group = line.substr(line.find(':', line.find(':') + 1) + 1);
      const std::string below = group == "/" ? "" : group;
      if (line.find(":memory:") != std::string::npos) {
        result[0].first = "/sys/fs/cgroup/memory" + below;
      } else if (line.starts_with("0::")) {
        result[1].first = "/sys/fs/cgroup" + below;
      }
    }
    return result;
  }

  std::string path_;
  std::string inner_;
  bool usable_ = false;
};

constexpr std::size_t kLimit = 256_MiB;
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kLeast = kLimit / 4;  // shadow memory counts too
#else
constexpr std::size_t kLeast = kLimit / 10 * 8;
#endif

class MemoryShortageInAGroup : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer's own memory, several times as much, meets the limit first";
#endif
    if (!group_.usable()) {
      GTEST_SKIP() << "no memory controller here in which we may make a group";
    }
  }

  // What a child in the group says.
  std::string in_group(const std::function<std::string()>& body) const {
    const auto child =
        test::run_in_child([&] { return group_.enter() ? body() : "the group cannot be entered"; });
    EXPECT_EQ(child.signal, 0);
    return child.said;
  }

 private:
  const MemoryGroup group_{kLimit, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Groups, MemoryShortageInAGroup, testing::Bool(),
                         [](const auto& test) { return test.param ? "Nested" : "Single"; });

TEST_P(MemoryShortageInAGroup, IsAnExceptionBelowTheLimit) {
  const std::string said = in_group([]() -> std::string {
    Filled filled(4_GiB);
    const Error error = filled.fill();
    const std::size_t used = filled.arena().stats().used;
    if (filled.bytes() < kLeast || used > kLimit) {
      return std::to_string(filled.bytes()) + " bytes, " + std::to_string(used) +
             " used: " + error.message;
    }
    return described(error) + ", " + filled.goes_on(FreezeMode::strict);
  });
  EXPECT_EQ(said, "out_of_memory 0, fine");
}

// The copies that a lenient arena has, and those of the next generation, count too.
TEST_P(MemoryShortageInAGroup, IsAnErrorOfRefreeze) {
  const std::string said = in_group([]() -> std::string {
    Filled filled(96_MiB);
    (void)filled.fill();
    if (std::string going = filled.goes_on(FreezeMode::lenient); going != "fine") {
      return going;
    }
    filled.write_privately(80_MiB);
    const auto refused = filled.arena().refreeze();
    if (refused) {
      return "refrozen";
    }
    if (!filled.reads_back() || *filled.arena().private_bytes() < 80_MiB) {
      return "not as before: " + refused.error().message;
    }
    return described(refused.error());
  });
  EXPECT_EQ(said, "out_of_memory 0");
}

TEST_P(MemoryShortageInAGroup, IsAnErrorOfSend) {
  const std::string said = in_group([]() -> std::string {
    using Large = std::array<char, 4096>;
    const auto ring = Channel<Large>::create({.slots = std::size_t{1} << 20U});
    if (ring) {
      return "a ring of 4 GiB";
    }
    auto channel = Channel<Bytes>::create().value();
    const std::vector<std::byte> message(16_MiB, std::byte{1});
    auto sent = channel.send(message);
    while (sent) {
      sent = channel.send(message);
    }
    if (channel.stats().bytes_sent < kLeast / 2) {
      return std::to_string(channel.stats().bytes_sent) + " bytes: " + sent.error().message;
    }
    const bool whole = channel.try_receive()->size() == message.size();
    return described(ring.error()) + ", " + described(sent.error()) + ", " +
           (whole && channel.send(message) ? "fine" : "no more");
  });
  EXPECT_EQ(said, "out_of_memory 0, out_of_memory 0, fine");
}

}  // namespace
}  // namespace cowshed
