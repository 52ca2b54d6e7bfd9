#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/arena_image.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/tests/share/share.h>

#include "random_blocks.h"

namespace cowshed {
namespace {

struct WordIndex {
  using allocator_type = std::pmr::polymorphic_allocator<>;
  explicit WordIndex(allocator_type allocator) : words(allocator) {}

  std::pmr::unordered_map<std::pmr::string, int> words;
};

TEST(Arena, MembersOfWhatIsMadeLieInTheArena) {
  Arena arena = make_arena();
  auto* index = value_of(arena.make<WordIndex>());
  const auto [entry, added] = index->words.emplace("a word that is too long to be inside", 1);
  EXPECT_TRUE(arena.contains(index));
  EXPECT_TRUE(arena.contains(&*entry));
  EXPECT_TRUE(arena.contains(entry->first.data()));
  EXPECT_FALSE(arena.contains(&arena));
}

TEST(Arena, IsAMemfdOfItsName) {
  Arena arena = make_arena(64_MiB, "my index");
  EXPECT_EQ(test::mapping_name(arena.base()), "/memfd:cowshed:my index (deleted)");
  ASSERT_TRUE(arena.make<int>(1));
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(test::mapping_name(arena.base()), "/memfd:cowshed:my index (deleted)");
}

TEST(Arena, MayBeLargerThanTheMachine) {
  Arena arena = make_arena(256_GiB);
  const int* value = value_of(arena.make<int>(7));
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(*value, 7);
  EXPECT_LE(arena.stats().used, 64_MiB);
}

// jemalloc's records of its addresses lie beside theirs.
TEST(Arena, OnesEndForgetsNothingOfOthers) {
  Arena other = make_arena(8_GiB, "other");
  void* block = other.allocate(1_MiB);
  {
    const Arena ended = make_arena(64_GiB, "ended");
  }
  other.deallocate(block, 1_MiB);
  EXPECT_EQ(other.stats().live_allocations, 0U);
  EXPECT_NE(other.allocate(2_MiB), nullptr);
}

TEST(Arena, AddressTakenNamesWhatIsThere) {
  const Arena first = make_arena(64_MiB, "first");
  const auto address = reinterpret_cast<std::uintptr_t>(first.base());
  EXPECT_THAT(Arena::create({.name = "second", .capacity = 1_MiB, .address = address}),
              Fails(ErrorCode::address_taken, "/memfd:cowshed:first"));
}

TEST(Arena, AnAddressOfOnesOwnIsUsed) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(make_arena().base());
  const Arena arena =
      value_of(Arena::create({.name = "here", .capacity = 1_MiB, .address = address}));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.base()), address);
}

TEST(Arena, BadOptionsAreErrors) {
  for (const ArenaOptions& options :
       std::vector<ArenaOptions>{{.name = "", .capacity = 1},
                                 {.name = "a\nb", .capacity = 1},
                                 {.name = std::string(64, 'x'), .capacity = 1},
                                 {.name = "x"},
                                 {.name = "x", .capacity = 1, .address = 4096}}) {
    EXPECT_THAT(Arena::create(options), Fails(ErrorCode::invalid_argument)) << options.name;
  }
  for (const std::uintptr_t address :
       {0xffffffffffe00000UL, arch::kEndOfAddresses / 2_MiB * 2_MiB}) {
    EXPECT_THAT(Arena::create({.name = "x", .capacity = 4_MiB, .address = address}),
                Fails(ErrorCode::invalid_argument, "where a process's addresses end"));
  }
}

TEST(Arena, CapacityExceededIsABadAllocThatSaysSo) {
  for (const std::size_t capacity : {4_MiB, 22_MiB}) {  // the second is in two pieces
    Arena arena = make_arena(capacity);
    std::size_t blocks = 0;
    const Error error = refusal_of([&] {
      for (;; ++blocks) (void)arena.resource()->allocate(1000, 8);
    });
    EXPECT_THAT(error.message, HasSubstr("arena 'index': capacity of " + std::to_string(capacity) +
                                         " bytes exceeded"));
    EXPECT_THAT(error.message, HasSubstr("larger .capacity"));
    EXPECT_GT(blocks * 1000, capacity - 1_MiB);  // most of it was usable
    EXPECT_THAT((arena.make<std::array<char, 100000>>()), Fails(ErrorCode::capacity_exceeded));
  }
}

// Blocks that were freed make room for larger ones, however often.
TEST(Arena, OneBlockMayTakeAllOfItAlsoAfterOthers) {
  Arena arena = make_arena(64_MiB);
  for (std::size_t size = 1_MiB; size <= 64_MiB; size += 1_MiB) {
    // Rounded up it is larger than all of it.
    EXPECT_EQ(refusal_of([&] { arena.deallocate(arena.allocate(size), size); }).message,
              "allocated");
  }
  std::vector<void*> small;
  (void)refusal_of([&] {
    for (;;) small.push_back(arena.allocate(48));
  });
  for (void* block : small) arena.deallocate(block, 48);
  void* all = arena.allocate(64_MiB);
  EXPECT_EQ(all, arena.base());
  arena.deallocate(all, 64_MiB);
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(Arena, WhatDoesNotFitIsSaidWithWhatItTakes) {
  Arena arena = make_arena(100_MiB);
  void* most = arena.allocate(96_MiB);
  EXPECT_TRUE(arena.contains(most));
  arena.deallocate(most, 96_MiB);
  const Error error = refusal_of([&] { arena.allocate(99_MiB); });
  EXPECT_EQ(error.code, ErrorCode::capacity_exceeded);
  EXPECT_EQ(error.message,
            "arena 'index': capacity of 104857600 bytes exceeded by a request for 103809024 "
            "bytes, which takes 117440512 in one piece, with 0 bytes allocated; create it with a "
            "larger .capacity");
}

TEST(Arena, AbsurdSizesAreErrorsThatSaySo) {
  Arena arena = make_arena();
  for (const auto& [size, alignment] :
       {std::pair{SIZE_MAX, std::size_t{16}}, std::pair{SIZE_MAX, 4_MiB},
        std::pair{1024_GiB, 8_KiB}, std::pair{std::size_t{8}, std::size_t{1} << 62U},
        std::pair{std::size_t{8}, std::size_t{1} << 63U}}) {
    const Error error = refusal_of([&] { arena.allocate(size, alignment); });
    EXPECT_EQ(error.code, ErrorCode::capacity_exceeded);
    EXPECT_THAT(error.message, HasSubstr("exceeded by a request for")) << size;
  }
  for (const std::size_t count : {SIZE_MAX, SIZE_MAX / 4, SIZE_MAX / 8, SIZE_MAX / 4 + 1})
    EXPECT_THAT(arena.make_array<int>(count), Fails(ErrorCode::capacity_exceeded, "arena 'index'"));
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(Arena, WhatAConstructorThrowsPassesAndItsMemoryIsGivenBack) {
  struct Thrower {
    Thrower() { throw std::runtime_error("no"); }
  };
  Arena arena = make_arena();
  EXPECT_THROW((void)arena.make<Thrower>(), std::runtime_error);
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

// Blocks of many sizes and alignments, each with a pattern of its own, freed in random order by
// several threads, and by others than those that took them.  What is left is there in each child,
// which frees all of it and copies nothing.
class RandomMix : public testing::TestWithParam<FreezeMode> {
 protected:
  void free_block(const test::RandomBlock& block) {
    damaged_ += block.intact() ? 0 : 1;
    arena_.resource()->deallocate(block.bytes, block.size, block.alignment);
  }

  Arena arena_ = make_arena(4_GiB, "mixed");
  std::atomic<std::size_t> damaged_ = 0;
};
COWSHED_EVERY_MODE(RandomMix);

TEST_P(RandomMix, KeepsEveryByte) {
  constexpr unsigned kThreads = 4;
  const int steps = test::little_or(5'000, test::sized(100'000, 20'000));
  SCOPED_TRACE("seed " + std::to_string(test::seed()));
  std::array<std::vector<test::RandomBlock>, kThreads> blocks;
  (void)begin_threads(kThreads, [&](unsigned i) {
    std::mt19937 random(test::seed() * 100 + i);
    auto& mine = blocks.at(i);
    for (int step = 0; step < steps; ++step) {
      auto block = test::RandomBlock::draw(random, random() % 1000 == 0 ? 19 : 13);
      block.size -= step % 100 == 0 ? block.size : 0;
      mine.push_back(block.fill(arena_.resource()->allocate(block.size, block.alignment)));
      EXPECT_TRUE(arena_.contains(block.bytes));
      if (random() % 3 == 0) {
        std::swap(mine[random() % mine.size()], mine.back());
        free_block(mine.back());
        mine.pop_back();
      }
    }
  });
  // Blocks of threads that are gone.
  (void)begin_threads(kThreads, [&](unsigned i) {
    auto& theirs = blocks.at((i + 1) % kThreads);
    for (const std::size_t half = theirs.size() / 2; theirs.size() > half; theirs.pop_back())
      free_block(theirs.back());
  });
  std::size_t left = 0;
  for (const auto& list : blocks) left += list.size();
  EXPECT_EQ(arena_.stats().live_allocations, left);
  ASSERT_TRUE(arena_.freeze(GetParam()));
  const auto check_and_free = [&] {
    for (const auto& list : blocks)
      for (const auto& block : list) free_block(block);
    return std::to_string(damaged_) + " damaged, " +
           std::to_string(test::own_pages(arena_.base(), arena_.stats().used)) + " copied, " +
           std::to_string(arena_.stats().dropped_frees) + " dropped";
  };
  for (int child = 0; child < 2; ++child) {
    EXPECT_EQ(run_in_child(check_and_free).said,
              "0 damaged, 0 copied, " + std::to_string(left) + " dropped");
  }
  EXPECT_EQ(damaged_, 0U);
  EXPECT_EQ(arena_.stats().dropped_frees, 0U);  // the children's are their own
}

TEST(Arena, ThreadsThatEndLeaveNoCachesBehind) {
  Arena arena = make_arena(512_MiB);
  for (int i = 0; i < 5000; ++i)  // jemalloc has 4,094 caches at a time
    std::thread([&] { arena.resource()->deallocate(arena.resource()->allocate(64), 64); }).join();
  EXPECT_EQ(arena.stats().live_allocations, 0U);
  EXPECT_LE(arena.stats().used, 64_MiB);
}

TEST(Arena, APlaceIsUsedAgain) {
  std::optional<Arena> first = make_arena();
  const Arena second = make_arena();
  EXPECT_GT(second.base(), first->base());
  const std::byte* free_place = first->base();
  first.reset();
  EXPECT_EQ(make_arena().base(), free_place);
  EXPECT_GT(make_arena(256_MiB).base(), second.base());  // too large for the gap
}

// What each call says that an open arena allows.
template <class Expect>
void use_in_every_way(Arena& arena, const Expect& expect) {
  const auto expect_thrown = [&](const char* what, const auto& allocate) {
    expect(what, Expected<void>(tl::make_unexpected(refusal_of(allocate))));
  };
  const UseArena use(arena);
  expect_thrown("allocator", [] { (void)ArenaAllocator<int>().allocate(1); });
  expect_thrown("allocate", [&] { (void)arena.allocate(48); });
  expect_thrown("resource", [&] { (void)arena.resource()->allocate(48); });
  expect("make", arena.make<int>(8));
  expect("make_array", arena.make_array<int>(100));
  expect("freeze", arena.freeze());
  expect("thaw", arena.thaw());
  expect("refreeze", arena.refreeze());
  expect("collapse", arena.collapse());
  expect("prefault", arena.prefault());
  expect("private_bytes", arena.private_bytes());
}

// Whatever a child does with an arena that was open at the fork is this error, and nothing to the
// parent.
TEST(Arena, AForkWhileItIsOpenIsCaught) {
  Arena arena = make_arena();
  int* value = *arena.make<int>(7);
  const auto ref = value_of(publish("value", value));
  const auto before = arena.stats();
  const std::string why = "not frozen when this process was forked; freeze() it before the fork";
  const auto child = run_in_child([&] {
    std::string wrong;
    const auto expect = [&](const char* what, const auto& result) {
      if (!testing::Value(result, Fails(ErrorCode::not_inherited, why)))
        wrong += std::string(" ") + what;
    };
    use_in_every_way(arena, expect);
    expect("publish", publish("another", value));
    expect("publish without a name", publish(value));
    expect("find", find<int>("value"));
    expect("get", ref.get());
    arena.deallocate(value, sizeof *value);
    if (!test::mapping_name(value).empty()) wrong += " mapped";
    return wrong;
  });
  EXPECT_EQ(child.said, "");
  EXPECT_EQ(child.exit_code, 0);
  EXPECT_EQ(*value, 7);
  EXPECT_EQ(*ref, 7);
  EXPECT_EQ(arena.stats().live_allocations, before.live_allocations);
  EXPECT_EQ(arena.stats().dropped_frees, 0U);
  EXPECT_TRUE(arena.make<int>(8));
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string(*ref); }).said, "7");
}

// Each thread gives up what it has of the one while that is being destroyed.
TEST(Arena, ThreadsMoveOnWhileAnArenaIsDestroyed) {
  constexpr int kThreads = 16;
  for (int round = 0; round < 40; ++round) {
    std::optional<Arena> first = make_arena();
    Arena second = make_arena();
    std::atomic<int> ready = 0;
    std::atomic<bool> wrong = false;
    auto threads = begin_threads(kThreads, [&](int i) {
      first->deallocate(first->allocate(64), 64);
      ++ready;
      while (ready < kThreads) std::this_thread::yield();
      std::vector<unsigned char*> blocks;
      for (int k = 0; k < 100; ++k) {
        blocks.push_back(static_cast<unsigned char*>(second.allocate(200)));
        std::memset(blocks.back(), i + 1, 200);
      }
      for (unsigned char* block : blocks) {
        wrong = wrong || std::count(block, block + 200, i + 1) != 200;
        second.deallocate(block, 200);
      }
    });
    while (ready < kThreads) std::this_thread::yield();
    first.reset();
    threads.clear();
    ASSERT_FALSE(wrong);
    ASSERT_EQ(second.stats().live_allocations, 0U);
  }
}

// ---- Handles, and pointers, that have outlived their arena.

template <class Allocate>
std::string refusal(Allocate allocate) {
  const Error error = refusal_of(allocate);
  EXPECT_EQ(error.code, ErrorCode::invalid_argument);
  return error.message;
}

TEST(ArenaHandle, ThatWasMovedFromAnswersEveryCall) {
  Arena first = make_arena(256_MiB);
  Arena arena = std::move(first);
  Arena& gone = first;  // NOLINT(bugprone-use-after-move): what this is about
  void* block = arena.allocate(16);
  gone.deallocate(block, 16);
  EXPECT_EQ(arena.stats().live_allocations, 1U);
  EXPECT_FALSE(gone.contains(block));
  EXPECT_EQ(gone.name(), "");
  EXPECT_EQ(gone.base(), nullptr);
  EXPECT_EQ(gone.stats().capacity, 0U);
  const auto expect_error = [&](const char* what, const auto& result) {
    EXPECT_THAT(result, Fails(ErrorCode::invalid_argument, "moved from")) << what;
  };
  use_in_every_way(gone, expect_error);
  const auto path = std::filesystem::temp_directory_path() / "cowshed-moved-from";
  expect_error("save_image", save_image(gone, path));
  EXPECT_TRUE(arena.freeze());
  gone = make_arena(256_MiB, "another");
  EXPECT_TRUE(gone.contains(gone.allocate(16)));
}

TEST(ArenaHandle, AnAssignmentDestroysTheArenaThatItHad) {
  Arena arena = make_arena(64_MiB, "first");
  auto* resource = arena.resource();
  Arena second = make_arena(64_MiB, "second");
  arena = std::move(second);
  EXPECT_THAT(refusal([&] { (void)resource->allocate(16); }), HasSubstr("destroyed"));
  EXPECT_EQ(arena.name(), "second");
  EXPECT_EQ(second.name(), "");  // NOLINT(bugprone-use-after-move): what this is about
  Arena& self = arena;
  arena = std::move(self);
  EXPECT_EQ(arena.name(), "second");
  EXPECT_TRUE(arena.contains(arena.allocate(16)));
}

// The next arena takes the same place and the same record; what is left of the first must not reach
// it, whatever it is.
TEST(ArenaHandle, APointerThatOutlivedItsArenaDoesNotReachTheNext) {
  std::optional<Arena> first = make_arena(256_MiB, "first");
  std::pmr::memory_resource* resource = first->resource();
  std::byte* base = first->base();
  void* block = first->allocate(64);
  const UseArena use(*first);
  first.reset();
  Arena second = make_arena(256_MiB, "second");
  ASSERT_EQ(second.base(), base);
  auto* ours = static_cast<char*>(second.allocate(64));
  ASSERT_EQ(ours, block);
  EXPECT_THAT(refusal([&] { (void)resource->allocate(64); }), HasSubstr("was destroyed before"));
  EXPECT_THAT(refusal([] { (void)ArenaAllocator<int>().allocate(1); }),
              HasSubstr("was destroyed before"));
  resource->deallocate(block, 64);
  EXPECT_EQ(second.stats().live_allocations, 1U);
  EXPECT_NE(second.allocate(64), ours);
}

TEST(ArenaHandle, ManyUsedInTurnByOneThread) {
  std::vector<std::unique_ptr<Arena>> arenas;
  for (int i = 0; i < 200; ++i)
    arenas.push_back(std::make_unique<Arena>(make_arena(4_MiB, std::to_string(i), false)));
  for (int round = 0; round < 3; ++round)
    for (const auto& arena : arenas) EXPECT_TRUE(arena->contains(arena->allocate(16)));
  for (const auto& arena : arenas) EXPECT_EQ(arena->stats().live_allocations, 3U);
}

}  // namespace
}  // namespace cowshed
