#include <cowshed/share/arena_scope.h>
#include <cowshed/tests/share/share.h>

// Arenas that were destroyed after an ArenaScope.
namespace cowshed {
namespace {

void* volatile sink;

void* allocate_in(const Arena& arena, std::size_t size) {
  const auto scope = ArenaScope::enter(arena).value();
  void* block = std::malloc(size);
  sink = block;  // the compiler must not leave both out
  return block;
}

bool is_mapped(const std::byte* address) { return !test::mapping_name(address).empty(); }

class AbandonedArenaInState : public testing::TestWithParam<bool> {};  // whether it is frozen
INSTANTIATE_TEST_SUITE_P(States, AbandonedArenaInState, testing::Bool(),
                         [](const auto& state) { return state.param ? "Frozen" : "Open"; });

TEST_P(AbandonedArenaInState, WithoutABlockIsGivenBackAtOnce) {
  std::optional<Arena> arena = make_arena();
  std::free(allocate_in(*arena, 10_MiB));
  if (GetParam()) ASSERT_TRUE(arena->freeze());
  const std::byte* base = arena->base();
  arena.reset();
  EXPECT_FALSE(is_mapped(base));
}

TEST_P(AbandonedArenaInState, GoesWithItsLastBlock) {
  std::optional<Arena> arena = make_arena();
  void* block = allocate_in(*arena, 100);
  void* freed = allocate_in(*arena, 10_MiB);
  if (GetParam()) ASSERT_TRUE(arena->freeze());
  std::free(freed);
  const std::byte* base = arena->base();
  arena.reset();
  EXPECT_TRUE(is_mapped(base));
  if (!GetParam()) *static_cast<char*>(block) = 'x';  // as a library may that keeps it
  (void)make_arena("another");
  EXPECT_TRUE(is_mapped(base));
  std::free(block);
  const std::unique_ptr<void, decltype(&std::free)> another(std::malloc(100), &std::free);
  EXPECT_NE(another.get(), block);
  const Arena next = make_arena("next");
  EXPECT_TRUE(!is_mapped(base) || next.base() == base);
}

// As many as a process can have, and more.
TEST(AbandonedArena, DoesNotCountToTheLimit) {
  for (int i = 0; i < 1100; ++i) {
    std::optional<Arena> arena = make_arena();
    void* block = allocate_in(*arena, 100);
    if (i % 2 == 0) {
      std::free(block);
      continue;
    }
    arena.reset();
    std::free(block);
  }
}

TEST(AbandonedArena, WithBlocksCountsToTheLimitAndIsNamedThere) {
  const auto child = run_in_child([]() -> std::string {
    std::vector<void*> blocks;
    for (int i = 0; i < 1100; ++i) {
      auto arena = Arena::create({.name = "kept", .capacity = 2_MiB, .huge_pages = false});
      if (!arena) return std::to_string(i) + ": " + arena.error().message;
      blocks.push_back(allocate_in(*arena, 100));
    }
    return "no limit";
  });
  EXPECT_THAT(child.said, HasSubstr("1024: a process has at most 1024 arenas at a time"));
  EXPECT_THAT(child.said, HasSubstr(": 1024 were destroyed, but stay for blocks"));
}

// A library's own object, whose destructor runs after main(), in a forked child as well.
TEST(AbandonedArena, IsInheritedWithWhatIsLeftInIt) {
  const auto child = run_in_child([] {
    {
      const Arena arena = make_arena();
      const auto scope = ArenaScope::enter(arena).value();
      static auto* words = new std::vector<std::string>(10, std::string(100, 'x'));
      static const std::unique_ptr<std::vector<std::string>> owner(words);
    }
    Child leaving([]() -> int { std::exit(7); });
    return std::to_string(leaving.wait());
  });
  EXPECT_EQ(child.said, "7");
}

}  // namespace
}  // namespace cowshed
