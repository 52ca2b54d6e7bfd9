#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

// What an arena of several generations has in memory.

constexpr std::size_t kRange = 2_MiB;

// A memfd of an arena that this process has open.
struct Segment {
  int fd;
  ino_t inode;
  std::size_t bytes;  // that it holds
  bool sealed;
};

// In no order.
std::vector<Segment> segments(const Arena& arena) {
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  std::vector<Segment> result;
  for (const int fd :
       test::descriptors_of("/memfd:cowshed:" + std::string(arena.name()) + " (deleted)")) {
    struct stat status{};
    if (fstat(fd, &status) == 0) {
      result.push_back({fd, status.st_ino, static_cast<std::size_t>(status.st_blocks) * 512,
                        (fcntl(fd, F_GET_SEALS) & kSeals) == kSeals});
    }
  }
  return result;
}

std::vector<test::Mapping> mappings(const Arena& arena) {
  std::vector<test::Mapping> result = test::all_mappings();
  const auto begin = reinterpret_cast<std::uintptr_t>(arena.base());
  std::erase_if(result, [&](const test::Mapping& mapping) {
    return mapping.begin < begin || mapping.begin >= begin + arena.stats().capacity;
  });
  return result;
}

// That which has what is at this address.
Segment segment_at(const Arena& arena, const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const test::Mapping& mapping : mappings(arena)) {
    for (const Segment& segment : segments(arena))
      if (at >= mapping.begin && at < mapping.end && segment.inode == mapping.inode) return segment;
  }
  return {-1, 0, 0, false};
}

// "" or what is wrong: every memfd that the arena shows is sealed, and mapped privately.
std::string find_unsealed(const Arena& arena) {
  std::set<ino_t> sealed;
  for (const Segment& segment : segments(arena)) {
    if (!segment.sealed) return "a memfd without seals";
    if (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd, 0) != MAP_FAILED)
      return "a memfd that can be mapped for writing";
    sealed.insert(segment.inode);
  }
  for (const test::Mapping& mapping : mappings(arena)) {
    if (mapping.inode != 0 && sealed.count(mapping.inode) == 0)
      return "a mapping of something else";
    if (mapping.permissions[3] != 'p') return "a shared mapping";
  }
  return "";
}

std::size_t private_bytes(const Arena& arena) {
  return arena.private_bytes().value_or(~std::size_t{0});
}

std::size_t own_bytes(const Arena& arena) {
  return test::own_pages(arena.base(), arena.stats().used) * 4096;
}

// A child that runs its body only when told to.
class ChildOfBefore {
 public:
  explicit ChildOfBefore(const std::function<std::string()>& body)
      : child_([&](const test::Line& test) {
          if (test.hear()) test.say(body());
          return 0;
        }) {}

  std::string run() const {
    child_.say();
    return child_.hear().value_or("");
  }

 private:
  Child child_;
};

class Generations : public testing::TestWithParam<FreezeMode> {};
COWSHED_EVERY_MODE(Generations);

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

// Copying is in proportion to what is added, and files and mappings are few, however many
// generations there were.
TEST_P(Generations, CostNoMoreThanTheirLogarithm) {
  const std::size_t count = test::little_or<std::size_t>(39, 200);
  const bool lenient = GetParam() == FreezeMode::lenient;
  Arena arena = make_arena(1_GiB);
  auto* old_bytes = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  auto* freed = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  if (old_bytes < freed) std::swap(old_bytes, freed);
  std::memset(old_bytes, 0, 32_MiB);
  arena.deallocate(freed, 32_MiB, kRange);  // a hole, which no generation may fill
  ASSERT_TRUE(arena.freeze(GetParam()));
  const std::size_t returned = arena.stats().returned_bytes;
  EXPECT_GE(returned, 30_MiB);
  const std::size_t descriptors = test::open_descriptors();
  std::vector<std::size_t*> added;
  std::size_t copied = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (lenient) old_bytes[i % 16U * kRange + i] = 1;
    ASSERT_TRUE(arena.thaw());
    added.push_back(arena.make<std::size_t>(i).value());
    std::size_t total = 0;
    ASSERT_THAT(arena.refreeze([&](std::size_t, std::size_t all) { total = all; }), Succeeds());
    copied += total;
    ASSERT_EQ(arena.stats().generation, i + 2);
    ASSERT_EQ(find_unsealed(arena), "");
    ASSERT_LE(test::open_descriptors(), descriptors + (count < 40 ? 8 : 10));
    ASSERT_LE(mappings(arena).size(), count < 40 ? 60U : 80U);
    std::size_t held = 0;
    for (const Segment& segment : segments(arena)) held += segment.bytes;
    const ArenaStats now = arena.stats();
    if (!lenient) ASSERT_EQ(held, now.used - now.returned_bytes);
    ASSERT_LE(held, 3 * (now.used - now.returned_bytes));
  }
  // 8 is the logarithm of 200; a lenient one adds what was written to.
  EXPECT_LE(copied, count * kRange * 2 * 8);
  EXPECT_EQ(private_bytes(arena), 0U);
  for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(*added[i], i);
  const ArenaStats stats = arena.stats();
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  EXPECT_EQ(stats.live_allocations, 1U + count);
  EXPECT_EQ(stats.returned_bytes, returned);
  EXPECT_EQ(stats.huge_page_bytes + stats.small_page_bytes + stats.returned_bytes, stats.used);
  const auto child = run_in_child([&] {
    return std::to_string(std::count(old_bytes, old_bytes + 32_MiB, 1)) + " " +
           std::to_string(*added.back()) + " " + std::to_string(own_bytes(arena));
  });
  EXPECT_EQ(child.said,
            std::to_string(lenient ? count : 0) + " " + std::to_string(count - 1) + " 0");
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
  for (const bool is_empty : {false, true}) {
    Arena arena = make_arena();
    if (!is_empty) ASSERT_TRUE(arena.make<int>(1));
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
    EXPECT_EQ(find_unsealed(arena), "");
    ASSERT_TRUE(arena.thaw());
    const int* value = arena.make<int>(2).value();
    ASSERT_TRUE(arena.refreeze());
    EXPECT_EQ(run_in_child([&] { return std::to_string(*value); }).said, "2");
  }
}

TEST_P(Generations, KeepNoAddressesOfEarlierOnes) {
  const auto addresses_after = [&](int generations) {
    Arena arena = make_arena();
    EXPECT_TRUE(arena.freeze(GetParam()));
    for (int i = 0; i < generations; ++i) {
      EXPECT_TRUE(arena.thaw());
      (void)arena.allocate(1000);
      EXPECT_TRUE(arena.refreeze());
    }
    return test::figure_of("/proc/self/status", "VmSize");
  };
  const std::size_t few = addresses_after(2);
  EXPECT_LT(addresses_after(20), few + (10_MiB >> 10U));
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
  EXPECT_THAT(arena.refreeze(), FailsBy(EBUSY));
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
  ASSERT_THAT(arena.refreeze(), Succeeds());
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
  EXPECT_TRUE(arena.freeze());  // again is nothing
  EXPECT_THAT(arena.freeze(FreezeMode::lenient), Fails(ErrorCode::arena_frozen));
  ASSERT_TRUE(arena.thaw());
  EXPECT_THAT(arena.thaw(), Fails(ErrorCode::arena_not_frozen, "refreeze() it first"));
  EXPECT_THAT(arena.prefault(), Fails(ErrorCode::arena_not_frozen));
  EXPECT_THAT(arena.freeze(FreezeMode::lenient), Fails(ErrorCode::arena_frozen));
  ASSERT_TRUE(arena.make<int>(2));
  ASSERT_TRUE(arena.freeze());  // the same as refreeze()
  EXPECT_EQ(arena.stats().generation, 2U);
}

TEST(Thaw, AnArenaThatIsFullThenSaysSo) {
  Arena arena = make_arena(32_MiB);
  constexpr std::size_t kBlock = 7 * 256_KiB;                // a size class
  for (int i = 0; i < 8; ++i) (void)arena.allocate(kBlock);  // 18 MiB are left, in two pieces
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(arena.thaw());
  std::size_t more = 0;
  const Error full = refusal_of([&] {
    for (;; ++more) (void)arena.allocate(kBlock);
  });
  EXPECT_EQ(full.code, ErrorCode::capacity_exceeded);
  EXPECT_THAT(full.message,
              HasSubstr("with " + std::to_string((8 + more) * kBlock) + " bytes allocated"));
}

// It can still make what was written to shared again.
TEST(Refreeze, OfAFullArenaWhichCannotBeThawed) {
  Arena arena = make_arena(4_MiB);
  char* last = nullptr;
  const Error full = refusal_of([&] {
    for (;;) last = static_cast<char*>(arena.allocate(1000));
  });
  EXPECT_EQ(full.code, ErrorCode::capacity_exceeded);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  EXPECT_THAT(arena.thaw(), Fails(ErrorCode::capacity_exceeded));
  EXPECT_TRUE(arena.stats().frozen);
  *last = 'x';
  ASSERT_THAT(arena.refreeze(), Succeeds());
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(*last, 'x');
  EXPECT_EQ(find_unsealed(arena), "");
}

}  // namespace
}  // namespace cowshed
