#include <memory_resource>

#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/image.h>

#include "share.h"

// What becomes of handles, and pointers, that have outlived their arena.
namespace cowshed {
namespace {

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
    EXPECT_THAT(result, Fails(ErrorCode::invalid_argument, message));
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
  for (int i = 0; i < 200; ++i)
    arenas.push_back(std::make_unique<Arena>(make_arena(4_MiB, std::to_string(i), false)));
  for (int round = 0; round < 3; ++round)
    for (const auto& arena : arenas) EXPECT_TRUE(arena->contains(arena->allocate(16)));
  for (const auto& arena : arenas) EXPECT_EQ(arena->stats().live_allocations, 3U);
}

}  // namespace
}  // namespace cowshed
