#include <unordered_map>

#include "generations.h"
#include "share.h"

namespace cowshed {
namespace {

TEST(Refreeze, WhatWasWrittenBecomesShared) {
  Arena arena = make_arena(256_MiB);
  auto* text = static_cast<char*>(arena.allocate(64_MiB, kRange));
  std::memset(text, 'a', 64_MiB);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  ChildOfBefore before([&]() -> std::string {
    return std::to_string(std::count(text, text + 64_MiB, 'a') ==
                          static_cast<std::ptrdiff_t>(64_MiB)) +
           std::to_string(own_bytes(arena));
  });
  // Pages of three ranges, two of them neighbours.
  for (const std::size_t offset : {std::size_t{0}, 4096UL, 3_MiB, 40_MiB}) text[offset] = 'b';
  EXPECT_EQ(private_bytes(arena), 4 * 4096U);
  std::vector<std::size_t> told;
  const auto refrozen = arena.refreeze([&](std::size_t done, std::size_t total) {
    EXPECT_EQ(total, 3 * kRange);
    told.push_back(done);
  });
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back(), 3 * kRange);
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(own_bytes(arena), 0U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_EQ(std::count(text, text + 64_MiB, 'b'), 4);
  EXPECT_EQ(text[40_MiB], 'b');
  ASSERT_EQ(segments(arena).size(), 2U);
  EXPECT_EQ(segment_at(arena, text).bytes, 3 * kRange);  // what it cost
  EXPECT_EQ(arena.stats().generation, 2U);
  EXPECT_EQ(before.run(), "10");
  const auto child = run_in_child([&] {
    const auto count = std::count(text, text + 64_MiB, 'b');
    return std::to_string(count) + " " + std::to_string(own_bytes(arena));
  });
  EXPECT_EQ(child.said, "4 0");
}

TEST(Refreeze, ManyScatteredWrites) {
  constexpr std::size_t kWrites = 100;
  constexpr std::size_t kSize = kWrites * 2 * kRange;
  Arena arena = make_arena(kSize + 64_MiB);
  auto* bytes = static_cast<unsigned char*>(arena.allocate(kSize, kRange));
  for (std::size_t range = 0; range < 2 * kWrites; ++range)
    std::memset(bytes + range * kRange, static_cast<int>(range), 4096);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  for (std::size_t i = 0; i < kWrites; ++i) bytes[i * 2 * kRange + 4095] = 0xff;
  const auto refrozen = arena.refreeze();
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_LE(mappings(arena).size(), 2 * 64U + 4);
  EXPECT_GE(segment_at(arena, bytes).bytes, kWrites * kRange);
  std::size_t wrong = 0;
  for (std::size_t range = 0; range < 2 * kWrites; ++range) {
    const unsigned char* page = bytes + range * kRange;
    const auto same = std::count(page, page + 4095, static_cast<unsigned char>(range));
    wrong += same == 4095 && page[4095] == (range % 2 == 0 ? 0xff : range) ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0U);
}

TEST(Refreeze, NeedsAFrozenArena) {
  Arena arena = make_arena();
  EXPECT_THAT(arena.refreeze(), Fails(ErrorCode::arena_not_frozen));
  EXPECT_THAT(arena.thaw(), Fails(ErrorCode::arena_not_frozen));
  ASSERT_TRUE(arena.make<int>(1));
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(arena.thaw());
  EXPECT_THAT(arena.thaw(), Fails(ErrorCode::arena_not_frozen, "refreeze() it first"));
  EXPECT_THAT(arena.prefault(), Fails(ErrorCode::arena_not_frozen));
  EXPECT_THAT(arena.freeze(FreezeMode::lenient), Fails(ErrorCode::arena_frozen));
  ASSERT_TRUE(arena.make<int>(2));
  ASSERT_TRUE(arena.freeze());  // the same as refreeze()
  EXPECT_EQ(arena.stats().generation, 2U);
}

TEST(Thaw, OfAFullArenaIsAnError) {
  Arena arena = make_arena(4_MiB);
  const Error full = refusal_of([&] {
    for (;;) (void)arena.allocate(100);
  });
  EXPECT_EQ(full.code, ErrorCode::capacity_exceeded);
  ASSERT_TRUE(arena.freeze());
  EXPECT_THAT(arena.thaw(), Fails(ErrorCode::capacity_exceeded));
  EXPECT_TRUE(arena.stats().frozen);
}

// A full lenient arena can still make what was written to shared again.
TEST(Refreeze, OfAFullArena) {
  Arena arena = make_arena(4_MiB);
  char* last = nullptr;
  (void)refusal_of([&] {
    for (;;) last = static_cast<char*>(arena.allocate(1000));
  });
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  *last = 'x';
  const auto refrozen = arena.refreeze();
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(*last, 'x');
  EXPECT_EQ(find_unsealed(arena), "");
}

// What a worker has warmed its own workers share, once it has made a generation of it.
TEST(Refork, FromAWarmWorker) {
  constexpr std::size_t kAnswers = 1 << 20;
  using Notes = std::pmr::unordered_map<int, std::pmr::string>;
  Arena arena = make_arena(256_MiB);
  auto answers = arena.make_array<std::uint64_t>(kAnswers);  // 0: not known yet
  auto notes = arena.make<Notes>();
  ASSERT_TRUE(answers && notes);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  const auto read_all = [&]() -> std::string {
    std::uint64_t total = 0;
    for (const std::uint64_t answer : *answers) total += answer;
    return std::to_string(total) + " " + std::to_string((*notes)->size()) + " " +
           std::to_string(own_bytes(arena)) + " " + std::to_string(private_bytes(arena));
  };
  const auto worker = run_in_child([&]() -> std::string {
    for (std::uint64_t& answer : *answers) answer = 7;
    if (private_bytes(arena) < kAnswers * sizeof(std::uint64_t) ||
        own_bytes(arena) != private_bytes(arena)) {
      return "not written privately";
    }
    if (!arena.thaw()) return "no thaw";
    for (int i = 0; i < 1000; ++i) (*notes)->emplace(i, std::string(100, 'n'));
    if (!arena.refreeze()) return "no refreeze";
    std::string said;
    for (int i = 0; i < 3; ++i) said += run_in_child(read_all).said + "\n";
    return said;
  });
  const std::string line = std::to_string(kAnswers * 7) + " 1000 0 0\n";
  EXPECT_EQ(worker.said, line + line + line);
  EXPECT_EQ(read_all(), "0 0 0 0");  // the first parent has nothing of it
}

}  // namespace
}  // namespace cowshed
