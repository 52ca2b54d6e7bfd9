#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <unordered_set>
#include <vector>

#include <cowshed/share/counted_ptr.h>

#include "child.h"
#include "make_arena.h"
#include "memory_map.h"

namespace cowshed {
namespace {

using test::make_arena;

constexpr int kThreads = 8;

std::atomic<int> living = 0;

struct Base {
  Base() { ++living; }
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;
  virtual ~Base() { --living; }
  int value = 1;
};
struct Derived : Base {
  explicit Derived(int number = 2) { value = number; }
  CountedPtr<Derived> next;
  WeakCountedPtr<Derived> back;
};
struct Other : Base {};

TEST(CountedPtr, IsUsedLikeASharedPtr) {
  const Arena arena = make_arena();
  {
    CountedPtr<Derived> pointer = make_counted<Derived>(arena, 5).value();
    EXPECT_TRUE(arena.contains(pointer.get()));
    EXPECT_EQ(pointer->value, 5);
    EXPECT_EQ((*pointer).value, 5);
    EXPECT_EQ(pointer.use_count(), 1);
    CountedPtr<const Base> base = pointer;  // converts
    EXPECT_EQ(base, pointer);
    EXPECT_EQ(pointer.use_count(), 2);
    const CountedPtr<int> member(pointer, &pointer->value);  // aliases
    EXPECT_EQ(member.use_count(), 3);
    EXPECT_FALSE(member.owner_before(base) || base.owner_before(member));
    base = std::move(pointer);
    EXPECT_EQ(pointer, nullptr);  // NOLINT(bugprone-use-after-move): is empty, by contract
    EXPECT_EQ(pointer.use_count(), 0);
    EXPECT_EQ(base.use_count(), 2);
    EXPECT_EQ(const_pointer_cast<Base>(base)->value, 5);
    EXPECT_EQ(static_pointer_cast<const Derived>(base).use_count(), 3);
    EXPECT_EQ(dynamic_pointer_cast<const Derived>(base), base);
    EXPECT_EQ(dynamic_pointer_cast<const Other>(base), nullptr);
    EXPECT_EQ(std::unordered_set<CountedPtr<const Base>>{base}.count(base), 1U);
    EXPECT_TRUE(base > nullptr && !(base < base));
    CountedPtr<const Base> empty;
    swap(base, empty);
    EXPECT_FALSE(base);
    empty.reset();
    EXPECT_EQ(living, 1);  // by `member`
    EXPECT_EQ(*member, 5);
  }
  EXPECT_EQ(living, 0);
  EXPECT_EQ(arena.stats().live_bytes, 0U);
}

TEST(CountedPtr, WeakPointersExpire) {
  const Arena arena = make_arena();
  WeakCountedPtr<Base> weak;
  EXPECT_TRUE(weak.expired());
  EXPECT_FALSE(weak.lock());
  {
    auto pointer = make_counted<Derived>(arena).value();
    const WeakCountedPtr<Derived> exact = pointer;
    weak = exact;
    EXPECT_EQ(weak.use_count(), 1);
    EXPECT_EQ(weak.lock(), pointer);
    EXPECT_EQ(CountedPtr<Base>(weak).use_count(), 2);
  }
  EXPECT_EQ(living, 0);
  EXPECT_TRUE(weak.expired());
  EXPECT_FALSE(weak.lock());
  EXPECT_THROW(CountedPtr<Base>{weak}, std::bad_weak_ptr);
  EXPECT_EQ(arena.stats().live_allocations, 1U);  // the block waits for the weak pointer
  weak.reset();
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(CountedPtr, TakesOverObjectsFromElsewhere) {
  bool deleted = false;
  CountedPtr<Base> pointer(new Derived);
  pointer = std::make_unique<Derived>(7);
  EXPECT_EQ(living, 1);
  EXPECT_EQ(pointer->value, 7);
  pointer.reset(new Derived, [&](Base* object) {
    deleted = true;
    delete object;
  });
  const CountedPtr<Base> second = pointer;
  pointer.reset();
  EXPECT_FALSE(deleted);
  pointer = second;
  EXPECT_EQ(pointer.use_count(), 2);
  EXPECT_EQ(CountedPtr<Base>(std::unique_ptr<Derived>()).use_count(), 0);
}

TEST(CountedPtr, LivesInContainersOfTheArena) {
  const Arena arena = make_arena();
  {
    std::pmr::map<int, CountedPtr<std::pmr::string>> map(arena.resource());
    std::pmr::vector<CountedPtr<const std::pmr::string>> vector(arena.resource());
    for (int i = 0; i < 1000; ++i) {
      map[i] = allocate_counted<std::pmr::string>(arena.resource(), 100, 'x');
      EXPECT_TRUE(arena.contains(map[i]->data()));  // strings take the arena's allocator
      vector.push_back(map[i]);
    }
    map.clear();
    EXPECT_EQ(vector.back().use_count(), 1);
    EXPECT_EQ(vector.front()->size(), 100U);
  }
  EXPECT_EQ(arena.stats().live_bytes, 0U);
}

TEST(CountedPtr, WhatTheArenaRefusesIsAnError) {
  const Arena arena = make_arena(2_MiB);
  const auto made = make_counted<std::array<char, 4_MiB>>(arena);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::capacity_exceeded);
  struct Throws {
    Throws() { throw 1; }
  };
  EXPECT_THROW((void)make_counted<Throws>(arena), int);
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(CountedPtr, NothingIsDestroyedAfterTheFreeze) {
  Arena arena = make_arena();
  auto pointer = make_counted<Derived>(arena).value();
  const WeakCountedPtr<Derived> weak = pointer;
  const Derived* object = pointer.get();
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(CountedPtr<Derived>(pointer).use_count(), 2);
  pointer.reset();
  EXPECT_TRUE(weak.expired());
  EXPECT_EQ(living, 1);
  EXPECT_EQ(object->value, 2);
  EXPECT_EQ(arena.stats().dropped_frees, 0U);
  living = 0;
}

// The same job by std::shared_ptr copies pages: see immortal_ptr_test.cc.
TEST(CountedPtr, CopiesAndDropsInAChildCopyNoPageOfTheArena) {
  Arena arena = make_arena();
  constexpr int kObjects = 10000;
  std::pmr::vector<CountedPtr<Derived>> objects(arena.resource());
  for (int i = 0; i < kObjects; ++i) {
    objects.push_back(make_counted<Derived>(arena, i).value());
    objects.back()->next = objects.front();
    objects.back()->back = objects.back();
  }
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  const auto child = test::run_in_child([&]() -> std::string {
    for (int round = 0; round < 2; ++round) {
      std::vector<CountedPtr<Derived>> copies(objects.begin(), objects.end());
      if (copies[1].use_count() != 2 || copies[0].use_count() != kObjects + 2) {
        return "wrong counts";
      }
      const std::vector<WeakCountedPtr<Base>> weak(copies.begin(), copies.end());
      copies.clear();
      if (weak[1].use_count() != 1 || weak[1].lock()->value != 1) {
        return "wrong counts after the drop";
      }
    }
    objects.~vector();  // every count but those of the cycle through the first becomes 0
    new (&objects) std::pmr::vector<CountedPtr<Derived>>;
    return std::to_string(living) + " living, " +
           std::to_string(test::own_pages(arena.base(), arena.stats().used)) + " pages";
  });
  EXPECT_EQ(child.said, std::to_string(kObjects) + " living, 0 pages");
  EXPECT_EQ(objects[1].use_count(), 1);  // each process counts for itself
  EXPECT_EQ(objects[0].use_count(), kObjects + 1);
  objects.~vector();
  new (&objects) std::pmr::vector<CountedPtr<Derived>>;
  EXPECT_EQ(living, kObjects);
  living = 0;
}

// What a child makes in an arena of its own never meets a count that it inherited.
TEST(CountedPtr, AChildsObjectsHaveCountsOfTheirOwn) {
  Arena arena = make_arena();
  const auto inherited = make_counted<int>(arena, 1).value();
  ASSERT_TRUE(arena.freeze());
  const auto child = test::run_in_child([&]() -> std::string {
    const Arena own = make_arena();
    std::vector<CountedPtr<int>> mine;
    for (int i = 0; i < 1000; ++i) {
      mine.push_back(make_counted<int>(own, i).value());
    }
    const auto again = inherited;
    return std::to_string(inherited.use_count()) + " " + std::to_string(mine[7].use_count());
  });
  EXPECT_EQ(child.said, "2 1");
}

TEST(CountedPtr, AnArenaThatIsNotInheritedIsNotTouched) {
  const Arena arena = make_arena();
  auto pointer = make_counted<Derived>(arena).value();
  const auto child = test::run_in_child([&] {
    const WeakCountedPtr<Derived> weak = pointer;
    pointer.reset();
    return std::string(weak.expired() ? "expired" : "used");
  });
  EXPECT_EQ(child.said, "expired");
  EXPECT_EQ(pointer.use_count(), 1);
}

TEST(CountedPtr, OutlivesItsArenaHarmlessly) {
  CountedPtr<int> survivor;
  WeakCountedPtr<int> weak;
  {
    const Arena arena = make_arena();
    survivor = make_counted<int>(arena, 1).value();
    weak = survivor;
  }
  const Arena next = make_arena();  // takes over the chunk of counts
  const auto fresh = make_counted<int>(next, 2).value();
  auto copy = survivor;
  survivor.reset();
  copy.reset();
  weak.reset();
  EXPECT_EQ(fresh.use_count(), 1);
}

// As in a process that maps the arena without having inherited the counts: the same bytes, another
// chunk number.
TEST(CountedPtr, WithoutTheCountsEverythingIsImmortal) {
  std::optional<Arena> arena = make_arena();
  alignas(CountedPtr<int>) std::array<std::byte, sizeof(CountedPtr<int>)> bytes{};
  {
    const auto pointer = make_counted<int>(*arena, 1).value();
    std::memcpy(bytes.data(), static_cast<const void*>(&pointer), sizeof pointer);
  }
  arena.reset();
  const auto& foreign = *reinterpret_cast<CountedPtr<int>*>(bytes.data());
  const CountedPtr<int> copy = foreign;
  const WeakCountedPtr<int> weak = foreign;
  EXPECT_EQ(foreign.use_count(), 1);
  EXPECT_EQ(weak.use_count(), 1);
  EXPECT_EQ(weak.lock(), copy);
}

TEST(CountedPtr, MemoryOfCountsIsUsedAgain) {
  for (int round = 0; round < 200; ++round) {
    const Arena arena = make_arena();
    std::vector<CountedPtr<int>> pointers;
    for (int i = 0; i < 2000; ++i) {
      pointers.push_back(make_counted<int>(arena, i).value());
    }
    if (round % 2 == 0) {
      pointers.clear();  // before the arena's end; else with it
    }
  }
  const std::uint32_t chunks = static_cast<std::uint32_t>(
      std::count_if(internal::count_chunks.begin(), internal::count_chunks.end(),
                    [](const auto& chunk) { return chunk.slots.load() != nullptr; }));
  EXPECT_LE(chunks, 4U);
}

TEST(CountedPtr, MoreObjectsThanAChunkHolds) {
  const Arena arena = make_arena();
  std::vector<CountedPtr<int>> pointers;
  for (std::uint32_t i = 0; i < 3 * internal::kCountsPerChunk; ++i) {
    pointers.push_back(make_counted<int>(arena, static_cast<int>(i)).value());
  }
  for (std::uint32_t i = 0; i < pointers.size(); ++i) {
    ASSERT_EQ(*pointers[i], static_cast<int>(i));
    ASSERT_EQ(pointers[i].use_count(), 1);
  }
}

TEST(CountedPtr, AnOverflowingCountSticks) {
  const Arena arena = make_arena();
  std::optional<CountedPtr<Derived>> pointer = make_counted<Derived>(arena).value();
  internal::CountHandle handle;
  std::memcpy(&handle, reinterpret_cast<const std::byte*>(&*pointer) + sizeof(void*),
              sizeof handle);
  internal::find_count(handle)->uses = internal::kStuckCount - 1;
  {
    const auto last = *pointer;
    const auto stuck = *pointer;
    EXPECT_GE(stuck.use_count(), internal::kStuckCount);
  }
  EXPECT_GE(pointer->use_count(), internal::kStuckCount);
  pointer.reset();
  EXPECT_EQ(living, 1);
  living = 0;
}

TEST(CountedPtr, EightThreadsShareObjects) {
  Arena arena = make_arena(256_MiB);
  constexpr int kShared = 64;
  std::vector<CountedPtr<Derived>> shared;
  for (int i = 0; i < kShared; ++i) {
    shared.push_back(make_counted<Derived>(arena, i).value());
  }
  const std::vector<WeakCountedPtr<Derived>> weak(shared.begin(), shared.end());
  std::atomic<bool> wrong = false;
  const auto run = [&](bool make) {
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < kThreads; ++seed) {
      threads.emplace_back([&, seed, pointers = shared]() mutable {
        std::mt19937 random(seed);
        std::vector<CountedPtr<Derived>> own(16);
        for (int i = 0; i < 20000; ++i) {
          auto& mine = own[random() % own.size()];
          switch (random() % (make ? 4 : 3)) {
            case 0: mine = pointers[random() % kShared]; break;
            case 1: mine.reset(); break;
            case 2: mine = weak[random() % kShared].lock(); break;
            default: mine = make_counted<Derived>(arena, kShared).value();
          }
          if (mine && (mine->value < 0 || mine->value > kShared || mine.use_count() < 1)) {
            wrong = true;
          }
        }
      });
    }
    for (int i = 0; i < 20; ++i) {  // a fork in between finds counts that it can use
      if (pid_t child = make ? -1 : fork(); child == 0) {
        const auto copies = shared;
        // ThreadSanitizer's own _exit() misses the threads that a child does not have.
        syscall(SYS_exit_group, copies[0].use_count() >= 2 ? 0 : 1);
      } else if (child > 0) {
        int status = 0;
        waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
      }
    }
    for (auto& thread : threads) {
      thread.join();
    }
    EXPECT_FALSE(wrong);
    for (const auto& pointer : shared) {
      EXPECT_EQ(pointer.use_count(), 1);
    }
  };
  run(true);
  EXPECT_EQ(living, kShared);
  ASSERT_TRUE(arena.freeze());
  run(false);
  EXPECT_EQ(living, kShared);
  living = 0;
}

std::atomic<int> tallies_destroyed = 0;

struct Tally {
  Tally() = default;
  Tally(const Tally&) = delete;
  Tally& operator=(const Tally&) = delete;
  ~Tally() {
    tallies_destroyed += std::accumulate(by_thread.begin(), by_thread.end(), 0) == kThreads;
  }
  std::array<int, kThreads> by_thread{};
};

// Whoever drops the last pointer destroys, once, and sees what the others wrote before they
// dropped theirs.
TEST(CountedPtr, TheLastOfEightThreadsDestroys) {
  const Arena arena = make_arena();
  constexpr int kRounds = 500;
  for (int round = 0; round < kRounds; ++round) {
    auto pointer = make_counted<Tally>(arena).value();
    const WeakCountedPtr<Tally> weak = pointer;
    std::atomic<int> ready = 0;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&ready, i, mine = pointer, weak]() mutable {
        ready.fetch_add(1, std::memory_order_relaxed);
        while (ready.load(std::memory_order_relaxed) < kThreads) {
          std::this_thread::yield();
        }
        mine->by_thread[i] = 1;
        mine.reset();
        (void)weak.lock();
      });
    }
    pointer.reset();
    for (auto& thread : threads) {
      thread.join();
    }
    ASSERT_EQ(tallies_destroyed, round + 1);
    ASSERT_TRUE(weak.expired());
  }
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

}  // namespace
}  // namespace cowshed
