#include <cowshed/tests/share/arena/filled_arena.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/folder.h>

namespace cowshed {
namespace {

using test::described;
using test::FilledArena;

std::size_t meminfo_kib(const std::string& key) { return test::figure_of("/proc/meminfo", key); }

TEST(MemoryShortage, OvercommitRefusedIsAnException) {
  const std::string mode = "/proc/sys/vm/overcommit_memory";
  std::optional<test::Setting> limit;
  std::optional<test::Setting> strict;
  if (std::getenv("COWSHED_MAY_SET_SYSCTLS") != nullptr) {
    limit.emplace("/proc/sys/vm/overcommit_kbytes",
                  std::to_string(meminfo_kib("Committed_AS") + 512_MiB / 1_KiB));
    strict.emplace(mode, "2");
  }
  if (test::contents_of(mode) != "2\n")
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

constexpr std::size_t kLimit = 256_MiB;
constexpr std::size_t kLeast =
    test::kAddressSanitizer ? kLimit / 4 : kLimit / 10 * 8;  // shadow memory counts too

class MemoryShortageInAGroup : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (test::kThreadSanitizer)
      GTEST_SKIP() << "ThreadSanitizer's own memory, several times as much, meets the limit first";
    const auto child = run_in_child([] { return limit_memory().missing(); });
    if (!child.said.empty()) GTEST_SKIP() << child.said;
  }

  // What a child says in a group with the limit, or in one below it.
  static std::string in_group(const std::function<std::string()>& body) {
    const auto child = run_in_child([&] {
      const test::Conditions limit = limit_memory();
      const std::string inner = limit.cgroup() + "/inner";
      if (GetParam()) mkdir(inner.c_str(), 0755);
      const auto member = run_in_child([&]() -> std::string {
        if (GetParam() && !(std::ofstream(inner + "/cgroup.procs") << 0 << std::flush))
          return "the group cannot be entered";
        return body();
      });
      rmdir(inner.c_str());
      return member.said;
    });
    EXPECT_EQ(child.signal, 0);
    return child.said;
  }

 private:
  static test::Conditions limit_memory() {
    return {test::Needs::memory_limit, (kLimit - 32_MiB) / 8_KiB};
  }
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

// Eight threads fill arenas until each is refused.
std::string fill_side_by_side(std::size_t least, std::size_t count) {
  constexpr std::size_t kBlock = 64_KiB;
  std::vector<Arena> arenas;
  while (arenas.size() < count) arenas.push_back(make_arena(4_GiB));
  std::atomic<std::size_t> taken = 0;
  std::atomic<int> refused = 0;
  begin_threads(std::size_t{8}, [&](std::size_t self) {
    const Error error = test::refusal_of([&] {
      for (;; taken += kBlock) std::memset(arenas[self % count].allocate(kBlock), 1, kBlock);
    });
    refused += error.code == ErrorCode::out_of_memory ? 1 : 0;
  }).clear();
  std::size_t used = 0;
  bool are_frozen = true;
  for (Arena& arena : arenas) {
    used += arena.stats().used;
    are_frozen = are_frozen && arena.freeze().has_value();
  }
  if (taken < least || used > kLimit)
    return std::to_string(taken) + " bytes, " + std::to_string(used) + " used";
  return std::to_string(refused) + (are_frozen ? " refused, fine" : " refused");
}

TEST_P(MemoryShortageInAGroup, OfManyThreadsIsAnExceptionOfEachBelowTheLimit) {
  const std::string said = in_group([]() -> std::string {
    std::string filled = fill_side_by_side(kLeast, 1);
    constexpr std::size_t kLeft = 16_MiB;
    const std::vector<char> others(kLeast - kLeft, 1);
    std::size_t rounds = test::little_or(std::size_t{3}, std::size_t{2'500});
    for (; rounds > 0 && filled == "8 refused, fine"; --rounds)
      filled = fill_side_by_side(kLeft / 2, 1 + rounds % 3);
    return filled;
  });
  EXPECT_EQ(said, "8 refused, fine");
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

// Sends until that fails, receives some, and sends again.
std::string fill(auto channel, const auto& message, std::size_t received) {
  auto sent = channel.send(message);
  while (sent) sent = channel.send(message);
  if (channel.stats().bytes_sent < kLeast / 2)
    return std::to_string(channel.stats().bytes_sent) + " bytes: " + sent.error().message;
  bool is_whole = true;
  for (std::size_t i = 0; i < received; ++i)
    is_whole = is_whole && channel.try_receive()->size() == message.size();
  return described(sent.error()) + (is_whole && channel.send(message) ? ", fine" : ", no more");
}

TEST_P(MemoryShortageInAGroup, IsAnErrorOfSend) {
  EXPECT_EQ(in_group([]() -> std::string {
              const std::vector<std::byte> message(16_MiB, std::byte{1});
              return fill(Channel<Bytes>::create().value(), message, 1);
            }),
            "out_of_memory 0, fine");
}

TEST_P(MemoryShortageInAGroup, IsAnErrorOfSendToALargeRing) {
  EXPECT_EQ(in_group([]() -> std::string {
              constexpr std::size_t kSlots = 1 << 20;  // 4 GiB
              using Large = std::array<char, 4096>;
              constexpr std::size_t kOfAChunk = kSlots / 256;
              return fill(Channel<Large>::create({.slots = kSlots}).value(), Large{1}, kOfAChunk);
            }),
            "out_of_memory 0, fine");
}

}  // namespace
}  // namespace cowshed
