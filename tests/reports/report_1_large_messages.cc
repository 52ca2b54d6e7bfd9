// The report: sending 2 GiB or more between processes dies with struct.error: 'i' format requires
// -2147483648 <= number <= 2147483647, or deadlocks because the error is raised in a helper thread.

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

using namespace size_literals;

constexpr std::uint64_t kSize = 2_GiB + 1;  // one more than what the old header could say

// Of /proc/self/status or /proc/meminfo, in bytes.
std::uint64_t kib_of(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field + ":")) return std::stoull(line.substr(field.size() + 1)) * 1024;
  return 0;
}

class LargeMessages : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto available = kib_of("/proc/meminfo", "MemAvailable"); available < 10_GiB)
      GTEST_SKIP() << "needs 10 GiB of memory, " << (available >> 20U) << " MiB are available";
  }
};

TEST_F(LargeMessages, WithCowshedAMovedBuffer) {
  auto channel = Channel<Bytes>::create({.name = "large", .memory = 3_GiB}).value();
  auto results = Channel<std::uint64_t>::create({.name = "results"}).value();
  const auto receive = [&] {
    const std::uint64_t before = kib_of("/proc/self/status", "RssAnon");
    const auto message = channel.receive().value();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < message.size(); i += 4096)
      sum += static_cast<std::uint64_t>(message.data()[i]);
    const std::uint64_t grown = kib_of("/proc/self/status", "RssAnon") - before;
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
  EXPECT_LT(grown, 16_MiB) << "mapped, not copied";
  for (const TransferSource& source : transfer_report().sources) {
    if (source.name == "large") {
      EXPECT_EQ(source.moved.bytes, kSize);
      EXPECT_EQ(source.by_value.bytes, 0U);
    }
  }
}

TEST_F(LargeMessages, WithCowshedAReference) {
  constexpr std::uint64_t kBytes = 512_MiB;  // of any size it is the same 16 bytes
  auto arena = Arena::create({.name = "large", .capacity = 1_GiB}).value();
  const std::span<char> text = arena.make_array<char>(kBytes).value();
  text.back() = 'x';
  auto ref = publish(std::span<const char>(text)).value();
  static_assert(sizeof ref == 16);
  ASSERT_TRUE(arena.freeze());
  auto channel = Channel<decltype(ref)>::create({.name = "reference"});
  const auto receive = [&] {
    const auto received = channel->receive().value();
    return received->size() == kBytes && received->back() == 'x' ? 0 : 1;
  };
  auto worker = start({.name = "receiver"}, receive).value();
  ASSERT_TRUE(channel->send(ref));
  EXPECT_TRUE(worker.wait().value().at(0).ok());
}

TEST_F(LargeMessages, WithCowshedTheSenderGetsTheError) {
  auto channel = Channel<Bytes>::create({.name = "small", .memory = 1_MiB}).value();
  const auto sent = channel.send(std::vector<std::byte>(2_MiB));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::message_too_large);
}

}  // namespace
}  // namespace cowshed
