#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unordered_map>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

#include "child.h"
#include "make_arena.h"
#include "memory_map.h"
#include "open_descriptors.h"

namespace cowshed {
namespace {

using test::make_arena;
using testing::HasSubstr;

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
  std::vector<Segment> result;
  const std::string label = "/memfd:cowshed:" + std::string(arena.name()) + " (deleted)";
  for (int fd = 3; fd < 1024; ++fd) {
    std::array<char, 256> target{};
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    struct stat status {};
    if (readlink(path.c_str(), target.data(), target.size() - 1) > 0 && label == target.data() &&
        fstat(fd, &status) == 0) {
      constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
      result.push_back({fd, status.st_ino, static_cast<std::size_t>(status.st_blocks) * 512,
                        (fcntl(fd, F_GET_SEALS) & kSeals) == kSeals});
    }
  }
  return result;
}

struct Mapping {
  std::uintptr_t begin, end;
  std::string permissions;
  ino_t inode;
};

std::vector<Mapping> mappings(const Arena& arena) {
  std::vector<Mapping> result;
  std::ifstream file("/proc/self/maps");
  const auto begin = reinterpret_cast<std::uintptr_t>(arena.base());
  for (std::string line; std::getline(file, line);) {
    std::size_t from = 0;
    std::size_t to = 0;
    std::array<char, 8> permissions{};
    ino_t inode = 0;
    if (std::sscanf(line.c_str(), "%zx-%zx %7s %*s %*s %lu", &from, &to, permissions.data(),
                    &inode) == 4 &&
        from >= begin && from < begin + arena.stats().capacity) {
      result.push_back({from, to, permissions.data(), inode});
    }
  }
  return result;
}

// That which has what is at this address.
Segment segment_at(const Arena& arena, const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const Mapping& mapping : mappings(arena)) {
    for (const Segment& segment : segments(arena)) {
      if (at >= mapping.begin && at < mapping.end && segment.inode == mapping.inode) {
        return segment;
      }
    }
  }
  return {-1, 0, 0, false};
}

// "" or what is wrong: every memfd that the arena shows is sealed, and mapped privately.
std::string find_unsealed(const Arena& arena) {
  std::set<ino_t> sealed;
  for (const Segment& segment : segments(arena)) {
    if (!segment.sealed) {
      return "a memfd without seals";
    }
    if (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd, 0) != MAP_FAILED) {
      return "a memfd that can be mapped for writing";
    }
    sealed.insert(segment.inode);
  }
  for (const Mapping& mapping : mappings(arena)) {
    if (mapping.inode != 0 && sealed.count(mapping.inode) == 0) {
      return "a mapping of something else";
    }
    if (mapping.permissions[3] != 'p') {
      return "a shared mapping";
    }
  }
  return "";
}

std::size_t private_bytes(const Arena& arena) {
  const auto bytes = arena.private_bytes();
  return bytes ? *bytes : ~std::size_t{0};
}

std::size_t own_bytes(const Arena& arena) {
  return test::own_pages(arena.base(), arena.stats().used) * 4096;
}

// A child that runs its body only when told to.
class ChildOfBefore {
 public:
  explicit ChildOfBefore(const std::function<std::string()>& body) {
    EXPECT_EQ(pipe(start_.data()), 0);
    EXPECT_EQ(pipe(said_.data()), 0);
    pid_ = fork();
    if (pid_ == 0) {
      char go = 0;
      close(start_[1]);
      const bool told = read(start_[0], &go, 1) == 1;
      const std::string text = told ? body() : "";
      const bool whole =
          write(said_[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
      _exit(whole ? 0 : 1);
    }
    close(start_[0]);
    close(said_[1]);
  }
  ~ChildOfBefore() {
    close(start_[1]);
    close(said_[0]);
    waitpid(pid_, nullptr, 0);
  }
  ChildOfBefore(const ChildOfBefore&) = delete;
  ChildOfBefore& operator=(const ChildOfBefore&) = delete;

  std::string run() {
    std::array<char, 4096> text{};
    if (write(start_[1], "!", 1) != 1) {
      return "not told";
    }
    std::size_t size = 0;
    for (ssize_t got = 0; (got = read(said_[0], text.data() + size, text.size() - 1 - size)) > 0;) {
      size += static_cast<std::size_t>(got);
    }
    return text.data();
  }

 private:
  std::array<int, 2> start_{};
  std::array<int, 2> said_{};
  pid_t pid_ = 0;
};

class Generations : public testing::TestWithParam<FreezeMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, Generations,
                         testing::Values(FreezeMode::strict, FreezeMode::lenient),
                         [](const auto& mode) {
                           return mode.param == FreezeMode::strict ? "Strict" : "Lenient";
                         });

TEST_P(Generations, WhatWasAddedIsInheritedWithTheOld) {
  Arena arena = make_arena();
  auto old_one = arena.make<std::pmr::vector<int>>();
  ASSERT_TRUE(old_one);
  (*old_one)->assign(100000, 1);
  ASSERT_TRUE(publish("old", *old_one));
  ASSERT_TRUE(arena.freeze(GetParam()));
  EXPECT_EQ(arena.stats().generation, 1U);
  ASSERT_TRUE(arena.thaw());
  EXPECT_FALSE(arena.stats().frozen);
  auto new_one = arena.make<std::pmr::vector<int>>();
  ASSERT_TRUE(new_one);
  (*new_one)->assign(2000000, 2);
  ASSERT_TRUE(publish("new", *new_one));
  const auto refrozen = arena.refreeze();
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  const ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.generation, 2U);
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  EXPECT_EQ(stats.live_allocations, 4U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_EQ(private_bytes(arena), 0U);
  const auto child = test::run_in_child([&]() -> std::string {
    const auto old_ref = find<std::pmr::vector<int>>("old").value();
    const auto new_ref = find<std::pmr::vector<int>>("new").value();
    if (*old_ref != std::pmr::vector<int>(100000, 1) ||
        *new_ref != std::pmr::vector<int>(2000000, 2)) {
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
    if (std::count(text, text + 8_MiB, 'a') != static_cast<std::ptrdiff_t>(8_MiB)) {
      return "the parent's writes show";
    }
    if (own_bytes(arena) != 0 || arena.stats().generation != 1) {
      return "not the first generation";
    }
    // Goes on by itself, at the same addresses as its parent.
    if (!arena.thaw()) {
      return "no thaw";
    }
    auto* own = static_cast<char*>(arena.allocate(1_MiB));
    std::memset(own, 'o', 1_MiB);
    if (!arena.refreeze() || !find_unsealed(arena).empty()) {
      return "no refreeze";
    }
    return test::run_in_child([&] {
             return std::string{text[0], own[1_MiB - 1]} + std::to_string(private_bytes(arena));
           })
        .said;
  });
  if (GetParam() == FreezeMode::lenient) {
    text[0] = text[5_MiB] = 'b';
  }
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
  auto old_one = arena.make<int>(1);
  ASSERT_TRUE(old_one);
  const auto old_ref = publish(*old_one);
  ASSERT_TRUE(arena.freeze(GetParam()));
  ASSERT_TRUE(arena.thaw());
  auto new_one = arena.make<int>(2);
  ASSERT_TRUE(new_one);
  const auto new_ref = publish(*new_one);
  EXPECT_TRUE(start(
      {}, [](const int&) { return 0; }, *old_ref));
  EXPECT_EQ(start(
                {}, [](const int&) { return 0; }, *new_ref)
                .error()
                .code,
            ErrorCode::arena_not_frozen);
  const auto child = test::run_in_child([&]() -> std::string {
    if (**old_ref != 1 || !arena.stats().frozen || arena.stats().generation != 1) {
      return "not the last";
    }
    if (new_ref->get() || new_ref->get().error().code != ErrorCode::not_inherited ||
        publish(*new_one).error().code != ErrorCode::not_inherited) {
      return "inherited";
    }
    if (arena.make<int>(3).error().code != ErrorCode::arena_frozen) {
      return "open";
    }
    if (segments(arena).size() != 1) {
      return "has the parent's new memory";
    }
    if (!arena.thaw()) {
      return "no thaw";
    }
    auto own = arena.make<int>(4);
    if (!own || !arena.refreeze()) {
      return "not its own";
    }
    return std::to_string(**own) + find_unsealed(arena);
  });
  EXPECT_EQ(child.said, "4");
  EXPECT_EQ(**new_one, 2);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(test::run_in_child([&] { return std::to_string(**new_ref); }).said, "2");
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
  for (const std::size_t offset : {std::size_t{0}, 4096UL, 3_MiB, 40_MiB}) {
    text[offset] = 'b';
  }
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
  const auto child = test::run_in_child([&] {
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
  for (std::size_t range = 0; range < 2 * kWrites; ++range) {
    std::memset(bytes + range * kRange, static_cast<int>(range), 4096);
  }
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  for (std::size_t i = 0; i < kWrites; ++i) {
    bytes[i * 2 * kRange + 4095] = 0xff;
  }
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

TEST_P(Generations, HaveNoMoreMappingsAndDescriptorsForBeingMany) {
  Arena arena = make_arena(512_MiB);
  auto* old_bytes = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  auto* freed = static_cast<unsigned char*>(arena.allocate(32_MiB, kRange));
  if (old_bytes < freed) {
    std::swap(old_bytes, freed);
  }
  std::memset(old_bytes, 0, 32_MiB);
  arena.deallocate(freed, 32_MiB, kRange);  // a hole, which no generation may fill
  ASSERT_TRUE(arena.freeze(GetParam()));
  const std::size_t returned = arena.stats().returned_bytes;
  EXPECT_GE(returned, 30_MiB);
  const std::size_t descriptors = test::open_descriptors();
  std::vector<int*> added;
  for (unsigned char generation = 2; generation <= 40; ++generation) {
    if (GetParam() == FreezeMode::lenient) {
      old_bytes[generation % 16U * kRange + generation] = generation;
    }
    ASSERT_TRUE(arena.thaw());
    auto made = arena.make<int>(generation);
    ASSERT_TRUE(made);
    added.push_back(*made);
    const auto refrozen = arena.refreeze();
    ASSERT_TRUE(refrozen) << refrozen.error().message;
    ASSERT_EQ(arena.stats().generation, generation);
    ASSERT_EQ(find_unsealed(arena), "");
    ASSERT_LE(test::open_descriptors(), descriptors + 8);
    ASSERT_LE(mappings(arena).size(), 60U);
    std::size_t held = 0;
    for (const Segment& segment : segments(arena)) {
      held += segment.bytes;
    }
    const ArenaStats now = arena.stats();
    if (GetParam() == FreezeMode::strict) {
      ASSERT_EQ(held, now.used - now.returned_bytes);
    }
    ASSERT_LE(held, 3 * (now.used - now.returned_bytes));
  }
  for (std::size_t i = 0; i < added.size(); ++i) {
    EXPECT_EQ(*added[i], static_cast<int>(i + 2));
  }
  const ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.live_allocations, 1U + added.size());
  EXPECT_EQ(stats.returned_bytes, returned);
  EXPECT_EQ(stats.huge_page_bytes + stats.huge_page_misses.size() * kRange + stats.returned_bytes,
            stats.used);
  const auto child = test::run_in_child([&] {
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
    if (GetParam() == FreezeMode::lenient) {
      base[i % 32 * kRange] = 2;
    }
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
  for (int i = 0; i < 1000; ++i) {
    old_blocks.insert(arena.allocate(48));
  }
  ASSERT_TRUE(arena.freeze(GetParam()));
  ASSERT_TRUE(arena.thaw());
  std::vector<void*> new_blocks;
  for (int i = 0; i < 1000; ++i) {
    new_blocks.push_back(arena.allocate(48));
    EXPECT_EQ(old_blocks.count(new_blocks.back()), 0U);
  }
  EXPECT_EQ(arena.stats().live_allocations, 2000U);
  for (void* block : old_blocks) {
    arena.deallocate(block, 48);
  }
  EXPECT_EQ(arena.stats().dropped_frees, 1000U);
  EXPECT_EQ(arena.stats().live_allocations, 2000U);
  for (void* block : new_blocks) {
    arena.deallocate(block, 48);
  }
  EXPECT_EQ(arena.stats().live_allocations, 1000U);
  EXPECT_EQ(arena.stats().dropped_frees, 1000U);
  std::set<void*> again(new_blocks.begin(), new_blocks.end());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(again.count(arena.allocate(48)), 1U);
  }
  ASSERT_TRUE(arena.refreeze());
  arena.deallocate(new_blocks[0], 48);
  EXPECT_EQ(arena.stats().dropped_frees, 1001U);
}

TEST(Refreeze, ContainersGrowOverGenerations) {
  Arena arena = make_arena(256_MiB);
  using Words = std::pmr::unordered_map<std::pmr::string, std::size_t>;
  auto made = arena.make<Words>();
  ASSERT_TRUE(made);
  Words& words = **made;
  const auto word = [](std::size_t i) {
    return "a word that is too long to be inside, number " + std::to_string(i);
  };
  const auto check = [&](std::size_t count) -> std::string {
    for (std::size_t i = 0; i < count; ++i) {
      const auto found = words.find(std::pmr::string(word(i)));
      if (found == words.end() || found->second != i || !arena.contains(found->first.data())) {
        return "no " + word(i);
      }
    }
    return std::to_string(words.size());
  };
  for (std::size_t i = 0; i < 1000; ++i) {
    words.emplace(word(i), i);
  }
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  for (std::size_t generation = 2; generation <= 12; ++generation) {
    ASSERT_TRUE(arena.thaw());
    for (std::size_t i = words.size(); i < generation * 1000; ++i) {
      words.emplace(word(i), i);
    }
    ASSERT_TRUE(arena.refreeze());
    ASSERT_EQ(private_bytes(arena), 0U);
    const auto child = test::run_in_child(
        [&] { return check(generation * 1000) + "," + std::to_string(own_bytes(arena)); });
    ASSERT_EQ(child.said, std::to_string(generation * 1000) + ",0");
  }
}

TEST_P(Generations, NothingNewMakesNoGeneration) {
  Arena arena = make_arena();
  auto value = arena.make<int>(1);
  ASSERT_TRUE(value);
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
  EXPECT_EQ(**value, 1);
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
  auto value = arena.make<int>(1);
  ASSERT_TRUE(value);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(test::run_in_child([&] { return std::to_string(**value); }).said, "1");
}

TEST(Refreeze, NeedsAFrozenArena) {
  Arena arena = make_arena();
  EXPECT_EQ(arena.refreeze().error().code, ErrorCode::arena_not_frozen);
  EXPECT_EQ(arena.thaw().error().code, ErrorCode::arena_not_frozen);
  ASSERT_TRUE(arena.make<int>(1));
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(arena.thaw());
  const auto again = arena.thaw();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::arena_not_frozen);
  EXPECT_THAT(again.error().message, HasSubstr("refreeze() it first"));
  EXPECT_EQ(arena.prefault().error().code, ErrorCode::arena_not_frozen);
  EXPECT_EQ(arena.freeze(FreezeMode::lenient).error().code, ErrorCode::arena_frozen);
  ASSERT_TRUE(arena.make<int>(2));
  ASSERT_TRUE(arena.freeze());  // the same as refreeze()
  EXPECT_EQ(arena.stats().generation, 2U);
}

TEST(Thaw, OfAFullArenaIsAnError) {
  Arena arena = make_arena(4_MiB);
  try {
    for (;;) {
      (void)arena.allocate(100);
    }
  } catch (const ArenaBadAlloc& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::capacity_exceeded);
  }
  ASSERT_TRUE(arena.freeze());
  const auto thawed = arena.thaw();
  ASSERT_FALSE(thawed);
  EXPECT_EQ(thawed.error().code, ErrorCode::capacity_exceeded);
  EXPECT_TRUE(arena.stats().frozen);
}

// A full lenient arena can still make what was written to shared again.
TEST(Refreeze, OfAFullArena) {
  Arena arena = make_arena(4_MiB);
  char* last = nullptr;
  try {
    for (;;) {
      last = static_cast<char*>(arena.allocate(1000));
    }
  } catch (const ArenaBadAlloc&) {
  }
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  *last = 'x';
  const auto refrozen = arena.refreeze();
  ASSERT_TRUE(refrozen) << refrozen.error().message;
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(*last, 'x');
  EXPECT_EQ(find_unsealed(arena), "");
}

TEST_P(Generations, ARefusedRefreezeChangesNothing) {
  Arena arena = make_arena();
  auto* old_bytes = static_cast<char*>(arena.allocate(8_MiB, kRange));
  std::memset(old_bytes, 'a', 8_MiB);
  ASSERT_TRUE(arena.freeze(GetParam()));
  const bool lenient = GetParam() == FreezeMode::lenient;
  if (lenient) {
    old_bytes[3_MiB] = 'b';
  }
  ASSERT_TRUE(arena.thaw());
  auto added = arena.make<int>(1);
  ASSERT_TRUE(added);
  const int fd = segment_at(arena, *added).fd;
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
  auto more = arena.make<int>(2);
  ASSERT_TRUE(more);
  munmap(other, 4096);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_EQ(arena.stats().generation, 2U);
  EXPECT_EQ(find_unsealed(arena), "");
  EXPECT_EQ(private_bytes(arena), 0U);
  EXPECT_EQ(**added + **more, 3);
  EXPECT_EQ(old_bytes[3_MiB], lenient ? 'b' : 'a');
}

class Successor : public Generations {};
INSTANTIATE_TEST_SUITE_P(Modes, Successor, testing::Values(FreezeMode::strict, FreezeMode::lenient),
                         [](const auto& mode) {
                           return mode.param == FreezeMode::strict ? "Strict" : "Lenient";
                         });

TEST_P(Successor, TakesWhatComesAfterTheFreeze) {
  Arena next = make_arena(64_MiB, "next");
  Arena arena = make_arena();
  void* before = arena.allocate(48);
  ASSERT_TRUE(arena.freeze({.mode = GetParam(), .successor = &next}));
  void* after = arena.allocate(48);
  EXPECT_TRUE(arena.contains(before));
  EXPECT_TRUE(next.contains(after));
  EXPECT_EQ(next.stats().live_allocations, 1U);
  arena.deallocate(after, 48);  // really
  EXPECT_EQ(next.stats().live_allocations, 0U);
  EXPECT_EQ(arena.stats().dropped_frees, 0U);
  arena.deallocate(before, 48);
  EXPECT_EQ(arena.stats().dropped_frees, 1U);
  EXPECT_EQ(next.stats().dropped_frees, 0U);
  std::pmr::vector<int> numbers(arena.resource());
  for (int i = 0; i < 100000; ++i) {
    numbers.push_back(i);
  }
  EXPECT_TRUE(next.contains(numbers.data()));
  auto made = arena.make<std::pmr::vector<int>>();
  ASSERT_TRUE(made);
  EXPECT_TRUE(next.contains(*made));
}

TEST_P(Successor, GoesOnWhenThawed) {
  Arena next = make_arena(64_MiB, "next");
  Arena arena = make_arena();
  ASSERT_TRUE(arena.make<int>(1));
  ASSERT_TRUE(arena.freeze({.mode = GetParam(), .successor = &next}));
  ASSERT_TRUE(arena.make<int>(2));
  ASSERT_TRUE(next.freeze(GetParam()));
  const auto refused = arena.make<int>(3);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::arena_frozen);
  EXPECT_THAT(refused.error().message, HasSubstr("arena 'next' is frozen"));
  ASSERT_TRUE(next.thaw());
  const auto made = arena.make<int>(4);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(next.contains(*made));
  // Thawed itself, the arena takes for itself; refrozen it sends on again.
  ASSERT_TRUE(arena.thaw());
  EXPECT_TRUE(arena.contains(*arena.make<int>(5)));
  ASSERT_TRUE(arena.refreeze());
  EXPECT_TRUE(next.contains(*arena.make<int>(6)));
}

TEST_P(Successor, ThatIsDestroyedIsAnError) {
  std::optional<Arena> next = make_arena(64_MiB, "next");
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze({.mode = GetParam(), .successor = &*next}));
  ASSERT_TRUE(arena.make<int>(1));
  next.reset();
  const Arena another = make_arena(64_MiB, "another");  // in the same place
  const auto made = arena.make<int>(2);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::arena_frozen);
  EXPECT_THAT(made.error().message,
              HasSubstr("arena 'index' is frozen and its successor destroyed"));
  EXPECT_EQ(another.stats().live_allocations, 0U);
}

TEST_P(Successor, IsNotInheritedUnlessFrozen) {
  Arena next = make_arena(64_MiB, "next");
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze({.mode = GetParam(), .successor = &next}));
  const auto child = test::run_in_child([&]() -> std::string {
    const auto made = arena.make<int>(1);
    return made ? "made" : made.error().message;
  });
  EXPECT_THAT(child.said, HasSubstr("arena 'next' was not frozen when this process was forked"));
}

TEST_P(Successor, CannotBeTheArenaItself) {
  Arena first = make_arena(64_MiB, "first");
  Arena second = make_arena(64_MiB, "second");
  EXPECT_EQ(first.freeze({.mode = GetParam(), .successor = &first}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_TRUE(first.make<int>(1));  // still open
  ASSERT_TRUE(first.freeze({.mode = GetParam(), .successor = &second}));
  const auto circle = second.freeze({.mode = GetParam(), .successor = &first});
  ASSERT_FALSE(circle);
  EXPECT_EQ(circle.error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(second.freeze(GetParam()));
  EXPECT_EQ(first.make<int>(1).error().code, ErrorCode::arena_frozen);
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
    for (const std::uint64_t answer : *answers) {
      total += answer;
    }
    return std::to_string(total) + " " + std::to_string((*notes)->size()) + " " +
           std::to_string(own_bytes(arena)) + " " + std::to_string(private_bytes(arena));
  };
  const auto worker = test::run_in_child([&]() -> std::string {
    for (std::uint64_t& answer : *answers) {
      answer = 7;
    }
    if (private_bytes(arena) < kAnswers * sizeof(std::uint64_t) ||
        own_bytes(arena) != private_bytes(arena)) {
      return "not written privately";
    }
    if (!arena.thaw()) {
      return "no thaw";
    }
    for (int i = 0; i < 1000; ++i) {
      (*notes)->emplace(i, std::string(100, 'n'));
    }
    if (!arena.refreeze()) {
      return "no refreeze";
    }
    std::string said;
    for (int i = 0; i < 3; ++i) {
      said += test::run_in_child(read_all).said + "\n";
    }
    return said;
  });
  const std::string line = std::to_string(kAnswers * 7) + " 1000 0 0\n";
  EXPECT_EQ(worker.said, line + line + line);
  EXPECT_EQ(read_all(), "0 0 0 0");  // the first parent has nothing of it
}

}  // namespace
}  // namespace cowshed
