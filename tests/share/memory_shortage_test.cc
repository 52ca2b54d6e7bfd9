
#include "filled_arena.h"
#include "share.h"

namespace cowshed {
namespace {

using test::described;
using test::FilledArena;

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

std::size_t meminfo_kib(const std::string& key) { return test::kib_of("/proc/meminfo", key); }

TEST(MemoryShortage, OvercommitRefusedIsAnException) {
  const std::string mode = "/proc/sys/vm/overcommit_memory";
  std::optional<Setting> limit;
  std::optional<Setting> strict;
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") != nullptr) {
    limit.emplace("/proc/sys/vm/overcommit_kbytes",
                  std::to_string(meminfo_kib("Committed_AS") + 512_MiB / 1_KiB));
    strict.emplace(mode, "2");
  }
  if (read_line(mode) != "2")
    GTEST_SKIP() << "vm.overcommit_memory is not 2, and COWSHED_MAY_SET_SYSCTLS is not set";
  const std::size_t room = (meminfo_kib("CommitLimit") - meminfo_kib("Committed_AS")) * 1_KiB;
  const auto child = run_in_child([&]() -> std::string {
    FilledArena filled(room * 4);
    const Error error = filled.fill();
    const std::size_t bytes = filled.bytes();
    if (bytes < room / 4 || bytes > room)
      return std::to_string(bytes) + " bytes of " + std::to_string(room);
    return described(error) + ", " + filled.goes_on();
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
      if (own.empty() || mkdir(path_.c_str(), 0755) != 0) continue;
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
    if (inner_ != path_) rmdir(inner_.c_str());
    if (!path_.empty()) rmdir(path_.c_str());
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
      if (line.find(":memory:") != std::string::npos)
        result[0].first = "/sys/fs/cgroup/memory" + below;
      else if (line.starts_with("0::")) result[1].first = "/sys/fs/cgroup" + below;
    }
    return result;
  }

  std::string path_;
  std::string inner_;
  bool usable_ = false;
};

constexpr std::size_t kLimit = 256_MiB;
constexpr std::size_t kLeast =
    test::kAddressSanitizer ? kLimit / 4 : kLimit / 10 * 8;  // shadow memory counts too

class MemoryShortageInAGroup : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (test::kThreadSanitizer)
      GTEST_SKIP() << "ThreadSanitizer's own memory, several times as much, meets the limit first";
    if (!group_.usable()) GTEST_SKIP() << "no memory controller here in which we may make a group";
  }

  // What a child in the group says.
  std::string in_group(const std::function<std::string()>& body) const {
    const auto child =
        run_in_child([&] { return group_.enter() ? body() : "the group cannot be entered"; });
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
    FilledArena filled(4_GiB);
    const Error error = filled.fill();
    const std::size_t used = filled->stats().used;
    if (filled.bytes() < kLeast || used > kLimit) {
      return std::to_string(filled.bytes()) + " bytes, " + std::to_string(used) +
             " used: " + error.message;
    }
    return described(error) + ", " + filled.goes_on();
  });
  EXPECT_EQ(said, "out_of_memory 0, fine");
}

// The copies that a lenient arena has, and those of the next generation, count too.
TEST_P(MemoryShortageInAGroup, IsAnErrorOfRefreeze) {
  const std::string said = in_group([]() -> std::string {
    FilledArena filled(96_MiB);
    (void)filled.fill();
    if (std::string going = filled.goes_on(FreezeMode::lenient); going != "fine") return going;
    filled.write_privately(80_MiB);
    const auto refused = filled->refreeze();
    if (refused) return "refrozen";
    if (!filled.reads_back() || *filled->private_bytes() < 80_MiB)
      return "not as before: " + refused.error().message;
    return described(refused.error());
  });
  EXPECT_EQ(said, "out_of_memory 0");
}

TEST_P(MemoryShortageInAGroup, IsAnErrorOfSend) {
  const std::string said = in_group([]() -> std::string {
    using Large = std::array<char, 4096>;
    const auto ring = Channel<Large>::create({.slots = std::size_t{1} << 20U});
    if (ring) return "a ring of 4 GiB";
    auto channel = Channel<Bytes>::create().value();
    const std::vector<std::byte> message(16_MiB, std::byte{1});
    auto sent = channel.send(message);
    while (sent) sent = channel.send(message);
    if (channel.stats().bytes_sent < kLeast / 2)
      return std::to_string(channel.stats().bytes_sent) + " bytes: " + sent.error().message;
    const bool whole = channel.try_receive()->size() == message.size();
    return described(ring.error()) + ", " + described(sent.error()) + ", " +
           (whole && channel.send(message) ? "fine" : "no more");
  });
  EXPECT_EQ(said, "out_of_memory 0, out_of_memory 0, fine");
}

}  // namespace
}  // namespace cowshed
