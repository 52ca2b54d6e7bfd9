#include <linux/seccomp.h>
#include <sys/epoll.h>

#include <cowshed/base/file_descriptor.h>

#include "memory.h"

// Several processes and one channel: what a dead or stopped one leaves to the others.
namespace cowshed {
namespace {

constexpr int kTimesSlower = test::kThreadSanitizer ? 50 : test::sized(1, 10);

// The receiver learns of a message by another way than the channel, and then tries at once.
TEST(ChannelProcesses, WhatWasSentIsThere) {
  constexpr std::uint64_t kMessages = 30000;
  struct Turns {
    std::atomic<std::uint64_t> sent, received;
  };
  auto channel = make<std::uint64_t>();
  auto& turns = test::shared<Turns>();
  Child receiver([&] {
    for (std::uint64_t i = 1; i <= kMessages; ++i) {
      while (turns.sent.load() < i) sched_yield();
      if (const auto message = channel.try_receive(); !message || *message != i) return 1;
      turns.received = i;
    }
    return 0;
  });
  for (std::uint64_t i = 1; i <= kMessages; ++i) {
    ASSERT_TRUE(channel.send(i));
    turns.sent = i;
    // By turns at first, so that the channel is empty each time; then as fast as it goes.
    while (i < kMessages / 2 && turns.received.load() < i && receiver.running()) sched_yield();
  }
  EXPECT_EQ(receiver.wait(), 0);
}

TEST(ChannelProcesses, BatchesOfFourSendersReachFourReceiversOnceAndInOrder) {
  constexpr std::uint64_t kParties = 4;
  constexpr std::uint64_t kEach = 50000 / kTimesSlower;
  constexpr std::size_t kMost = 40;  // more than there are slots
  auto channel = make<std::uint64_t>({.slots = 32});
  auto& counts = test::shared<std::array<std::atomic<std::uint8_t>, kParties * kEach>>();
  auto receivers = test::begin_processes(kParties, [&](std::uint64_t i) {
    std::mt19937 random(static_cast<unsigned>(i));
    std::array<std::uint64_t, kMost> some{};
    std::array<std::uint64_t, kParties> next{};
    while (const auto count = channel.receive_batch({some.data(), 1 + random() % kMost})) {
      for (std::size_t j = 0; j < *count; ++j) {
        std::uint64_t& least = next.at(some[j] / kEach);
        if (some[j] < least) return 1;
        least = some[j] + 1;
        ++counts.at(some[j]);
      }
    }
    return 0;
  });
  auto senders = test::begin_processes(kParties, [&](std::uint64_t i) {
    std::mt19937 random(static_cast<unsigned>(kParties + i));
    std::vector<std::uint64_t> some;
    for (std::uint64_t n = 0; n < kEach; n += some.size()) {
      some.resize(std::min<std::uint64_t>(1 + random() % kMost, kEach - n));
      std::iota(some.begin(), some.end(), i * kEach + n);
      if (const auto sent = channel.send_batch(some); !sent || *sent != some.size()) return 1;
    }
    return 0;
  });
  test::expect_success(senders);
  channel.close();
  test::expect_success(receivers);
  for (const auto& count : counts) ASSERT_EQ(count, 1);
}

TEST(ChannelProcesses, AWorkerThatReturnsHasNothingInHand) {
  auto channel = make<std::uint64_t>();
  ASSERT_TRUE(channel.send(1));
  auto workers = value_of(start({}, [&] { (void)channel.receive().value(); }));
  ASSERT_TRUE(workers.wait().value().at(0).ok());
  const auto stats = channel.stats();
  EXPECT_EQ(stats.received, 1);
  EXPECT_TRUE(stats.lost.empty());
}

TEST(ChannelProcesses, WhatAKilledReceiverHadInHandIsNamed) {
  for (const std::size_t batch : {1U, 4U}) {
    auto channel = make<std::uint64_t>();
    for (std::uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(channel.send(i));
    Child receiver([&] {
      std::array<std::uint64_t, 4> some{};
      for (int i = 0; i < 2; ++i) (void)channel.receive_batch(std::span(some).first(batch));
      raise(SIGKILL);
      return 0;
    });
    EXPECT_EQ(receiver.wait(), -SIGKILL);
    const auto stats = channel.stats();
    ASSERT_EQ(stats.lost.size(), 1);
    EXPECT_EQ(stats.lost[0].receiver, receiver.pid());
    EXPECT_EQ(stats.lost[0].first, batch);
    EXPECT_EQ(stats.lost[0].count, batch);
    EXPECT_EQ(channel.receive().value(), 2 * batch);
    EXPECT_EQ(channel.stats().lost.size(), 1);
    EXPECT_EQ(channel.stats().processes, 1);
  }
}

TEST(ChannelProcesses, WhatTheDeadHeldIsFreed) {
  auto channel = make<Bytes>({.memory = 1_MiB});
  ASSERT_TRUE(channel.send(std::vector<std::byte>(256_KiB, std::byte{1})));
  ASSERT_TRUE(channel.send(std::vector<std::byte>(256_KiB, std::byte{2})));
  Child worker([&] {
    const auto in_hand = channel.receive();
    const auto buffer = channel.loan(256_KiB);
    (void)channel.send(std::vector<std::byte>(256_KiB, std::byte{3}));
    raise(SIGKILL);
    return 0;
  });
  EXPECT_EQ(worker.wait(), -SIGKILL);
  EXPECT_THAT(channel.try_loan(512_KiB), Succeeds());  // two messages are still queued
  EXPECT_EQ(channel.stats().lost.size(), 1);
  for (const int mark : {2, 3})
    EXPECT_EQ(channel.receive()->data()[0], static_cast<std::byte>(mark));
  EXPECT_EQ(channel.stats().outstanding, 0);
}

// Each process that ends by _exit(2), as workers do, leaves its place to whoever looks.
TEST(ChannelProcesses, ANewcomerTakesThePlaceOfOneThatNobodySawDie) {
  using namespace channel_layout;
  constexpr std::uint32_t kPid = 4'000'000;
  auto channel = make<Bytes>();
  const test::ChannelMemory memory(channel);
  Control& control = memory.control();
  const auto id_at = [](std::uint32_t index) { return kGeneration | (index + 1); };
  for (std::uint32_t i = 0; i < kParties; ++i) {
    control.parties[i].pid = kPid + i;
    control.parties[i].id = id_at(i);
  }
  control.seldom.parties_used.store(kParties);
  control.tail.value = 1;
  control.head.value = 1;
  for (std::uint32_t i = 0; i < kHands; ++i) {
    control.hands[i].held = i == 0 ? held(0, 1) : 0;
    control.hands[i].owner = hand_of(id_at(i % 2));
  }
  control.seldom.hands_used.store(kHands);
  memory.word(0) = block_word(BlockState::owned, id_at(0), 1);
  control.seldom.blocks_used[0].store(1);

  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::would_block);
  EXPECT_EQ(control.parties[0].pid, static_cast<std::uint32_t>(getpid()));
  EXPECT_EQ(memory.word(0), 0);
  const auto stats = channel.stats();
  EXPECT_EQ(stats.processes, 1);
  ASSERT_EQ(stats.lost.size(), 1);
  EXPECT_EQ(stats.lost[0].receiver, kPid);
}

// However many children there are, its creator can use it.
TEST(ChannelProcesses, NobodyElseTakesItsCreatorsPlace) {
  auto channel = make<std::uint64_t>();
  const test::ChannelMemory memory(channel);
  Child child([&](const test::Line& test) {
    (void)channel.try_receive();
    test.say();
    return test.hear() ? 0 : 1;
  });
  child.hear();
  EXPECT_EQ(memory.control().parties[0].pid, 0);
  EXPECT_EQ(memory.control().parties[1].pid, static_cast<std::uint32_t>(child.pid()));
  EXPECT_EQ(memory.control().hands[0].owner.load(), 0U);
  ASSERT_TRUE(channel.send(1));
  EXPECT_EQ(memory.control().parties[0].pid, static_cast<std::uint32_t>(getpid()));
  child.say();
}

TEST(ChannelProcesses, AChildThatOnlyForksKeepsNobodyAlive) {
  auto channel = make<std::uint64_t>();
  auto& grandchild = test::shared<std::atomic<int>>();
  ASSERT_TRUE(channel.send(1));
  Child receiver([&] {
    (void)channel.receive();
    const pid_t pid = fork();
    if (pid == 0) pause();
    grandchild = pid;
    raise(SIGKILL);
    return 0;
  });
  EXPECT_EQ(receiver.wait(), -SIGKILL);
  EXPECT_EQ(channel.stats().lost.size(), 1);
  kill(grandchild, SIGKILL);
}

// In seccomp's strict mode any system call but read, write and exit is death.
TEST(ChannelProcesses, WithoutASleeperThereIsNoSystemCall) {
  if (test::kSanitized) GTEST_SKIP() << "the sanitizer makes system calls of its own";
  auto channel = make<std::uint64_t>({.slots = 4});
  Child both([&] {
    const auto exchange = [&] {
      return channel.send(1) && channel.try_send(2) && channel.receive().value() == 1 &&
             channel.try_receive().value() == 2 &&
             code_of(channel.try_receive()) == ErrorCode::would_block;
    };
    bool good = exchange();  // takes part
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    for (int i = 0; i < 1000; ++i) good = exchange() && good;
    syscall(SYS_exit, good ? 0 : 1);
    return 1;
  });
  EXPECT_EQ(both.wait(), 0);
}

TEST(ChannelProcesses, AReceiverThatWaitsIsAsleepInFutex) {
  auto channel = make<std::uint64_t>();
  Child receiver([&] { return channel.receive().value() == 1 ? 0 : 1; });
  const std::string path = "/proc/" + std::to_string(receiver.pid()) + "/syscall";
  EXPECT_TRUE(eventually([&] {
    long number = 0;
    return static_cast<bool>(std::ifstream(path) >> number) && number == SYS_futex;
  }));
  ASSERT_TRUE(channel.send(1));
  EXPECT_EQ(receiver.wait(), 0);
}

// Both locks held by somebody who is stopped, for certain.
TEST(ChannelProcesses, TimedFormsNameAStoppedPeer) {
  auto channel = make<std::uint64_t>();
  const test::ChannelMemory memory(channel);
  auto& control = memory.control();
  ASSERT_TRUE(channel.send(1));
  Child holder([&] {
    (void)channel.try_send(2);  // takes part
    const auto& parties = control.parties;
    const std::uint64_t lock =
        std::uint64_t{parties[1].id.load()} << 32U | static_cast<std::uint32_t>(getpid());
    control.sender.lock.holder = lock;
    control.receiver.lock.holder = lock;
    pause();
    return 0;
  });
  ASSERT_TRUE(eventually([&] { return control.receiver.lock.holder != 0; }));
  holder.stop();
  EXPECT_EQ(code_of(channel.send(3, 5ms)), ErrorCode::peer_stopped);
  EXPECT_EQ(code_of(channel.receive(5ms)), ErrorCode::peer_stopped);
  EXPECT_EQ(code_of(channel.try_send(3)), ErrorCode::peer_stopped);
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::peer_stopped);
  std::stop_source source;
  source.request_stop();
  EXPECT_EQ(code_of(channel.receive(source.get_token())), ErrorCode::interrupted);
  EXPECT_EQ(channel.stats().processes, 2);  // and not swept
  holder.signal(SIGKILL);
  holder.wait();
  EXPECT_EQ(channel.receive().value(), 1);
  EXPECT_TRUE(channel.send(3));
  EXPECT_EQ(channel.receive().value(), 2);
  EXPECT_EQ(channel.receive().value(), 3);
  EXPECT_EQ(channel.stats().processes, 1);
}

TEST(ChannelProcesses, ReferencesArriveAsWhatTheyReferTo) {
  ArenaOf<int> of;
  *of.object = 42;
  ASSERT_TRUE(of.arena.freeze());
  auto channel = make<Ref<int>>();
  ASSERT_TRUE(channel.send(of.ref));
  Child receiver([&] { return **channel.receive(); });
  EXPECT_EQ(receiver.wait(), 42);
}

// ---- Processes that wait for a channel with poll and epoll.

constexpr int kAsleep = 20000;  // ms: nobody woke it

// Receives until the channel is closed and empty, and sleeps in epoll_wait() only.  0, or what went
// wrong.
template <class Have>
int receive_by_epoll(Channel<std::uint64_t>& channel, std::uint32_t flags, Have&& have) {
  const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
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
