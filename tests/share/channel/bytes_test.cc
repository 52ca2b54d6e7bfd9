#include <cowshed/base/memory_limits.h>
#include <cowshed/tests/share/share.h>

// Messages of bytes, by copy and moved.
namespace cowshed {

using namespace internal;

namespace {

using channel_layout::kPage;

std::size_t own_status_kib(const std::string& key) {
  return test::figure_of("/proc/self/status", key);
}

std::uint64_t mapped_bytes_of(const std::string& channel) {
  std::uint64_t bytes = 0;
  for (const test::Mapping& mapping : test::all_mappings()) {
    const bool is_its = mapping.name.find("cowshed-channel:" + channel) != std::string::npos;
    bytes += is_its ? mapping.end - mapping.begin : 0;
  }
  return bytes;
}

bool all_are(const Bytes& bytes, int value) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  return bytes.empty() || (data[0] == value && std::memcmp(data, data + 1, bytes.size() - 1) == 0);
}

// The file is sparse.
std::uint64_t memory_of(const Channel<Bytes>& channel) {
  struct stat status{};
  fstat(channel.descriptors().segment, &status);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

// Of a block for a message of this size.
constexpr std::size_t memory_for(std::size_t size) {
  return channel_layout::round_up(size, std::min(kPage, std::bit_ceil(size)));
}

TEST(ChannelBytes, OnlyTheSizesInUseAreMapped) {
  auto channel = make<Bytes>({.name = "sizes"});
  ASSERT_TRUE(channel.send(std::vector<std::byte>(1)));
  ASSERT_TRUE(channel.receive());
  const std::uint64_t before = mapped_bytes_of("sizes");
  EXPECT_LT(before, 1_MiB);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(channel.send(std::vector<std::byte>(1_MiB)));
    ASSERT_TRUE(channel.receive());
    EXPECT_EQ(mapped_bytes_of("sizes"), before + ChannelOptions().memory) << i;
  }
}

TEST(ChannelBytes, AMessageThatCannotBeMappedStaysInTheChannel) {
  auto sender = make<Bytes>({.name = "unmapped"});
  const auto [segment, event] = sender.descriptors();
  auto receiver = value_of(Channel<Bytes>::from_descriptors({dup(segment), dup(event)}));
  ASSERT_TRUE(sender.send(std::vector<std::byte>(1_MiB)));
  rlimit usual{};
  getrlimit(RLIMIT_AS, &usual);
  const rlimit no_more = {own_status_kib("VmSize") * 1024 + 64_MiB, usual.rlim_max};
  setrlimit(RLIMIT_AS, &no_more);
  const auto refused = receiver.receive();
  setrlimit(RLIMIT_AS, &usual);
  EXPECT_THAT(refused, FailsBy(ENOMEM, "channel 'unmapped': mmap of 1073741824 bytes"));
  EXPECT_EQ(value_of(receiver.receive()).size(), 1_MiB);
}

// The next message has a slot of its own while the last one's totals are read.
TEST(ChannelBytes, StatsOfASingleSlot) {
  auto channel = Channel<Bytes>::create({.slots = 1}).value();
  const std::array<std::byte, 3> message{};
  for (std::uint64_t sent = 1; sent < 4; ++sent) {
    ASSERT_TRUE(channel.try_send(message));
    EXPECT_THAT(channel.try_send(message), Fails(ErrorCode::would_block));
    ASSERT_TRUE(channel.try_receive());
    EXPECT_EQ(channel.stats().bytes_sent, sent * message.size());
  }
}

TEST(ChannelBytes, OfEverySortOfSizeArrive) {
  auto channel = make<Bytes>();
  for (const std::size_t size : {0UL, 1UL, 191UL, 192UL, 193UL, 4095UL, 4096UL, 4097UL, 65536UL,
                                 65537UL, 1UL << 20U, (1UL << 24U) + 1}) {
    auto loan = value_of(channel.loan(size));
    EXPECT_EQ(loan.size(), size);
    std::memset(loan.data(), 7, size);
    ASSERT_TRUE(channel.send(loan.span()));
    ASSERT_TRUE(std::move(loan).commit());
    for (int i = 0; i < 2; ++i) {
      const auto bytes = value_of(channel.try_receive());
      EXPECT_EQ(bytes.size(), size);
      EXPECT_EQ(bytes.in_channel(), size > 192);
      EXPECT_TRUE(all_are(bytes, 7));
    }
  }
  EXPECT_EQ(channel.stats().outstanding, 0);
}

TEST(ChannelBytes, AreCountedInBytes) {
  auto channel = make<Bytes>();
  const std::vector<std::byte> small(100);
  const std::vector<std::byte> large(10000);
  ASSERT_TRUE(channel.send(small));
  ASSERT_TRUE(channel.send(large));
  ASSERT_TRUE(channel.loan(20000).value().commit());
  ASSERT_TRUE(channel.receive());
  auto stats = channel.stats();
  EXPECT_EQ(stats.bytes_sent, 30100);
  EXPECT_EQ(stats.bytes_received, 100);
  EXPECT_EQ(stats.moved_sent, 1);
  EXPECT_EQ(stats.bytes_moved, 20000);
  EXPECT_EQ(stats.outstanding, memory_for(10000) + memory_for(20000));
  ASSERT_TRUE(channel.receive());
  const auto moved = channel.receive();
  stats = channel.stats();
  EXPECT_EQ(stats.bytes_received, 30100);
  EXPECT_EQ(stats.moved_received, 1);
  EXPECT_EQ(stats.outstanding, memory_for(20000));  // in hand
}

TEST(ChannelBytes, GoOnThroughStagesWithoutACopy) {
  auto first = make<Bytes>({.name = "first"});
  auto second = make<Bytes>({.name = "second"});
  auto loan = first.loan(1_MiB);
  const std::byte* place = loan->data();
  ASSERT_TRUE(std::move(*loan).commit());
  auto received = first.receive();
  EXPECT_EQ(received->data(), place);
  received->data()[5] = std::byte{5};
  received->shrink(1000);
  ASSERT_TRUE(first.send(std::move(*received)));
  received = first.receive();
  EXPECT_EQ(received->size(), 1000);
  EXPECT_EQ(received->data(), place);
  ASSERT_TRUE(second.send(std::move(*received)));  // of another channel: copied
  EXPECT_EQ(first.stats().outstanding, 0);
  received = second.receive();
  EXPECT_EQ(received->data()[5], std::byte{5});
}

TEST(ChannelBytes, OutliveTheHandle) {
  Bytes bytes;
  {
    auto channel = make<Bytes>();
    ASSERT_TRUE(channel.send(std::vector<std::byte>(10000)));
    bytes = channel.receive().value();
  }
  std::memset(bytes.data(), 1, bytes.size());
  EXPECT_TRUE(all_are(bytes, 1));
}

struct alignas(64) Sample {
  std::uint64_t number;
  float value;
};

using Odd = std::array<char, 7>;

TEST(ChannelLoan, ArrivesAsTheTypeWithoutACopy) {
  auto channel = make<Bytes>();
  for (const std::size_t count : {1UL, 3UL, 1000UL}) {
    auto loan = channel.loan<Sample>(count).value();
    for (std::size_t i = 0; i < count; ++i) loan[i] = {.number = i, .value = 0.5F};
    const Sample* const data = loan.data();
    ASSERT_TRUE(std::move(loan).commit());
    const auto bytes = channel.receive().value();
    const auto samples = bytes.as<Sample>().value();
    ASSERT_EQ(samples.size(), count);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(samples.data()) % alignof(Sample), 0);
    EXPECT_EQ(samples.back().number, count - 1);
    if (bytes.in_channel()) EXPECT_EQ(samples.data(), data);
    EXPECT_THAT(bytes.as<Odd>(), Fails(ErrorCode::wrong_type, " is no array of "));
  }
}

TEST(ChannelLoan, NeedsAnOpenChannel) {
  auto channel = make<Bytes>();
  channel.close();
  EXPECT_THAT(channel.loan(10), Fails(ErrorCode::closed));
  EXPECT_THAT(channel.loan(5000), Fails(ErrorCode::closed));
}

TEST(ChannelLoan, IsCommittedOnce) {
  static_assert(!std::is_copy_constructible_v<Loan<Sample>>);
  static_assert(!std::is_invocable_v<decltype(&Loan<Sample>::try_commit), Loan<Sample>&>);
  auto channel = make<Bytes>({.slots = 1});
  auto loan = channel.loan<Sample>(1000);
  (*loan)[9].number = 7;
  loan->shrink(10);
  ASSERT_TRUE(channel.send(std::vector<std::byte>(1)));
  EXPECT_THAT(std::move(*loan).try_commit(), Fails(ErrorCode::would_block));
  ASSERT_TRUE(channel.receive());
  EXPECT_THAT(std::move(*loan).commit(), Succeeds()) << "the error left the loan as it was";
  EXPECT_THAT(std::move(*loan).commit(), Fails(ErrorCode::invalid_argument, "committed"));
  const auto bytes = channel.receive().value();
  EXPECT_EQ(bytes.as<Sample>().value()[9].number, 7);
  EXPECT_EQ(channel.stats().sent, 2);
}

TEST(ChannelBytes, MoreThanTheMemoryIsAnErrorAtOnce) {
  auto channel = make<Bytes>({.memory = 1_MiB});
  EXPECT_EQ(code_of(channel.loan(1_MiB + 1)), ErrorCode::message_too_large);
  EXPECT_EQ(code_of(channel.loan<std::uint64_t>(~0UL)), ErrorCode::message_too_large);
  EXPECT_EQ(code_of(channel.send(std::vector<std::byte>(1_MiB + 1))), ErrorCode::message_too_large);
  EXPECT_TRUE(channel.loan(1_MiB));
}

TEST(ChannelBytes, AreBoundedByTheMemory) {
  auto channel = make<Bytes>({.memory = 1_MiB});
  const std::vector<std::byte> half(512_KiB);
  ASSERT_TRUE(channel.send(half));
  ASSERT_TRUE(channel.send(half));
  EXPECT_EQ(code_of(channel.try_send(std::vector<std::byte>(193))), ErrorCode::would_block);
  EXPECT_EQ(code_of(channel.loan(193, 1ms)), ErrorCode::timed_out);
  EXPECT_TRUE(channel.try_send(std::vector<std::byte>(192)));  // needs none
  auto message = channel.receive();
  EXPECT_EQ(code_of(channel.try_loan(193)), ErrorCode::would_block);
  EXPECT_THAT(channel.try_loan(193).error().message,
              StartsWith("channel '" + channel.name() + "' is out of memory: "));
  *message = Bytes();
  EXPECT_TRUE(channel.try_loan(512_KiB));
}

TEST(ChannelBytes, WaitForMemoryThatAReceiverGivesBack) {
  auto channel = make<Bytes>({.memory = 1_MiB});
  Child receiver([&] {
    std::size_t bytes = 0;
    while (auto message = channel.receive()) bytes += message->size();
    return bytes == 200UL * 300000 ? 0 : 1;
  });
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(value_of(channel.loan(300000)).commit());
  channel.close();
  EXPECT_EQ(receiver.wait(), 0);
  EXPECT_EQ(channel.stats().outstanding, 0);
}

TEST(ChannelBytes, AfterAMoveTheSendersMemoryIsBack) {
  auto channel = make<Bytes>();
  const auto child = run_in_child([&]() -> std::string {
    (void)channel.loan(1_MiB).value().commit();
    const std::size_t before = own_status_kib("RssShmem");
    auto loan = channel.loan(64_MiB);
    std::memset(loan->data(), 3, loan->size());
    const std::size_t full = own_status_kib("RssShmem");
    (void)std::move(*loan).commit();
    const std::size_t after = own_status_kib("RssShmem");
    EXPECT_GE(full - before, 65536U);
    EXPECT_GE(full - after, 65536U - 1024);  // on a tmpfs the program's own pages are in it
    return HasFailure() ? "not back" : "back";
  });
  EXPECT_EQ(child.said, "back");
  ASSERT_TRUE(channel.receive());
  EXPECT_TRUE(all_are(channel.receive().value(), 3));
}

// A fault for each 2 MiB, in whoever maps it anew.
TEST(ChannelBytes, LargeOnesLieInHugePages) {
  if (test::kSanitized) GTEST_SKIP() << "a sanitizer's shadow memory faults too";
  if (test::has_no_huge_pages()) GTEST_SKIP() << "the kernel gives no huge pages to a memfd";
  auto channel = make<Bytes>({.memory = 64_MiB});
  auto loan = channel.loan(63_MiB + 1);
  std::memset(loan->data(), 3, loan->size());
  ASSERT_TRUE(std::move(*loan).commit());
  const auto received = channel.receive();
  const auto before = test::page_faults();
  EXPECT_TRUE(all_are(*received, 3));
  EXPECT_LT(test::page_faults() - before, 31 + 100);  // 256 pages are small
}

TEST(ChannelBytes, WhatWasReceivedAndDroppedHasNoMemory) {
  auto channel = make<Bytes>();
  for (int i = 0; i < 2; ++i) {
    const auto before = memory_of(channel);
    auto loan = channel.loan(32_MiB);
    EXPECT_GE(memory_of(channel), before + 32_MiB);
    ASSERT_TRUE(std::move(*loan).commit());
    ASSERT_TRUE(channel.receive());
    EXPECT_LE(memory_of(channel),
              before + 16_KiB + 4 * kPage);  // a chunk of the ring, and the block's word
  }
}

TEST(ChannelBytes, MemoryIsTakenWhenItIsUsed) {
  auto channel = make<Bytes>({.slots = 16384});
  EXPECT_LT(memory_of(channel), 96_KiB + 8 * kPage);
  for (const std::size_t size : {10UL, 1000UL, 10'000UL}) {
    const std::vector<std::byte> message(size);
    for (int i = 0; i < 100'000; ++i) {
      ASSERT_TRUE(channel.send(message));
      ASSERT_TRUE(channel.receive());
    }
    EXPECT_LT(memory_of(channel), 160_KiB + 8 * kPage) << size;
  }
}

TEST(ChannelBytes, TheRingGrowsAndGoesOnInOrder) {
  auto channel = make<Bytes>({.slots = 16384});
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  for (std::uint64_t depth = 1; depth <= 16384; depth *= 2) {
    for (int turn = 0; turn < 3; ++turn) {
      while (sent - received < depth)
        ASSERT_TRUE(channel.try_send(std::as_bytes(std::span(&++sent, 1))));
      EXPECT_LT(memory_of(channel), 128_KiB + 8 * kPage + 256 * depth);
      while (received < sent) {
        const auto bytes = value_of(channel.try_receive());
        ASSERT_EQ(bytes.as<std::uint64_t>().value()[0], ++received);
      }
    }
  }
  const std::span<const std::byte> nothing;
  for (int i = 0; i < 16384; ++i) ASSERT_TRUE(channel.try_send(nothing));
  EXPECT_THAT(channel.try_send(nothing), Fails(ErrorCode::would_block));
}

TEST(ChannelBytes, TakeAtMostTwiceTheirSize) {
  auto channel = make<Bytes>({.slots = 16384});
  for (std::size_t size = 193; size < 20'000; size += 97) {
    const auto loan = channel.loan(size);
    EXPECT_GE(channel.stats().outstanding, size);
    EXPECT_LE(channel.stats().outstanding, 2 * size) << size;
  }
  constexpr std::size_t kCount = 16'384;
  const std::vector<std::byte> message(1000, std::byte{7});
  const auto before = memory_of(channel);
  for (std::size_t i = 0; i < kCount; ++i) ASSERT_TRUE(channel.try_send(message));
  EXPECT_EQ(channel.stats().outstanding, kCount * 1024);
  EXPECT_LT(memory_of(channel) - before, kCount * 2 * 1000);
  while (const auto bytes = channel.try_receive()) EXPECT_TRUE(all_are(*bytes, 7));
  // The ring, the words, and the lowest 4 MiB of the blocks.
  EXPECT_LT(memory_of(channel) - before, 4_MiB + 4_MiB + 512_KiB);
  EXPECT_EQ(channel.stats().outstanding, 0);
}

TEST(ChannelBytes, AForkedChildsCopyFreesNothing) {
  auto channel = make<Bytes>();
  ASSERT_TRUE(channel.send(std::vector<std::byte>(10000, std::byte{9})));
  auto bytes = channel.receive().value();
  const auto child = run_in_child([&]() -> std::string {
    (void)channel.send(std::vector<std::byte>(1));  // takes part
    const bool read = all_are(bytes, 9);
    bytes = Bytes();
    return read ? "read" : "not read";
  });
  EXPECT_EQ(child.said, "read");
  EXPECT_EQ(channel.stats().outstanding, memory_for(10000));
  EXPECT_TRUE(all_are(bytes, 9));
}

// By copy and by move, more than an `int` counts.  The receiver reads it where it is.
TEST(ChannelBytes, FiveGibibytesInOneMessage) {
  if (test::kSanitized) GTEST_SKIP() << "takes minutes under a sanitizer";
  constexpr std::size_t kSize = 5_GiB;
  const std::size_t room = std::min(available_memory(), MemoryLimits::of_this_process().headroom());
  if (room < kSize + 1_GiB) {
    GTEST_SKIP() << "needs " << (kSize + 1_GiB) / 1_MiB << " MiB, " << room / 1_MiB
                 << " MiB are available";
  }
  auto channel = make<Bytes>({.memory = kSize});
  // A mark in each MiB says where it is.
  const auto mark_all = [](std::byte* data, std::size_t size) {
    for (std::size_t i = 0; i < size; i += 1_MiB) std::memcpy(data + i, &i, 8);
  };
  const auto receive = [&] {
    const std::size_t before = own_status_kib("RssAnon");
    const auto bytes = channel.receive();
    std::size_t right = 0;
    for (std::size_t i = 0; bytes && bytes->size() == kSize && i < kSize; i += 1_MiB) {
      std::uint64_t mark = 0;
      std::memcpy(&mark, bytes->data() + i, 8);
      right += mark == i ? 1 : 0;
    }
    if (own_status_kib("RssAnon") > before + 16_MiB / 1_KiB) return 2;
    return right == kSize / 1_MiB ? 0 : 1;
  };
  {
    auto loan = value_of(channel.loan(kSize));
    mark_all(loan.data(), kSize);
    ASSERT_TRUE(std::move(loan).commit());
  }
  EXPECT_EQ(Child(receive).wait(), 0);
  // The source of the copy: a page for each mark, else the page of zeros.
  void* source = mmap(nullptr, kSize, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(source, MAP_FAILED);
  madvise(source, kSize, MADV_NOHUGEPAGE);
  mark_all(static_cast<std::byte*>(source), kSize);
  Child copied(receive);
  EXPECT_THAT(channel.send(std::span(static_cast<const std::byte*>(source), kSize)), Succeeds());
  EXPECT_EQ(copied.wait(), 0);
  munmap(source, kSize);
  EXPECT_EQ(channel.stats().bytes_received, 2 * kSize);
}

}  // namespace
}  // namespace cowshed
