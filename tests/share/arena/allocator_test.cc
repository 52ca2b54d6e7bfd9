#include <cowshed/share/arena_allocator.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

using Numbers = std::vector<int, ArenaAllocator<int>>;

// Nothing in a container means something else in another program.
static_assert(std::is_empty_v<ArenaAllocator<int>>);
static_assert(sizeof(Numbers) == sizeof(std::vector<int>));

ErrorCode push_back_error(Numbers& numbers) {
  return refusal_of([&] { numbers.push_back(1); }).code;
}

TEST(ArenaAllocator, WithoutAnArenaIsAnError) {
  Numbers numbers;  // allocates nothing
  EXPECT_EQ(push_back_error(numbers), ErrorCode::invalid_argument);
  EXPECT_THAT(refusal_of([] { (void)ArenaAllocator<int>().allocate(1); }).message,
              HasSubstr("UseArena"));
  const Arena arena = make_arena();
  {
    const UseArena use(arena);
    EXPECT_EQ(push_back_error(numbers), ErrorCode{255});
    // It is the thread's own.
    std::thread([&] {
      Numbers theirs;
      EXPECT_EQ(push_back_error(theirs), ErrorCode::invalid_argument);
    }).join();
  }
  numbers.shrink_to_fit();
  Numbers others;
  EXPECT_EQ(push_back_error(others), ErrorCode::invalid_argument);
}

TEST(ArenaAllocator, TooMuchIsABadArrayLength) {
  const Arena arena = make_arena();
  const UseArena use(arena);
  EXPECT_THROW((void)ArenaAllocator<int>().allocate(SIZE_MAX / 2), std::bad_array_new_length);
  EXPECT_THROW((void)ArenaAllocator<int>().allocate(1_GiB), ArenaBadAlloc);
}

TEST(ArenaAllocator, KeepsTheAlignment) {
  struct alignas(4096) Page {
    char bytes[4096];
  };
  const Arena arena = make_arena();
  const UseArena use(arena);
  std::list<Page, ArenaAllocator<Page>> pages(10);
  for (const auto& page : pages) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&page) % 4096, 0U);
}

TEST(UseArena, Nests) {
  const Arena first = make_arena(64_MiB, "first");
  const Arena second = make_arena(64_MiB, "second");
  const UseArena outer(first);
  {
    const UseArena inner(second);
    EXPECT_TRUE(second.contains(Numbers(100).data()));
  }
  EXPECT_TRUE(first.contains(Numbers(100).data()));
}

TEST(UseArena, FollowsAnArenaThatIsMoved) {
  Arena arena = make_arena();
  const UseArena use(arena);
  const Arena moved = std::move(arena);
  EXPECT_TRUE(moved.contains(Numbers(100).data()));
}

// Memory goes back where it came from, whatever arena is current.
TEST(ArenaAllocator, ContainersMoveBetweenArenas) {
  const Arena first = make_arena(64_MiB, "first");
  const Arena second = make_arena(64_MiB, "second");
  auto numbers = std::make_unique<Numbers>();
  {
    const UseArena use(first);
    numbers->assign(1000, 7);
  }
  {
    const UseArena use(second);
    Numbers moved = std::move(*numbers);
    EXPECT_TRUE(first.contains(moved.data()));
    Numbers copied = moved;
    EXPECT_TRUE(second.contains(copied.data()));
    copied.swap(moved);
    moved.resize(5000);  // the copy that lay in the first grows in the second
    EXPECT_TRUE(second.contains(moved.data()));
    copied = Numbers();
    EXPECT_EQ(first.stats().live_allocations, 0U);
    std::thread([&] { moved = Numbers(); }).join();
    EXPECT_EQ(second.stats().live_allocations, 0U);
  }
}

}  // namespace
}  // namespace cowshed
