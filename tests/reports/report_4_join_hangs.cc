// The report: process.join() hangs for ever.

#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

constexpr std::size_t kMessage = std::size_t{1} << 20U;
constexpr std::uint64_t kMessages = 64;

TEST(JoinHangs, WithCowshedTheChildIsGoneAndItsResultsAreThere) {
  auto results = make<Bytes>({.name = "results", .memory = 2 * kMessages * kMessage});
  const auto work = [&] {
    for (std::uint64_t i = 0; i < kMessages; ++i) {
      auto message = results.loan(kMessage).value();
      std::memcpy(message.data(), &i, sizeof i);
      std::memset(message.data() + sizeof i, static_cast<int>(i), kMessage - sizeof i);
      if (!std::move(message).commit()) return 1;
    }
    return 0;
  };
  auto worker = start({.name = "sender"}, work).value();
  const auto exits = worker.wait();
  ASSERT_TRUE(exits);
  ASSERT_TRUE(exits->at(0).ok()) << exits->at(0).error;
  std::uint64_t intact = 0;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    const auto message = results.try_receive();
    ASSERT_TRUE(message) << message.error().message;
    std::uint64_t number = 0;
    std::memcpy(&number, message->data(), sizeof number);
    intact += number == i && message->size() == kMessage &&
                      message->data()[kMessage - 1] == static_cast<std::byte>(i)
                  ? 1
                  : 0;
  }
  EXPECT_EQ(intact, kMessages);
}

}  // namespace
}  // namespace cowshed
