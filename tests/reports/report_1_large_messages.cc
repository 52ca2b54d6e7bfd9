// The report: sending 2 GiB or more between processes dies with struct.error: 'i' format requires
// -2147483648 <= number <= 2147483647, or deadlocks because the error is raised in a helper thread.

#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

constexpr std::uint64_t kSize = 2_GiB + 1;  // one more than what the old header could say

class LargeMessages : public testing::Test {
 protected:
  void SetUp() override {
    const std::size_t available = test::figure_of("/proc/meminfo", "MemAvailable") * 1_KiB;
    if (available < 10_GiB)
      GTEST_SKIP() << "needs 10 GiB of memory, " << available / 1_MiB << " MiB are available";
  }
};

TEST_F(LargeMessages, WithCowshedAMovedBuffer) {
  auto channel = make<Bytes>({.name = "large", .memory = 3_GiB});
  auto results = make<std::uint64_t>({.name = "results"});
  const auto receive = [&] {
    const std::uint64_t before = test::figure_of("/proc/self/status", "RssAnon");
    const auto message = channel.receive().value();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < message.size(); i += 4096)
      sum += static_cast<std::uint64_t>(message.data()[i]);
    const std::uint64_t grown = test::figure_of("/proc/self/status", "RssAnon") - before;
    return results.send(message.size()) && results.send(sum) && results.send(grown) ? 0 : 1;
  };
  auto worker = start({.name = "receiver"}, receive).value();
  auto buffer = channel.loan(kSize).value();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kSize; i += 4096) {
    buffer.data()[i] = static_cast<std::byte>(i >> 12U);
    sum += i >> 12U & 0xffU;
  }
  ASSERT_TRUE(std::move(buffer).commit());
  EXPECT_EQ(results.receive().value(), kSize);
  EXPECT_EQ(results.receive().value(), sum);
  const std::uint64_t grown = results.receive().value();
  ASSERT_TRUE(worker.wait().value().at(0).ok());
  EXPECT_LT(grown, 16_MiB / 1_KiB) << "mapped, not copied";
  EXPECT_EQ(sent_by("large").moved.bytes, kSize);
  EXPECT_EQ(sent_by("large").by_value.bytes, 0U);
}

TEST_F(LargeMessages, WithCowshedAReference) {
  constexpr std::uint64_t kBytes = 512_MiB;  // of any size it is the same 16 bytes
  Arena arena = make_arena("large", 1_GiB);
  const std::span<char> text = arena.make_array<char>(kBytes).value();
  text.back() = 'x';
  auto ref = publish(std::span<const char>(text)).value();
  static_assert(sizeof ref == 16);
  ASSERT_TRUE(arena.freeze());
  auto channel = make<decltype(ref)>({.name = "reference"});
  const auto receive = [&] {
    const auto received = channel.receive().value();
    return received->size() == kBytes && received->back() == 'x' ? 0 : 1;
  };
  auto worker = start({.name = "receiver"}, receive).value();
  ASSERT_TRUE(channel.send(ref));
  EXPECT_TRUE(worker.wait().value().at(0).ok());
}

TEST_F(LargeMessages, WithCowshedTheSenderGetsTheError) {
  auto channel = make<Bytes>({.name = "small", .memory = 1_MiB});
  EXPECT_THAT(channel.send(std::vector<std::byte>(2_MiB)), Fails(ErrorCode::message_too_large));
}

}  // namespace
}  // namespace cowshed
