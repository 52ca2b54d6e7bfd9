#include <pthread.h>
#include <sys/eventfd.h>
#include <thread>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/os/memfd.h>

#include "memory.h"

// What one process sees of a channel.
namespace cowshed {
namespace {

struct Job {
  std::uint64_t number;
  std::array<char, 56> text;
};

// The kernel may be set up to allow nothing else (vm.memfd_noexec).
TEST(Channel, ItsMemoryIsNotExecutable) {
  const auto channel = make<std::uint64_t>();
  struct stat segment{};
  struct stat other{};
  ASSERT_EQ(fstat(channel.descriptors().segment, &segment), 0);
  ASSERT_EQ(fstat(internal::make_memfd("other", internal::Sealable::yes).get(), &other), 0);
  EXPECT_EQ(segment.st_mode, other.st_mode);
}

TEST(Channel, FullAndEmptyAreErrorsOfTheFormsThatDoNotWait) {
  auto channel = make<int>({.name = "jobs", .slots = 3});
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::would_block);
  EXPECT_EQ(channel.try_receive().error().message, "channel '" + channel.name() + "' is empty");
  EXPECT_EQ(code_of(channel.receive(1ms)), ErrorCode::timed_out);
  EXPECT_EQ(code_of(channel.receive(-1s)), ErrorCode::timed_out);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(channel.try_send(i));
  EXPECT_EQ(code_of(channel.try_send(3)), ErrorCode::would_block);
  EXPECT_EQ(channel.try_send(3).error().message, "channel '" + channel.name() + "' is full");
  EXPECT_EQ(code_of(channel.send(3, 1ms)), ErrorCode::timed_out);
  EXPECT_EQ(code_of(channel.send(3, Wait::Clock::time_point{})), ErrorCode::timed_out);
  EXPECT_EQ(channel.receive(1s).value(), 0);
  EXPECT_TRUE(channel.try_send(3));
  EXPECT_EQ(channel.stats().sent, 4);
  EXPECT_EQ(channel.stats().received, 1);
}

TEST(Channel, BatchesTakeWhatThereIs) {
  auto channel = make<int>({.name = "jobs", .slots = 10});
  std::vector<int> numbers(16);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<int> got(16);
  EXPECT_EQ(code_of(channel.try_receive_batch(got)), ErrorCode::would_block);
  EXPECT_EQ(channel.try_send_batch(numbers).value(), 10);
  EXPECT_EQ(code_of(channel.try_send_batch(numbers)), ErrorCode::would_block);
  EXPECT_EQ(channel.try_receive_batch(std::span(got).first(4)).value(), 4);
  EXPECT_EQ(channel.try_send_batch(std::span(numbers).subspan(10)).value(), 4);  // over the end
  EXPECT_EQ(channel.receive_batch(std::span(got).subspan(4)).value(), 10);
  got.resize(14);
  numbers.resize(14);
  EXPECT_EQ(got, numbers);
  EXPECT_EQ(channel.receive_batch({}).value(), 0);
  EXPECT_EQ(channel.send_batch({}).value(), 0);
}

TEST(Channel, OddSizesArriveInBatches) {
  struct OddSized {
    std::array<char, 13> text;
  };
  auto channel = make<OddSized>({.name = "jobs", .slots = 5});
  std::vector<OddSized> sent(5);
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < 3; ++i) sent[i].text.fill(static_cast<char>('a' + i));
    ASSERT_EQ(channel.send_batch(std::span(sent).first(3)).value(), 3);
    std::vector<OddSized> got(5);
    ASSERT_EQ(channel.receive_batch(got).value(), 3);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(got[i].text, sent[i].text);
  }
}

TEST(Channel, CloseComesAfterWhatWasSent) {
  auto channel = make<int>({.name = "jobs"});
  ASSERT_TRUE(channel.send(1));
  ASSERT_TRUE(channel.send(2));
  EXPECT_FALSE(channel.closed());
  channel.close();
  channel.close();
  EXPECT_TRUE(channel.closed());
  EXPECT_EQ(code_of(channel.send(3)), ErrorCode::closed);
  EXPECT_EQ(code_of(channel.try_send(3)), ErrorCode::closed);
  EXPECT_EQ(channel.receive().value(), 1);
  EXPECT_EQ(channel.try_receive().value(), 2);
  EXPECT_EQ(code_of(channel.receive()), ErrorCode::closed);
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::closed);
  EXPECT_EQ(code_of(channel.receive(1s)), ErrorCode::closed);
}

// A receiver of an empty channel and a sender to a full one.
struct Waiting {
  Channel<int> empty = make<int>();
  Channel<int> full = make<int>({.slots = 1});
  std::vector<ErrorCode> said{2};

  // Until `wake` ends the wait, which may have limits.
  template <class Wake, class... Limit>
  void wait(const Wake& wake, const Limit&... limit) {
    ASSERT_TRUE(full.send(1));
    const std::jthread receiver([&] { said[0] = code_of(empty.receive(limit...)); });
    const std::jthread sender([&] { said[1] = code_of(full.send(2, limit...)); });
    while (empty.stats().processes == 0) std::this_thread::yield();
    std::this_thread::sleep_for(20ms);
    wake();
  }
};

TEST(Channel, CloseWakesWhoWaitsForEver) {
  const auto expect_closed = [](const auto&... limit) {
    Waiting waiting;
    const auto close = [&] {
      waiting.empty.close();
      waiting.full.close();
    };
    waiting.wait(close, limit...);
    EXPECT_THAT(waiting.said, Each(ErrorCode::closed));
    EXPECT_EQ(waiting.full.receive().value(), 1);
  };
  expect_closed();
  expect_closed(std::chrono::steady_clock::duration::max());  // longer than the clock goes
}

TEST(Channel, AStopTokenInterrupts) {
  Waiting waiting;
  std::stop_source source;
  waiting.wait([&] { source.request_stop(); }, source.get_token());
  EXPECT_THAT(waiting.said, Each(ErrorCode::interrupted));
  ASSERT_TRUE(waiting.full.receive());  // nothing was sent
  EXPECT_EQ(code_of(waiting.full.try_receive()), ErrorCode::would_block);
}

TEST(Channel, ADescriptorTellsWhenToReceive) {
  auto channel = make<int>({.name = "jobs"});
  ASSERT_TRUE(channel.send(1));  // before anybody asked
  const int descriptor = channel.descriptor().value();
  const auto readable = [&] {
    pollfd poll_on = {descriptor, POLLIN, 0};
    return poll(&poll_on, 1, 0) == 1;
  };
  EXPECT_TRUE(readable());
  EXPECT_EQ(channel.try_receive().value(), 1);
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::would_block);
  EXPECT_FALSE(readable());
  EXPECT_EQ(channel.descriptor().value(), descriptor);
  EXPECT_FALSE(readable()) << "to ask again does not wake";
  ASSERT_TRUE(channel.send(2));
  ASSERT_TRUE(channel.send(3));
  EXPECT_TRUE(readable());
  EXPECT_EQ(channel.try_receive().value(), 2);
  EXPECT_TRUE(readable());
  EXPECT_EQ(channel.try_receive().value(), 3);
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::would_block);
  EXPECT_FALSE(readable());
  channel.close();
  EXPECT_TRUE(readable());
  EXPECT_EQ(code_of(channel.try_receive()), ErrorCode::closed);
  EXPECT_TRUE(readable());  // for whoever has not seen it yet
}

TEST(Channel, ThreadsSendAndReceiveAtOnce) {
  constexpr std::uint64_t kEach = 20000;
  constexpr std::uint64_t kThreads = 3;
  auto channel = make<std::uint64_t>({.slots = 64});
  std::array<std::vector<std::uint64_t>, kThreads> got;
  auto receivers = begin_threads(kThreads, [&](std::uint64_t t) {
    while (auto message = channel.receive()) got.at(t).push_back(*message);
  });
  (void)begin_threads(kThreads, [&](std::uint64_t t) {
    for (std::uint64_t i = 0; i < kEach; ++i) ASSERT_TRUE(channel.send(t * kEach + i));
  });
  channel.close();
  receivers.clear();
  std::set<std::uint64_t> all;
  for (const auto& list : got) {
    std::array<std::uint64_t, kThreads> last{};  // of each sender, plus 1
    for (const std::uint64_t message : list) {
      EXPECT_GE(message % kEach + 1, last[message / kEach]);
      last[message / kEach] = message % kEach + 1;
      all.insert(message);
    }
  }
  EXPECT_EQ(all.size(), kThreads * kEach);
  EXPECT_EQ(channel.stats().received, kThreads * kEach);
  EXPECT_TRUE(channel.stats().lost.empty());
}

TEST(Wait, ATimeBeyondTheClockIsItsEnd) {
  using namespace std::chrono;
  const auto end = Wait::Clock::time_point::max();
  for (const Wait& wait :
       {Wait(nanoseconds::max()), Wait(milliseconds::max()), Wait(seconds::max()),
        Wait(hours(24 * 365 * 400)), Wait(duration<double>(1e300))}) {
    EXPECT_EQ(wait.deadline, end);
  }
  const auto soon = Wait::Clock::now() + 60s;
  for (const Wait& wait : {Wait(duration<double>(0.5)), Wait(seconds::min()), Wait(-1e300s)})
    EXPECT_LT(wait.deadline, soon);
}

// Its Codec throws for 1 when it encodes, for 2 and 3 when it decodes.
struct Picky {
  int number;
  std::string text = {};
};

}  // namespace

template <>
struct Codec<Picky> {
  static void encode(Encoder& to, const Picky& picky) {
    if (picky.number == 1) throw 5;  // NOLINT: no std::exception
    to.put(picky.number);
  }
  static Picky decode(Decoder& from) {
    const int number = from.take<int>();
    if (number == 2) throw 5;  // NOLINT: as above
    if (number == 3) throw std::bad_alloc();
    return {number};
  }
};

namespace {

TEST(Channel, ACodecMayThrowAnything) {
  auto channel = make<Picky>();
  EXPECT_THAT(channel.send({1}), Fails(ErrorCode::invalid_argument, "no std::exception"));
  ASSERT_TRUE(channel.send({2}));
  EXPECT_THAT(channel.receive(), Fails(ErrorCode::bad_encoding, "no std::exception"));
  ASSERT_TRUE(channel.send({3}));
  EXPECT_THROW((void)channel.receive(), std::bad_alloc);
  EXPECT_THAT(channel.try_receive(), Fails(ErrorCode::would_block));
}

TEST(Channel, AThreadThatIsCancelledWhileItsProcessJoinsLeavesNoLock) {
  auto channel = make<int>();
  std::thread([&] {
    pthread_cancel(pthread_self());
    (void)channel.try_send(1);
  }).join();
  EXPECT_TRUE(channel.try_send(2));
}

TEST(Channel, LeavesNothingBehind) {
  const auto use = [] {
    auto channel = make<int>();
    const auto copy = channel;
    ASSERT_TRUE(channel.send(1));
    ASSERT_TRUE(channel.receive());
    for (const int descriptor : {copy.descriptors().segment, copy.descriptors().event})
      EXPECT_NE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
  };
  use();
  const std::size_t before = test::open_descriptors();
  for (int i = 0; i < 100; ++i) use();
  EXPECT_EQ(test::open_descriptors(), before);
}

TEST(Channel, AnotherHandleThroughDescriptors) {
  auto channel = make<Job>({.name = "jobs", .slots = 5});
  const ChannelDescriptors copies = {fcntl(channel.descriptors().segment, F_DUPFD, 0),
                                     fcntl(channel.descriptors().event, F_DUPFD, 0)};
  {
    auto other = value_of(Channel<Job>::from_descriptors(copies));
    EXPECT_NE(fcntl(copies.segment, F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_EQ(other.name(), "jobs");
    EXPECT_EQ(other.options().slots, 5);
    ASSERT_TRUE(other.send({7, {}}));
    EXPECT_EQ(channel.receive()->number, 7);
    EXPECT_EQ(channel.stats().processes, 2);
  }
  EXPECT_EQ(fcntl(copies.segment, F_GETFD), -1);
  EXPECT_EQ(channel.stats().processes, 1);
}

TEST(Channel, WhatAProgramOpenedInPlaceOfItsDescriptorsIsLeftAlone) {
  auto channel = std::optional(make<Job>());
  const auto own = channel->descriptors();
  ASSERT_TRUE(channel->descriptor() && channel->send({}));
  const FileDescriptor file(memfd_create("the program's", MFD_CLOEXEC));
  ASSERT_EQ(write(file.get(), "0123456789", 10), 10);
  lseek(file.get(), 0, SEEK_SET);
  ASSERT_TRUE(dup2(file.get(), own.segment) >= 0 && dup2(file.get(), own.event) >= 0);
  EXPECT_TRUE(channel->receive());
  EXPECT_EQ(code_of(channel->try_receive()), ErrorCode::would_block);
  EXPECT_TRUE(channel->send({}));
  EXPECT_EQ(code_of(channel->descriptor()), ErrorCode::system_call);
  channel->close();
  channel.reset();
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 0) << "it was read or written to";
  EXPECT_TRUE(close(own.segment) == 0 && close(own.event) == 0);
}

TEST(Channel, WrongOptionsAreRefused) {
  for (const ChannelOptions& options :
       std::vector<ChannelOptions>{{.name = ""},
                                   {.name = std::string(64, 'x')},
                                   {.slots = 0},
                                   {.slots = std::size_t{1} << 60U},
                                   {.memory = 0},
                                   {.memory = std::uint64_t{1} << 63U}}) {
    EXPECT_THAT(Channel<Bytes>::create(options), Fails(ErrorCode::invalid_argument));
  }
}

// A memfd that begins with the header of a channel, changed.
template <class Change>
ErrorCode open_forged(Change&& change) {
  const auto channel = make<Job>();
  channel_layout::Constants constants = test::ChannelMemory(channel).constants();
  change(constants);
  const FileDescriptor segment(memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const FileDescriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  EXPECT_EQ(write(segment.get(), &constants, sizeof constants), ssize_t{sizeof constants});
  EXPECT_EQ(ftruncate(segment.get(), lseek(channel.descriptors().segment, 0, SEEK_END)), 0);
  fcntl(segment.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK);
  return code_of(Channel<Job>::from_descriptors({segment.get(), event.get()}));
}

TEST(Channel, WhatIsNoChannelIsRefused) {
  using Constants = channel_layout::Constants;
  const std::vector<void (*)(Constants&)> changes = {
      [](Constants& c) { c.magic[0] = 'X'; },    [](Constants& c) { ++c.version; },
      [](Constants& c) { c.slots = 0; },         [](Constants& c) { c.slots = ~0UL; },
      [](Constants& c) { c.slots *= 16; },       [](Constants& c) { c.slot_bytes = 0; },
      [](Constants& c) { c.slot_bytes = ~7UL; }, [](Constants& c) { c.memory = 1UL << 63U; }};
  for (std::size_t i = 0; i < changes.size(); ++i)
    EXPECT_EQ(open_forged(changes[i]), ErrorCode::bad_channel) << i;
  EXPECT_EQ(open_forged([](Constants& c) { c.type ^= 1; }), ErrorCode::wrong_type);
}

TEST(Channel, AForeignDescriptorIsRefused) {
  auto channel = make<Job>();
  const auto own = channel.descriptors();
  const auto opened = [](const ChannelDescriptors& descriptors) {
    return code_of(Channel<Job>::from_descriptors(descriptors));
  };
  EXPECT_EQ(opened({-1, own.event}), ErrorCode::system_call);
  EXPECT_EQ(opened({own.event, own.event}), ErrorCode::foreign_descriptor);
  EXPECT_EQ(opened({own.segment, own.segment}), ErrorCode::foreign_descriptor);
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(opened({file, own.event}), ErrorCode::foreign_descriptor);
  close(file);
  EXPECT_EQ(code_of(Channel<int>::from_descriptors(own)), ErrorCode::wrong_type);
  EXPECT_EQ(code_of(Channel<Bytes>::from_descriptors(own)), ErrorCode::wrong_type);
  EXPECT_TRUE(channel.send({}));  // they are open still
}

TEST(Channel, DamageIsAnError) {
  auto channel = make<Job>({.slots = 8});
  const test::ChannelMemory damaged(channel);
  ASSERT_TRUE(channel.send({1, {}}));
  damaged.control().tail.value = 1000;
  EXPECT_EQ(code_of(channel.receive()), ErrorCode::bad_channel);
  EXPECT_EQ(code_of(channel.send({})), ErrorCode::bad_channel);
  damaged.control().tail.value = 1;
  EXPECT_EQ(channel.receive()->number, 1);
}

TEST(Channel, AMessageThatClaimsTooMuchIsAnError) {
  auto channel = make<Bytes>({.slots = 8});
  const test::ChannelMemory damaged(channel);
  const std::vector<std::byte> large(10000);
  ASSERT_TRUE(channel.send(large));
  const auto claims = [&](std::uint64_t size, std::uint32_t block) {
    channel_layout::ByteSlot::Head head;
    head.size = size;
    head.block = block;
    damaged.first_slot().write(head, {});
    return code_of(channel.receive());
  };
  const std::uint32_t block = damaged.first_slot().block(~0U - 1) + 1;
  EXPECT_EQ(claims(std::uint64_t{1} << 63U, block), ErrorCode::bad_channel);
  EXPECT_EQ(claims(20000, block), ErrorCode::bad_channel);
  EXPECT_EQ(claims(10000, ~0U), ErrorCode::bad_channel);
  EXPECT_EQ(claims(10000, block + 1), ErrorCode::bad_channel);  // it is free
  EXPECT_EQ(claims(193, 0), ErrorCode::bad_channel);
  EXPECT_EQ(claims(10000, block), ErrorCode{255});
}

// Sends and receives in its destructor, and says what it got.
struct LateUser {
  Channel<Bytes> channel;
  std::atomic<std::uint64_t>& received;

  ~LateUser() {
    for (int i = 0; i < 3; ++i) {
      const std::vector<std::byte> message(10'000, std::byte{7});
      if (!channel.try_send(message)) return;
      auto got = channel.try_receive();
      if (!got || !channel.try_send(std::move(*got))) return;
      got = channel.try_receive();
      received += got && got->data()[9'999] == std::byte{7} ? got->size() : 0;
    }
  }
};

TEST(Channel, AStaticsDestructorMayUseIt) {
  auto channel = make<Bytes>();
  auto& received = test::shared<std::atomic<std::uint64_t>>();
  Child program([&] {
    static LateUser late{channel, received};
    (void)channel.try_receive();  // so this thread has a place, which exit() takes from it
    exit(0);
    return 1;
  });
  EXPECT_EQ(program.wait(), 0);
  EXPECT_EQ(received, 30'000);
  const auto stats = channel.stats();
  EXPECT_TRUE(stats.lost.empty());
  EXPECT_EQ(stats.outstanding, 0);
}

TEST(Channel, AnOlderLocalOfAThreadMayUseItInItsDestructor) {
  auto channel = make<Bytes>();
  std::atomic<std::uint64_t> received = 0;
  for (int i = 0; i < 3; ++i) {
    std::thread([&] {
      thread_local std::optional<LateUser> late;
      late.emplace(channel, received);
      (void)channel.try_receive();
    }).join();
  }
  EXPECT_EQ(received, 90'000);
  EXPECT_EQ(channel.stats().outstanding, 0);
}

}  // namespace
}  // namespace cowshed
