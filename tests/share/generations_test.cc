#include "generations.h"

#include "share.h"

namespace cowshed {
namespace {

class Generations : public testing::TestWithParam<FreezeMode> {};
COWSHED_EVERY_MODE(Generations);

TEST_P(Generations, WhatWasAddedIsInheritedWithTheOld) {
  using Numbers = std::pmr::vector<int>;
  Arena arena = make_arena();
  ASSERT_TRUE(publish("old", arena.make<Numbers>(100000U, 1).value()));
  ASSERT_TRUE(arena.freeze(GetParam()));
  EXPECT_EQ(arena.stats().generation, 1U);
  ASSERT_TRUE(arena.thaw());
  EXPECT_FALSE(arena.stats().frozen);
  ASSERT_TRUE(publish("new", arena.make<Numbers>(2000000U, 2).value()));
  const auto refrozen = arena.refreeze();
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  const ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.generation, 2U);
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  EXPECT_EQ(stats.live_allocations, 4U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_EQ(private_bytes(arena), 0U);
  const auto child = run_in_child([&]() -> std::string {
    if (*find<Numbers>("old").value() != Numbers(100000, 1) ||
        *find<Numbers>("new").value() != Numbers(2000000, 2)) {
      return "other contents";
    }
    return find_unsealed(arena) + std::to_string(private_bytes(arena));
  });
  EXPECT_EQ(child.said, "0");
}

TEST_P(Generations, AChildOfBeforeKeepsItsOwn) {
  Arena arena = make_arena();
  auto* text = static_cast<char*>(arena.allocate(8_MiB, kRange));
  std::memset(text, 'a', 8_MiB);
  ASSERT_TRUE(arena.freeze(GetParam()));
  char* added = nullptr;
  ChildOfBefore before([&]() -> std::string {
    if (std::count(text, text + 8_MiB, 'a') != static_cast<std::ptrdiff_t>(8_MiB))
      return "the parent's writes show";
    if (own_bytes(arena) != 0 || arena.stats().generation != 1) return "not the first generation";
    // Goes on by itself, at the same addresses as its parent.
    if (!arena.thaw()) return "no thaw";
    auto* own = static_cast<char*>(arena.allocate(1_MiB));
    std::memset(own, 'o', 1_MiB);
    if (!arena.refreeze() || !find_unsealed(arena).empty()) return "no refreeze";
    return run_in_child([&] {
             return std::string{text[0], own[1_MiB - 1]} + std::to_string(private_bytes(arena));
           })
        .said;
  });
  if (GetParam() == FreezeMode::lenient) text[0] = text[5_MiB] = 'b';
  ASSERT_TRUE(arena.thaw());
  added = static_cast<char*>(arena.allocate(1_MiB));
  std::memset(added, 'c', 1_MiB);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(before.run(), "ao0");
  EXPECT_EQ(std::count(added, added + 1_MiB, 'c'), static_cast<std::ptrdiff_t>(1_MiB));
  EXPECT_EQ(text[0], GetParam() == FreezeMode::lenient ? 'b' : 'a');
}

TEST_P(Generations, AChildOfMeanwhileHasTheLast) {
  Arena arena = make_arena();
  const auto old_ref = value_of(publish(arena.make<int>(1).value()));
  ASSERT_TRUE(arena.freeze(GetParam()));
  ASSERT_TRUE(arena.thaw());
  int* new_one = arena.make<int>(2).value();
  const auto new_ref = value_of(publish(new_one));
  const auto work = [](const int&) { return 0; };
  EXPECT_TRUE(start({}, work, old_ref));
  EXPECT_THAT(start({}, work, new_ref), Fails(ErrorCode::arena_not_frozen));
  const auto child = run_in_child([&]() -> std::string {
    if (*old_ref != 1 || !arena.stats().frozen || arena.stats().generation != 1)
      return "not the last";
    if (outcome(new_ref) != "not_inherited" ||
        code_of(publish(new_one)) != ErrorCode::not_inherited) {
      return "inherited";
    }
    if (code_of(arena.make<int>(3)) != ErrorCode::arena_frozen) return "open";
    if (segments(arena).size() != 1) return "has the parent's new memory";
    if (!arena.thaw()) return "no thaw";
    auto own = arena.make<int>(4);
    if (!own || !arena.refreeze()) return "not its own";
    return std::to_string(**own) + find_unsealed(arena);
  });
  EXPECT_EQ(child.said, "4");
  EXPECT_EQ(*new_one, 2);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string(*new_ref); }).said, "2");
}

TEST_P(Generations, HaveNoMoreMappingsAndDescriptorsForBeingMany) {
  Arena arena = make_arena(512_MiB);
  auto* old_bytes = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  auto* freed = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  if (old_bytes < freed) std::swap(old_bytes, freed);
  std::memset(old_bytes, 0, 32_MiB);
  arena.deallocate(freed, 32_MiB, kRange);  // a hole, which no generation may fill
  ASSERT_TRUE(arena.freeze(GetParam()));
  const std::size_t returned = arena.stats().returned_bytes;
  EXPECT_GE(returned, 30_MiB);
  const std::size_t descriptors = test::open_descriptors();
  std::vector<int*> added;
  for (unsigned char generation = 2; generation <= 40; ++generation) {
    if (GetParam() == FreezeMode::lenient)
      old_bytes[generation % 16U * kRange + generation] = generation;
    ASSERT_TRUE(arena.thaw());
    added.push_back(arena.make<int>(generation).value());
    const auto refrozen = arena.refreeze();
    ASSERT_TRUE(refrozen) << refrozen.error().message;
    ASSERT_EQ(arena.stats().generation, generation);
    ASSERT_EQ(find_unsealed(arena), "");
    ASSERT_LE(test::open_descriptors(), descriptors + 8);
    ASSERT_LE(mappings(arena).size(), 60U);
    std::size_t held = 0;
    for (const test::Segment& segment : segments(arena)) held += segment.bytes;
    const ArenaStats now = arena.stats();
    if (GetParam() == FreezeMode::strict) ASSERT_EQ(held, now.used - now.returned_bytes);
    ASSERT_LE(held, 3 * (now.used - now.returned_bytes));
  }
  for (std::size_t i = 0; i < added.size(); ++i) EXPECT_EQ(*added[i], static_cast<int>(i + 2));
  const ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.live_allocations, 1U + added.size());
  EXPECT_EQ(stats.returned_bytes, returned);
  EXPECT_EQ(stats.huge_page_bytes + stats.small_page_bytes + stats.returned_bytes, stats.used);
  const auto child = run_in_child([&] {
    const auto written =
        std::count_if(old_bytes, old_bytes + 32_MiB, [](unsigned char byte) { return byte != 0; });
    return std::to_string(written) + " " + std::to_string(*added.back()) + " " +
           std::to_string(own_bytes(arena));
  });
  EXPECT_EQ(child.said, GetParam() == FreezeMode::lenient ? "39 40 0" : "0 40 0");
}

// Copying is in proportion to what is added, and files are few, however many generations there
// were.
TEST_P(Generations, HundredsCostNoMoreThanTheirLogarithm) {
  constexpr std::size_t kBase = 64_MiB;
  constexpr std::size_t kCount = 200;
  Arena arena = make_arena(1024_MiB);
  auto* base = static_cast<unsigned char*>(arena.allocate(kBase, kRange));
  std::memset(base, 1, kBase);
  ASSERT_TRUE(arena.freeze(GetParam()));
  const std::size_t descriptors = test::open_descriptors();
  std::size_t copied = 0;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (GetParam() == FreezeMode::lenient) base[i % 32 * kRange] = 2;
    ASSERT_TRUE(arena.thaw());
    ASSERT_TRUE(arena.make<std::size_t>(i));
    std::size_t total = 0;
    const auto refrozen = arena.refreeze([&](std::size_t, std::size_t all) { total = all; });
    ASSERT_TRUE(refrozen) << refrozen.error().message;
    copied += total;
    ASSERT_LE(test::open_descriptors(), descriptors + 10);
    ASSERT_LE(mappings(arena).size(), 80U);
  }
  // 8 is its logarithm; a lenient one adds what was written to.
  EXPECT_LE(copied, kCount * kRange * 2 * 8);
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(base[0], GetParam() == FreezeMode::lenient ? 2 : 1);
}

TEST_P(Generations, OldBlocksStayAndNewOnesAreReallyFreed) {
  Arena arena = make_arena();
  std::set<void*> old_blocks;
  for (int i = 0; i < 1000; ++i) old_blocks.insert(arena.allocate(48));
  ASSERT_TRUE(arena.freeze(GetParam()));
  ASSERT_TRUE(arena.thaw());
  std::vector<void*> new_blocks;
  for (int i = 0; i < 1000; ++i) {
    new_blocks.push_back(arena.allocate(48));
    EXPECT_EQ(old_blocks.count(new_blocks.back()), 0U);
  }
  EXPECT_EQ(arena.stats().live_allocations, 2000U);
  for (void* block : old_blocks) arena.deallocate(block, 48);
  EXPECT_EQ(arena.stats().dropped_frees, 1000U);
  EXPECT_EQ(arena.stats().live_allocations, 2000U);
  for (void* block : new_blocks) arena.deallocate(block, 48);
  EXPECT_EQ(arena.stats().live_allocations, 1000U);
  EXPECT_EQ(arena.stats().dropped_frees, 1000U);
  std::set<void*> again(new_blocks.begin(), new_blocks.end());
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(again.count(arena.allocate(48)), 1U);
  ASSERT_TRUE(arena.refreeze());
  arena.deallocate(new_blocks[0], 48);
  EXPECT_EQ(arena.stats().dropped_frees, 1001U);
}

TEST_P(Generations, NothingNewMakesNoGeneration) {
  Arena arena = make_arena();
  const int* value = arena.make<int>(1).value();
  ASSERT_TRUE(arena.freeze(GetParam()));
  const std::size_t descriptors = test::open_descriptors();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(arena.refreeze());
    ASSERT_TRUE(arena.thaw());
    ASSERT_TRUE(arena.refreeze());
    // What was freed again is nothing.
    ASSERT_TRUE(arena.thaw());
    arena.deallocate(arena.allocate(5_MiB), 5_MiB);
    ASSERT_TRUE(arena.refreeze());
  }
  EXPECT_EQ(arena.stats().generation, 1U);
  EXPECT_TRUE(arena.stats().frozen);
  EXPECT_EQ(test::open_descriptors(), descriptors);
  EXPECT_EQ(*value, 1);
  EXPECT_EQ(find_unsealed(arena), "");
}

TEST_P(Generations, OfAnEmptyArena) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze(GetParam()));
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(arena.thaw());
    ASSERT_TRUE(arena.refreeze());
  }
  ASSERT_TRUE(arena.thaw());
  const int* value = arena.make<int>(1).value();
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string(*value); }).said, "1");
}

TEST_P(Generations, ARefusedRefreezeChangesNothing) {
  Arena arena = make_arena();
  auto* old_bytes = static_cast<char*>(arena.allocate(8_MiB, kRange));
  std::memset(old_bytes, 'a', 8_MiB);
  ASSERT_TRUE(arena.freeze(GetParam()));
  const bool lenient = GetParam() == FreezeMode::lenient;
  if (lenient) old_bytes[3_MiB] = 'b';
  ASSERT_TRUE(arena.thaw());
  const int* added = arena.make<int>(1).value();
  const int fd = segment_at(arena, added).fd;
  void* other = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(other, MAP_FAILED);
  const std::size_t mapped = mappings(arena).size();
  const auto refused = arena.refreeze();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().system_errno, EBUSY);
  EXPECT_FALSE(arena.stats().frozen);
  EXPECT_EQ(arena.stats().generation, 1U);
  EXPECT_EQ(mappings(arena).size(), mapped);
  EXPECT_EQ(own_bytes(arena), lenient ? 4096U : 0U);
  // Of the old part nothing is mapped of what can still be written to.
  std::memset(other, 'z', 4096);
  EXPECT_EQ(std::count(old_bytes, old_bytes + 8_MiB, 'a'),
            static_cast<std::ptrdiff_t>(8_MiB - (lenient ? 1 : 0)));
  const int* more = arena.make<int>(2).value();
  munmap(other, 4096);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(arena.stats().generation, 2U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(*added + *more, 3);
  EXPECT_EQ(old_bytes[3_MiB], lenient ? 'b' : 'a');
}

}  // namespace
}  // namespace cowshed
