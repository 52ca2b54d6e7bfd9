#include <sys/epoll.h>

#include <cowshed/share/descriptor.h>

#include "share.h"

// Processes that wait for a channel with poll and epoll.
namespace cowshed {
namespace {

constexpr int kAsleep = 20000;  // ms: nobody woke it

// Receives until the channel is closed and empty, and sleeps in epoll_wait() only.  0, or what went
// wrong.
template <class Have>
int receive_by_epoll(Channel<std::uint64_t>& channel, std::uint32_t flags, Have&& have) {
  const Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  const int descriptor = channel.descriptor().value();
  epoll_event event = {.events = EPOLLIN | flags, .data = {}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) return 1;
  for (;;) {
    if (epoll_wait(epoll.get(), &event, 1, kAsleep) != 1) return 2;
    for (;;) {
      const auto message = channel.try_receive();
      if (message) have(*message);
      else if (code_of(message) == ErrorCode::closed) return 0;
      else if (code_of(message) == ErrorCode::would_block) break;
      else if (code_of(message) != ErrorCode::peer_stopped) return 3;
    }
  }
}

class ChannelEpoll : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Channel, ChannelEpoll, testing::Values(0U, std::uint32_t{EPOLLET}),
                         [](const auto& test) {
                           return test.param == 0 ? "LevelTriggered" : "EdgeTriggered";
                         });

// Some of the receivers are killed meanwhile, and the others are told of what is left.
TEST_P(ChannelEpoll, EachMessageIsReceivedOnceWhileReceiversAreKilled) {
  constexpr int kVictims = test::sized(200, 20);
  constexpr int kReceivers = 4;
  constexpr int kSenders = 2;
  constexpr std::uint64_t kMost = 1 << 16;  // of one sender
  auto channel = make<std::uint64_t>({.slots = 4});
  auto& counts = test::shared<std::array<std::atomic<std::uint8_t>, kSenders * kMost>>();
  const auto receive = [&] {
    return receive_by_epoll(channel, GetParam(), [&](std::uint64_t n) { ++counts[n]; });
  };
  std::vector<std::unique_ptr<Child>> receivers(kReceivers);
  for (auto& receiver : receivers) receiver = std::make_unique<Child>(receive);
  auto senders = test::begin_processes(kSenders, [&](int s) {
    std::mt19937 random(static_cast<unsigned>(s));
    const std::uint64_t first = static_cast<std::uint64_t>(s) * kMost;
    for (std::uint64_t n = first; n < first + kMost && channel.send(n); ++n)
      usleep(static_cast<useconds_t>(random() % 100));  // the receivers fall asleep
    return 0;
  });
  std::mt19937 random(2);
  for (int i = 0; i < kVictims; ++i) {
    usleep(static_cast<useconds_t>(random() % 2000));
    auto& victim = receivers[random() % kReceivers];
    ASSERT_TRUE(victim->running());
    victim->signal(SIGKILL);
    victim = std::make_unique<Child>(receive);
  }
  channel.close();
  test::expect_success(senders);
  for (const auto& receiver : receivers) EXPECT_EQ(receiver->wait(), 0);
  std::uint64_t received = 0;
  for (const auto& count : counts) {
    ASSERT_LE(count, 1);
    received += count;
  }
  const auto stats = channel.stats();
  EXPECT_EQ(stats.sent, stats.received);
  EXPECT_LE(received, stats.sent);
  EXPECT_GE(received + stats.lost.size() + stats.lost_before, stats.sent);
}

}  // namespace
}  // namespace cowshed
