// The report: queue.put(big) returns, then get(block=False) raises Empty although the item was put;
// workers exit early, or never.

#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

constexpr std::size_t kMessage = std::size_t{1} << 20U;
constexpr int kMessages = 100;

TEST(SentButNotThere, WithCowshedItIsThere) {
  auto items = make<Bytes>({.name = "items", .memory = 64 * kMessage});
  const std::vector<std::byte> message(kMessage);
  int there = 0;
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(items.send(message));
    const auto received = items.try_receive();
    there += received && received->size() == kMessage ? 1 : 0;
  }
  EXPECT_EQ(there, kMessages);
}

TEST(SentButNotThere, WithCowshedOneCloseEndsAllWorkers) {
  auto items = make<int>({.name = "items"});
  auto done = make<int>({.name = "done"});
  const auto work = [&] {
    int count = 0;
    while (items.receive()) ++count;
    return done.send(count) ? 0 : 1;
  };
  auto workers = start({.count = 4}, work).value();
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(items.send(i));
  items.close();
  const auto exits = workers.wait().value();
  int ended = 0;
  int received = 0;
  for (const WorkerExit& exit : exits) {
    ended += exit.ok() ? 1 : 0;
    received += done.try_receive().value_or(0);
  }
  EXPECT_EQ(ended, 4);
  EXPECT_EQ(received, 1000);
}

}  // namespace
}  // namespace cowshed
