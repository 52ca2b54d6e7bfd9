#include <cowshed/tests/share/share.h>

// What the library leaves if one malloc() fails.

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): glibc's own
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
// NOLINTEND(bugprone-reserved-identifier)
}

namespace cowshed {
namespace {

int mallocs_left = -1;  // until one fails; -1: none does
bool has_failed = false;

bool fails() {
  if (mallocs_left < 0 || mallocs_left-- > 0) return false;
  has_failed = true;
  errno = ENOMEM;
  return true;
}

}  // namespace
}  // namespace cowshed

extern "C" {

void* malloc(std::size_t size) { return cowshed::fails() ? nullptr : __libc_malloc(size); }
void* calloc(std::size_t count, std::size_t size) {
  return cowshed::fails() ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
  return cowshed::fails() ? nullptr : __libc_realloc(block, size);
}
}

namespace cowshed {
namespace {

// Calls round(call) until all mallocs of a call() have succeeded.  call(body) runs the body while
// one malloc fails, the first in the first round, and so on.
template <class Round>
void for_each_failure(Round round) {
  for (int n = 0; n == 0 || has_failed; ++n) {
    has_failed = false;
    round([n](auto body) {
      mallocs_left = n;
      try {
        body();
      } catch (const std::bad_alloc&) {
      }
      mallocs_left = -1;
    });
    ASSERT_FALSE(testing::Test::HasFailure()) << "malloc " << n << " failed";
  }
}

// The thread's first call registers its end, without which glibc ends the process.
class FailingMallocs : public test::LeavesNothing {
 protected:
  static void SetUpTestSuite() {
    Arena arena = make_arena();
    arena.deallocate(arena.allocate(8), 8);
    auto channel = make<int>();
    (void)channel.send(1);
  }
};

TEST_F(FailingMallocs, LeaveNothingOfAnArenaThatCannotBeMade) {
  const std::size_t before = test::open_descriptors();
  for_each_failure([&](auto call) {
    call(
        [] { (void)Arena::create({.name = "a name of its own, on the heap", .capacity = 4_MiB}); });
    EXPECT_EQ(test::open_descriptors(), before);
  });
}

TEST_F(FailingMallocs, LetAFreezeBeRepeated) {
  for_each_failure([&](auto call) {
    Arena arena = make_arena(4_MiB);
    const int* value = arena.make<int>(5).value();
    call([&] { (void)arena.freeze(); });
    EXPECT_TRUE(arena.freeze());
    EXPECT_EQ(*value, 5);
  });
}

TEST_F(FailingMallocs, LetARefreezeBeRepeated) {
  for_each_failure([&](auto call) {
    Arena arena = make_arena(8_MiB);
    int* old = arena.make<int>(5).value();
    EXPECT_TRUE(arena.freeze(FreezeMode::lenient));
    *old = 6;
    call([&] { (void)arena.thaw(); });
    if (arena.stats().frozen) EXPECT_TRUE(arena.thaw());
    const int* value = arena.make<int>(7).value();
    call([&] { (void)arena.refreeze(); });
    EXPECT_TRUE(arena.refreeze());
    EXPECT_EQ(*old + *value, 13);
    EXPECT_EQ(arena.stats().generation, 2U);
  });
}

TEST_F(FailingMallocs, LetAnArenaBeDestroyed) {
  for_each_failure([&](auto call) {
    std::optional<Arena> arena = make_arena(8_MiB);
    EXPECT_TRUE(publish("value", arena->make<int>(5).value()));
    EXPECT_TRUE(arena->freeze());
    EXPECT_TRUE(arena->thaw());
    (void)arena->allocate(8);
    EXPECT_TRUE(arena->refreeze());
    call([&] { arena.reset(); });
  });
}

TEST_F(FailingMallocs, LetWorkersBeKilled) {
  for_each_failure([&](auto call) {
    std::optional<Workers<>> workers = value_of(start({.count = 2}, [] {
      for (;;) pause();
    }));
    call([&] { workers.reset(); });
  });
}

TEST_F(FailingMallocs, LoseNoValueOfAWorker) {
  for_each_failure([&](auto call) {
    auto workers = value_of(start({}, [] { return std::string(100'000, 'x'); }));
    std::optional<std::string> value;
    call([&] {
      auto results = workers.wait();
      if (results) value = std::move(results->front().value);
    });
    const auto again = value_of(workers.wait());
    EXPECT_EQ(again[0].error, "");
    EXPECT_EQ(value ? value->size() : again[0].value.value_or("").size(), 100'000U);
  });
}

TEST_F(FailingMallocs, LeaveNoMemoryOfAChannelInUse) {
  const std::string text(100'000, 'x');
  for_each_failure([&](auto call) {
    auto channel = make<std::string>({.slots = 4, .memory = 1_MiB});
    ASSERT_TRUE(channel.send(""));  // joins the channel
    call([&] { (void)channel.send(text, 10ms); });
    while (channel.try_receive()) {
    }
    EXPECT_EQ(channel.stats().outstanding, 0U);
  });
}

}  // namespace
}  // namespace cowshed
