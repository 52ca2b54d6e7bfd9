#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <memory_resource>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/image.h>
#include <cowshed/tests/support/child.h>

#include "make_arena.h"

// What becomes of handles, and pointers, that have outlived their arena, and of forks in the middle
// of its work.
namespace cowshed {
namespace {

using test::make_arena;
using testing::HasSubstr;

template <class Allocate>
std::string refusal(Allocate allocate) {
  try {
    allocate();
  } catch (const ArenaBadAlloc& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::invalid_argument);
    return failure.what();
  }
  return "allocated";
}

TEST(ArenaHandle, ThatWasMovedFromAnswersEveryCall) {
  Arena first = make_arena(256_MiB);
  Arena arena = std::move(first);
  Arena& gone = first;  // NOLINT(bugprone-use-after-move): what this is about
  void* block = arena.allocate(16);
  const std::string message = "moved from";
  EXPECT_THAT(refusal([&] { gone.allocate(16); }), HasSubstr(message));
  EXPECT_THAT(refusal([&] { (void)gone.resource()->allocate(16); }), HasSubstr(message));
  const UseArena use(gone);
  EXPECT_THAT(refusal([&] { (void)ArenaAllocator<int>().allocate(1); }), HasSubstr(message));
  gone.deallocate(block, 16);
  EXPECT_EQ(arena.stats().live_allocations, 1U);
  EXPECT_FALSE(gone.contains(block));
  EXPECT_EQ(gone.name(), "");
  EXPECT_EQ(gone.base(), nullptr);
  EXPECT_EQ(gone.stats().capacity, 0U);
  const auto expect_error = [&](const auto& result) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(result.error().message, HasSubstr(message));
  };
  expect_error(gone.make<int>(1));
  expect_error(gone.make_array<int>(1));
  expect_error(gone.freeze());
  expect_error(gone.thaw());
  expect_error(gone.refreeze());
  expect_error(gone.collapse());
  expect_error(gone.prefault());
  expect_error(gone.private_bytes());
  expect_error(save_image(gone, std::filesystem::temp_directory_path() / "cowshed-moved-from"));
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
  for (int i = 0; i < 200; ++i) {
    arenas.push_back(std::make_unique<Arena>(
        Arena::create({.name = std::to_string(i), .capacity = 4_MiB, .huge_pages = false})
            .value()));
  }
  for (int round = 0; round < 3; ++round) {
    for (const auto& arena : arenas) {
      EXPECT_TRUE(arena->contains(arena->allocate(16)));
    }
  }
  for (const auto& arena : arenas) {
    EXPECT_EQ(arena->stats().live_allocations, 3U);
  }
}

// Forks in every call of a Progress: a child that leaves at once, and one that goes on.
struct ForkingProgress {
  int children = 0;
  int fine = 0;
  bool in_child = false;
  bool may_return = true;

  Progress progress() {
    return [this](std::size_t, std::size_t) {
      if (in_child) {
        return;
      }
      for (const bool returns : {false, true}) {
        if (returns && !may_return) {
          return;
        }
        const pid_t pid = fork();
        if (pid == 0) {
          alarm(30);
          if (!returns) {
            _exit(0);
          }
          in_child = true;
          return;
        }
        int status = -1;
        waitpid(pid, &status, 0);
        ++children;
        fine += status == 0 ? 1 : 0;
      }
    };
  }
  void leave_if_child(bool as_it_should_be) const {
    if (in_child) {
      _exit(as_it_should_be ? 0 : 1);
    }
  }
};

TEST(ForkInProgress, OfAFreeze) {
  const auto child = test::run_in_child([] {
    alarm(60);
    Arena arena = make_arena(256_MiB, "index", false);
    std::memset(arena.allocate(130_MiB), 1, 130_MiB);
    ForkingProgress forking;
    const auto collapsed = arena.collapse(forking.progress());
    forking.leave_if_child(!collapsed && collapsed.error().code == ErrorCode::not_inherited &&
                           !arena.make<int>(1));
    // Its end leaves nothing to collapse: lenient writes are what the next one tells of.
    const bool frozen = arena.freeze(FreezeMode::lenient).has_value();
    std::memset(arena.base(), 2, 130_MiB);
    const auto refrozen = arena.refreeze(forking.progress());
    forking.leave_if_child(!refrozen && refrozen.error().code == ErrorCode::not_inherited &&
                           arena.base()[0] == std::byte{2} && arena.stats().generation == 1);
    const bool whole = arena.base()[129_MiB] == std::byte{2} && *arena.private_bytes() == 0;
    return std::to_string(forking.children) + " children, " + std::to_string(forking.fine) + " " +
           (collapsed && frozen && refrozen && whole ? "fine" : "wrong");
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, testing::MatchesRegex("([0-9]+) children, [0-9]+ fine"));
  const auto number = [&](std::size_t from) { return std::stoi(child.said.substr(from)); };
  EXPECT_GE(number(0), 8);
  EXPECT_EQ(number(0), number(child.said.find(',') + 2)) << child.said;
}

// What is frozen the child has, and goes on with it.
TEST(ForkInProgress, OfWhatAChildHas) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("cowshed-fork-in-progress-" + std::to_string(getpid()));
  const auto child = test::run_in_child([&] {
    alarm(60);
    Arena arena = make_arena(256_MiB, "index", false);
    std::memset(arena.allocate(130_MiB), 1, 130_MiB);
    const bool frozen = arena.freeze().has_value();
    ForkingProgress forking;
    const auto collapsed = arena.collapse(forking.progress());
    forking.leave_if_child(collapsed.has_value());
    forking.may_return = false;  // two would write to one file
    const auto saved = save_image(arena, path, forking.progress());
    return frozen && collapsed && saved && forking.children >= 8 && forking.fine == forking.children
               ? "fine"
               : "wrong";
  });
  EXPECT_EQ(child.said, "fine") << child.signal;
  std::filesystem::remove(path);
}

// Each thread holds an arena and wants to fork, for which it needs the other's at rest.
TEST(ForkInProgress, OfManyThreadsAtOnce) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer does not support a fork while threads run";
#endif
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer's malloc may be left locked by a fork while threads run";
#endif
  const auto child = test::run_in_child([] {
    alarm(60);
    constexpr std::size_t kThreads = 3;
    std::vector<Arena> arenas;
    for (std::size_t i = 0; i < kThreads; ++i) {
      arenas.push_back(make_arena(256_MiB, std::to_string(i), false));
      std::memset(arenas.back().allocate(65_MiB), 1, 65_MiB);
    }
    std::atomic<std::size_t> inside = 0;
    std::atomic<int> fine = 0;
    const auto fork_often = [&](std::size_t own) {
      ++inside;
      while (inside < kThreads) {
        usleep(100);
      }
      for (int i = 0; i < 10; ++i) {
        const pid_t pid = fork();
        if (pid == 0) {
          alarm(30);
          // What the other threads held is free here.
          for (std::size_t k = 0; k < kThreads; ++k) {
            if (k != own && !arenas[k].stats().frozen && arenas[k].make<int>(1)) _exit(1);
          }
          _exit(Arena::create({.name = "own", .capacity = 4_MiB}) ? 0 : 1);
        }
        int status = -1;
        waitpid(pid, &status, 0);
        fine += status == 0 ? 1 : 0;
      }
    };
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        const Progress progress = [&, i](std::size_t, std::size_t) { fork_often(i); };
        (void)arenas[i].collapse(progress);
      });
    }
    for (auto& thread : threads) {
      thread.join();
    }
    bool frozen = true;
    for (Arena& arena : arenas) {
      frozen = frozen && arena.freeze();
    }
    return std::to_string(fine) + (frozen ? " fine" : " not frozen");
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, testing::EndsWith("fine"));
  EXPECT_GE(std::atoi(child.said.c_str()), 30) << child.said;
  EXPECT_EQ(std::atoi(child.said.c_str()) % 10, 0) << child.said;
}

}  // namespace
}  // namespace cowshed
