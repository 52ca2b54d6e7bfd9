#include <cowshed/share/arena_allocator.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

using Text = std::basic_string<char, std::char_traits<char>, ArenaAllocator<char>>;
using Numbers = std::vector<int, ArenaAllocator<int>>;
using Names = std::map<int, Text, std::less<>, ArenaAllocator<std::pair<const int, Text>>>;
using Table = std::unordered_map<int, Names, std::hash<int>, std::equal_to<>,
                                 ArenaAllocator<std::pair<const int, Names>>>;

// Nothing in a container means something else in another program.
static_assert(std::is_empty_v<ArenaAllocator<int>>);
static_assert(sizeof(Numbers) == sizeof(std::vector<int>));

ErrorCode push_back_error(Numbers& numbers) {
  return refusal_of([&] { numbers.push_back(1); }).code;
}

Table* make_table(const Arena& arena) {
  const UseArena use(arena);
  auto* table = new (ArenaAllocator<Table>().allocate(1)) Table;
  for (int i = 0; i < 1000; ++i)
    (*table)[i % 10][i] = Text("a name that is too long to be kept inside");
  return table;
}

TEST(ArenaAllocator, ContainersAndTheirMembersLieInTheArena) {
  const Arena arena = make_arena();
  const Table* table = make_table(arena);
  std::size_t names = 0;
  EXPECT_TRUE(arena.contains(table));
  for (const auto& [key, entries] : *table) {
    EXPECT_TRUE(arena.contains(&key));
    for (const auto& [number, name] : entries) {
      EXPECT_TRUE(arena.contains(&number) && arena.contains(name.data()));
      ++names;
    }
  }
  EXPECT_EQ(names, 1000U);
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
