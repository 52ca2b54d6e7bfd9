#include <malloc.h>
#include <stdio_ext.h>

#include "scope_blocks.h"

namespace cowshed {
namespace {

struct Way {
  const char* name;
  void* (*allocate)();
  void (*free)(void*) = &std::free;
  std::size_t alignment = 8;  // jemalloc's for the smallest

  friend void PrintTo(const Way& way, std::ostream* to) { *to << way.name; }
};
const Way ways[] = {
    {"malloc", [] { return std::malloc(100); }},
    {"calloc", [] { return std::calloc(10, 10); }},
    {"realloc", [] { return std::realloc(nullptr, 100); }},
    {"reallocarray", [] { return ::reallocarray(nullptr, 10, 10); }},
    {"posix_memalign",
     [] {
       void* block = nullptr;
       return posix_memalign(&block, 1024, 100) == 0 ? block : nullptr;
     },
     &std::free, 1024},
    {"aligned_alloc", [] { return std::aligned_alloc(256, 512); }, &std::free, 256},
    {"memalign", [] { return memalign(2_MiB, 100); }, &std::free, 2_MiB},
    {"valloc", [] { return valloc(100); }, &std::free, 4096},
    {"pvalloc", [] { return pvalloc(100); }, &std::free, 4096},
    {"strdup", [] { return static_cast<void*>(strdup(std::string(200, 'x').c_str())); }},
    {"strndup", [] { return static_cast<void*>(strndup("0123456789", 5)); }},
    {"asprintf",
     [] {
       char* text = nullptr;
       return asprintf(&text, "%200d", 1) == 200 ? static_cast<void*>(text) : nullptr;
     }},
    {"realpath", [] { return static_cast<void*>(realpath("/", nullptr)); }},
    {"new", [] { return ::operator new(100); }, [](void* block) { ::operator delete(block); }},
    {"new_array", [] { return ::operator new[](100); },
     [](void* block) { ::operator delete[](block); }},
    {"nothrow_new", [] { return ::operator new(100, std::nothrow); },
     [](void* block) { ::operator delete(block, std::nothrow); }},
    {"aligned_new", [] { return ::operator new(100, std::align_val_t{512}); },
     [](void* block) { ::operator delete(block, std::align_val_t{512}); }, 512},
    {"aligned_new_array", [] { return ::operator new[](100, std::align_val_t{64}, std::nothrow); },
     [](void* block) { ::operator delete[](block, std::align_val_t{64}); }, 64},
    {"large", [] { return std::malloc(20_MiB); }},
    {"nothing", [] { return std::malloc(0); }},
};
class ArenaScopeWays : public testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(Ways, ArenaScopeWays, testing::ValuesIn(ways),
                         [](const auto& way) { return way.param.name; });

TEST_P(ArenaScopeWays, ToAllocateLandThere) {
  const Way& way = GetParam();
  const Arena arena = make_arena();
  void* inside = in_scope(arena, way.allocate);
  void* outside = way.allocate();
  void* twice = in_scope(arena, way.allocate);
  EXPECT_TRUE(arena.contains(inside));
  EXPECT_TRUE(arena.contains(twice));
  EXPECT_NE(inside, twice);
  EXPECT_NE(outside, nullptr);
  EXPECT_FALSE(arena.contains(outside));
  for (void* block : {inside, outside, twice})
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % way.alignment, 0U);
  EXPECT_EQ(malloc_usable_size(inside), malloc_usable_size(outside));
  EXPECT_GE(arena.stats().live_allocations, 2U);
  way.free(inside);
  in_scope(arena, [&] { way.free(outside); });
  in_scope(arena, [&] { way.free(twice); });
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(ArenaScope, CallocIsZeroedAlsoWhereABlockWasFreed) {
  const Arena arena = make_arena();
  for (const std::size_t size : {100UL, 5000UL, 100000UL, 5UL << 20U}) {
    in_scope(arena, [&] { give(take(5, size)); });
    auto* zeros = static_cast<char*>(in_scope(arena, [&] { return std::calloc(1, size); }));
    EXPECT_EQ(std::count(zeros, zeros + size, 0), static_cast<std::ptrdiff_t>(size));
    std::free(zeros);
  }
}

TEST(ArenaScope, AStreamStaysLineBuffered) {
  std::setvbuf(stdin, nullptr, _IOLBF, 0);
  const Arena arena = make_arena();
  const auto scope = value_of(ArenaScope::enter(arena));
  EXPECT_NE(__flbf(stdin), 0);
}

TEST(ArenaScope, ScopesNest) {
  const Arena first = make_arena("first");
  const Arena second = make_arena("second");
  const auto outer = ArenaScope::enter(first);
  ASSERT_TRUE(outer);
  const auto blocks = take(10, 48);
  {
    const auto inner = ArenaScope::enter(second);
    EXPECT_EQ(count_inside(second, take(10, 48)), 10U);
    give(blocks);  // the outer arena's
    EXPECT_EQ(count_inside(second, take(20, 48)), 20U);
    {
      const auto again = ArenaScope::enter(first);
      EXPECT_EQ(count_inside(first, take(10, 48)), 10U);
    }
    EXPECT_EQ(count_inside(second, take(10, 48)), 10U);
  }
  EXPECT_EQ(count_inside(first, take(10, 48)), 10U);
}

TEST(ArenaScope, OneThatIsDestroyedBeforeAnInnerOneEndsWithIt) {
  for (const bool same : {false, true}) {
    Arena first = make_arena("first");
    Arena second = make_arena("second");
    std::optional<ArenaScope> outer(ArenaScope::enter(first).value());
    std::optional<ArenaScope> inner(ArenaScope::enter(same ? first : second).value());
    outer.reset();
    EXPECT_EQ(count_inside(same ? first : second, take(10, 48)), 10U);
    EXPECT_THAT(first.freeze(), Fails(ErrorCode::in_use));
    inner.reset();
    EXPECT_EQ(malloc_hits(first) + malloc_hits(second), 0U);
    EXPECT_TRUE(first.freeze());
    EXPECT_TRUE(second.freeze());
  }
}

TEST(ArenaScope, OneThatAnotherThreadDestroysEndsWithTheNext) {
  Arena arena = make_arena();
  const Arena other = make_arena("other");
  std::optional<ArenaScope> scope(ArenaScope::enter(arena).value());
  std::thread([&] {
    scope.reset();
    EXPECT_EQ(malloc_hits(arena), 0U);
  }).join();
  EXPECT_EQ(count_inside(arena, take(10, 48)), 10U);
  EXPECT_THAT(arena.freeze(), Fails(ErrorCode::in_use));
  {
    const auto next = ArenaScope::enter(other);
  }
  EXPECT_EQ(malloc_hits(arena) + malloc_hits(other), 0U);
  EXPECT_TRUE(arena.freeze());
}

TEST(ArenaScope, IsMoved) {
  Arena arena = make_arena();
  {
    auto scope = ArenaScope::enter(arena).value();
    const ArenaScope moved = std::move(scope);
    EXPECT_EQ(count_inside(arena, take(10, 48)), 10U);
  }
  EXPECT_EQ(malloc_hits(arena), 0U);
  EXPECT_TRUE(arena.freeze());
}

// Everything that realloc() can meet: from where, to where, smaller and larger.
TEST(ArenaScope, ReallocKeepsTheBytes) {
  Arena arena = make_arena("loaded", 512_MiB);
  Arena other = make_arena("other", 512_MiB);
  Arena frozen = make_arena("frozen", 512_MiB);
  const std::vector<std::size_t> sizes = {1, 40, 1000, 5000, 40000, 300000, 3_MiB};
  const auto fill = [](std::size_t size) {
    auto* block = static_cast<unsigned char*>(std::malloc(size));
    for (std::size_t i = 0; i < size; ++i) block[i] = static_cast<unsigned char>(i * 7 + size);
    return block;
  };
  const auto kept = [](const unsigned char* block, std::size_t from, std::size_t to) {
    for (std::size_t i = 0; i < std::min(from, to); ++i)
      if (block[i] != static_cast<unsigned char>(i * 7 + from)) return false;
    return true;
  };
  std::map<std::size_t, unsigned char*> sealed;
  for (const std::size_t size : sizes) sealed[size] = in_scope(frozen, [&] { return fill(size); });
  ASSERT_TRUE(frozen.freeze());
  struct Route {
    const char* name;
    const Arena* from;
    const Arena* to;
  };
  const auto within = [](const Arena* place, auto body) {
    return place == nullptr ? body() : in_scope(*place, body);
  };
  for (const std::size_t from : sizes) {
    for (const std::size_t to : sizes) {
      for (const Route& route :
           {Route{"inside", &arena, &arena}, Route{"in", nullptr, &arena},
            Route{"out", &arena, nullptr}, Route{"over", &arena, &other},
            Route{"frozen, out", &frozen, nullptr}, Route{"frozen, over", &frozen, &arena}}) {
        SCOPED_TRACE(std::to_string(from) + " to " + std::to_string(to) + ", " + route.name);
        void* old =
            route.from == &frozen ? sealed[from] : within(route.from, [&] { return fill(from); });
        auto* block =
            within(route.to, [&] { return static_cast<unsigned char*>(std::realloc(old, to)); });
        for (const Arena* place : {&arena, &other, &frozen})
          EXPECT_EQ(place->contains(block), place == route.to);
        EXPECT_TRUE(kept(block, from, to));
        std::free(block);
      }
      EXPECT_TRUE(kept(sealed[from], from, from));
    }
  }
  EXPECT_EQ(arena.stats().live_allocations, 0U);
  EXPECT_EQ(other.stats().live_allocations, 0U);
  EXPECT_EQ(frozen.stats().dropped_frees, 2 * sizes.size() * sizes.size());
  EXPECT_EQ(malloc_usable_size(sealed[40]), 0U);
}

TEST(ArenaScope, AReallocThatFailsKeepsTheBlock) {
  const Arena arena = make_arena();
  auto* block = strdup("kept");
  void* (*volatile resize)(void*, std::size_t) = &std::realloc;  // compilers think `block` is gone
  errno = 0;
  EXPECT_EQ(in_scope(arena, [&] { return resize(block, 1_GiB); }), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_STREQ(block, "kept");
  std::free(block);
}

TEST(ArenaScope, AFullArenaIsAFailedMallocAndGoesOn) {
  const Arena arena = make_arena("small", 8_MiB);
  in_scope(arena, [] {
    errno = 0;
    EXPECT_EQ(std::malloc(1_GiB), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    void* block = nullptr;
    EXPECT_EQ(posix_memalign(&block, 64, 1_GiB), ENOMEM);
    EXPECT_EQ(std::aligned_alloc(64, 1_GiB), nullptr);
    EXPECT_EQ(::operator new(1_GiB, std::nothrow), nullptr);
  });
  EXPECT_THROW(in_scope(arena, [] { return ::operator new(1_GiB); }), std::bad_alloc);
  in_scope(arena, [&] {
    const auto taken = take(10, 48);
    EXPECT_EQ(count_inside(arena, taken), 10U);
    give(taken);
  });
  // To the brim, by what throws, and it passes through the scope's end.
  std::vector<std::unique_ptr<std::array<char, 1000>>> blocks;
  blocks.reserve(100000);
  EXPECT_THROW(in_scope(arena,
                        [&] {
                          for (;;) blocks.push_back(std::make_unique<std::array<char, 1000>>());
                        }),
               std::bad_alloc);
  EXPECT_GT(blocks.size() * 1000, 6_MiB);
  EXPECT_FALSE(arena.contains(std::make_unique<int>().get()));
  blocks.clear();
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(ArenaScope, WhatIsFreedOfAFullArenaServesOtherSizesAtOnce) {
  const Arena arena = make_arena("small", 8_MiB);
  Blocks blocks;
  in_scope(arena, [&] {
    while (auto* block = static_cast<char*>(::operator new(1000, std::nothrow)))
      blocks.push_back(block);
    give(blocks);
    for (const std::size_t size : {16UL, 800UL, 20000UL, 1UL << 20U}) {
      void* block = ::operator new(size, std::nothrow);
      EXPECT_TRUE(arena.contains(block)) << size;
      ::operator delete(block);
    }
  });
  EXPECT_GT(blocks.size() * 1000, 6_MiB);
}

TEST(ArenaScope, AnExceptionThrownInsideIsCaughtOutside) {
  Arena arena = make_arena();
  std::exception_ptr failure;
  try {
    in_scope(arena, [] { throw std::runtime_error("a message that lies in the arena itself"); });
  } catch (const std::runtime_error& caught) {
    EXPECT_STREQ(caught.what(), "a message that lies in the arena itself");
    EXPECT_TRUE(arena.contains(caught.what()));
    failure = std::current_exception();
  }
  EXPECT_EQ(malloc_hits(arena), 0U);
  failure = nullptr;
  EXPECT_EQ(arena.stats().live_allocations, 0U);
  EXPECT_TRUE(arena.freeze());
}

TEST(ArenaScope, WhatTheFullArenaItselfRefusesIsItsError) {
  Arena arena = make_arena("tiny", 2_MiB);
  const auto code = in_scope(arena, [&] {
    for (const std::size_t size : {64_KiB, 4_KiB, 512UL, 64UL, 8UL}) {
      while (std::malloc(size) != nullptr) {
      }
    }
    return code_of(arena.make<std::array<char, 1_MiB>>());
  });
  EXPECT_EQ(code, ErrorCode::capacity_exceeded);
}

// Nothing destroys what make() makes, so the arena would stay.
TEST(ArenaScope, OfADiscardedArenaNothingStays) {
  Arena arena = make_arena();
  const std::byte* base = arena.base();
  {
    const auto scope = value_of(ArenaScope::enter(arena));
    EXPECT_THAT(arena.discard(), Fails(ErrorCode::in_use, "end them, then discard it"));
  }
  const auto make = [] { return std::vector<std::string>(1000, std::string(100, 'x')); };
  auto* texts = value_of(ArenaScope::make(arena, make));
  EXPECT_THAT(arena.freeze(), Succeeds());
  EXPECT_EQ(run_in_child([&]() -> std::string {
              return arena.discard() && test::mapping_name(base).empty() ? "gone" : "there";
            }).said,
            "gone");
  EXPECT_EQ(texts->at(999).size(), 100U) << "the child's discard() is the child's";
  EXPECT_THAT(arena.discard(), Succeeds());
  EXPECT_EQ(test::mapping_name(base), "");
  EXPECT_THAT(arena.freeze(), Fails(ErrorCode::invalid_argument));
  EXPECT_THAT(make_arena().freeze(), Succeeds());
}

TEST(ArenaScope, MakeSaysThatTheArenaIsFull) {
  const Arena arena = make_arena("tiny", 2_MiB);
  const auto fill = [] { return std::vector<std::string>(100'000, std::string(100, 'x')); };
  EXPECT_THAT(ArenaScope::make(arena, fill).error().message,
              testing::AllOf(StartsWith("arena 'tiny': capacity of 2097152 bytes exceeded by"),
                             HasSubstr("create it with a larger .capacity")));
  EXPECT_EQ(arena.stats().live_allocations, 0U);
  EXPECT_THROW((void)ArenaScope::make(arena, []() -> int { throw std::bad_alloc(); }),
               std::bad_alloc);
}

TEST(ArenaScope, AbsurdSizesAreFailedMallocs) {
  volatile std::size_t largest = static_cast<std::size_t>(-1);  // or the compiler warns
  const Arena arena = make_arena();
  const auto refused = [&] {
    const std::size_t most = largest;
    return malloc(most) == nullptr && calloc(most, 2) == nullptr && valloc(most) == nullptr &&
           pvalloc(most) == nullptr && memalign(64, most) == nullptr &&
           reallocarray(nullptr, most, 4) == nullptr;
  };
  in_scope(arena, [] { std::free(nullptr); });
  EXPECT_EQ(in_scope(arena, [] { return malloc_usable_size(nullptr); }), 0U);
  EXPECT_TRUE(refused());
  EXPECT_TRUE(in_scope(arena, refused));
}

TEST(ArenaScope, EndsWithItsThread) {
  Arena arena = make_arena();
  std::unique_ptr<ArenaScope> left;
  std::thread([&] {
    left = std::make_unique<ArenaScope>(ArenaScope::enter(arena).value());
  }).join();
  EXPECT_TRUE(arena.freeze());
}

TEST(ArenaScope, MustEndBeforeTheFreeze) {
  Arena arena = make_arena();
  {
    const auto scope = ArenaScope::enter(arena);
    EXPECT_THAT(arena.freeze(), Fails(ErrorCode::in_use, "1 ArenaScope(s) have not ended"));
    EXPECT_EQ(count_inside(arena, take(10, 48)), 10U);
  }
  EXPECT_TRUE(arena.freeze());
  EXPECT_THAT(ArenaScope::enter(arena), Fails(ErrorCode::arena_frozen));
}

using Words = std::unordered_map<std::string, std::vector<int>>;

Words make_words() {
  Words words;
  for (int i = 0; i < 1000; ++i)
    words["a word, of which there are many, " + std::to_string(i)] = {i};
  return words;
}

TEST(ArenaScope, MakeKeepsItsResultInTheArena) {
  Arena arena = make_arena();
  const Words& words = *value_of(ArenaScope::make(arena, make_words));
  EXPECT_TRUE(arena.contains(&words));
  for (const auto& [word, numbers] : words)
    EXPECT_TRUE(arena.contains(word.data()) && arena.contains(numbers.data()));
  const auto fails = []() -> int { throw std::runtime_error("no such file"); };
  EXPECT_THROW((void)ArenaScope::make(arena, fails), std::runtime_error);
  EXPECT_EQ(malloc_hits(arena), 0U);
  ASSERT_TRUE(arena.freeze());
  EXPECT_EQ(words, make_words());
  EXPECT_THAT(ArenaScope::make(arena, make_words), Fails(ErrorCode::arena_frozen));
}

class ArenaScopeInMode : public testing::TestWithParam<FreezeMode> {};
COWSHED_EVERY_MODE(ArenaScopeInMode);

// What is loaded by code that knows nothing of arenas.
TEST_P(ArenaScopeInMode, AChildMayUseWhatWasLoadedAndDestroyIt) {
  using Table = std::map<int, std::vector<std::string>>;
  const bool lenient = GetParam() == FreezeMode::lenient;
  Arena arena = make_arena();
  auto* table = in_scope(arena, [] { return new Table; });
  in_scope(arena, [&] {
    for (int i = 0; i < 1000; ++i) (*table)[i % 10].emplace_back(100, static_cast<char>(i));
  });
  for (const auto& [key, texts] : *table)
    for (const auto& text : texts) EXPECT_TRUE(arena.contains(&key) && arena.contains(text.data()));
  const Table copy = *table;
  const auto blocks = arena.stats().live_allocations;
  ASSERT_TRUE(arena.freeze(GetParam()));
  const auto use = [&] {
    const bool same = *table == copy;
    if (lenient) (*table)[0][0] = "written";
    delete table;
    const bool copied = arena.private_bytes().value() > 0;
    return std::string(same ? "same, " : "other, ") + (copied ? "copied, " : "clean, ") +
           std::to_string(arena.stats().dropped_frees) + " dropped, " +
           std::to_string(malloc_hits(arena)) + " again";
  };
  EXPECT_EQ(run_in_child(use).said, std::string(lenient ? "same, copied, " : "same, clean, ") +
                                        std::to_string(blocks) + " dropped, 0 again");
  EXPECT_TRUE(*table == copy);
  EXPECT_EQ(arena.private_bytes().value(), 0U);
}

}  // namespace
}  // namespace cowshed
