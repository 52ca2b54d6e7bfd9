#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

// This program does not link cowshed::malloc, and under a sanitizer none could.
TEST(ArenaScopeUnlinked, IsAClearError) {
  auto arena = Arena::create({.name = "loaded", .capacity = 4_MiB});
  ASSERT_TRUE(arena);
  const auto scope = ArenaScope::enter(*arena);
  ASSERT_FALSE(scope);
  EXPECT_EQ(scope.error().code, ErrorCode::unsupported);
  EXPECT_EQ(scope.error().message,
            "an ArenaScope of arena 'loaded' cannot begin: the program's malloc knows of no "
            "arenas; link cowshed::malloc");
  EXPECT_TRUE(arena->freeze());  // no scope is open
}

}  // namespace
}  // namespace cowshed
