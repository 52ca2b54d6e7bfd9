#include <algorithm>
#include <array>
#include <atomic>
#include <boost/graph/adjacency_list.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iconv.h>
#include <malloc.h>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <pthread.h>
#include <random>
#include <regex>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "child.h"
#include "scope_blocks.h"

namespace cowshed {
namespace {

using test::Blocks;
using test::count_inside;
using test::give;
using test::in_scope;
using test::make_arena;
using test::malloc_hits;
using test::take;
using testing::HasSubstr;

// ---- Loaders that know nothing of arenas.

struct City {
  std::string name;
};
struct Road {
  double kilometres = 0;
};
using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, City, Road>;

struct Loaded {
  nlohmann::json* document;
  std::regex* pattern;
  Graph* graph;
  std::map<int, std::string>* names;
  std::shared_ptr<std::vector<int>>* numbers;
  char* line;  // of getline()
  char* copy;  // of strdup()
};

Graph* load_graph(int cities) {
  auto* graph = new Graph(static_cast<std::size_t>(cities));
  for (int i = 0; i < cities; ++i) {
    (*graph)[static_cast<std::size_t>(i)].name = "the city with the number " + std::to_string(i);
    for (int k = 1; k <= 5; ++k) {
      boost::add_edge(static_cast<std::size_t>(i), static_cast<std::size_t>((i * k + 1) % cities),
                      Road{i + k * 0.5}, *graph);
    }
  }
  return graph;
}

Loaded load(const std::string& text, FILE* file) {
  Loaded loaded = {};
  loaded.document = new nlohmann::json(nlohmann::json::parse(text));
  loaded.pattern = new std::regex("(a|b)+[0-9]{2,5}-(x|yz)*(long|short) (ending)?");
  loaded.graph = load_graph(500);
  loaded.names = new std::map<int, std::string>;
  for (int i = 0; i < 1000; ++i) {
    loaded.names->emplace(i, "a name that is too long to be kept inside " + std::to_string(i));
  }
  loaded.numbers = new auto(std::make_shared<std::vector<int>>(10000, 7));
  std::size_t room = 0;
  if (getline(&loaded.line, &room, file) < 0) {
    throw std::runtime_error("getline");
  }
  loaded.copy = strdup("a string of C");
  return loaded;
}

std::string json_text() {
  nlohmann::json document;
  for (int i = 0; i < 2000; ++i) {
    document["a key of some length " + std::to_string(i)] = {
        {"number", i}, {"text", "a value of some length " + std::to_string(i)}, {"list", {i, 0.5}}};
  }
  return document.dump();
}

// Whatever of the document's parts lies elsewhere, and how many parts there are.
struct Walk {
  const Arena& arena;
  std::size_t parts = 0;
  std::size_t outside = 0;

  void see(const void* part) {
    ++parts;
    outside += arena.contains(part) ? 0 : 1;
  }
  void walk(const nlohmann::json& value) {
    see(&value);
    if (value.is_object()) {
      for (const auto& [key, member] : value.get_ref<const nlohmann::json::object_t&>()) {
        see(key.data());
        walk(member);
      }
    } else if (value.is_array()) {
      for (const auto& element : value) {
        walk(element);
      }
    } else if (value.is_string()) {
      see(value.get_ref<const std::string&>().data());
    }
  }
  void walk(const Graph& graph) {
    see(&graph);
    for (const auto vertex : boost::make_iterator_range(boost::vertices(graph))) {
      see(&graph[vertex]);
      see(graph[vertex].name.data());
    }
    for (const auto edge : boost::make_iterator_range(boost::edges(graph))) {
      see(&graph[edge]);
    }
  }
  void walk(const Loaded& loaded) {
    walk(*loaded.document);
    walk(*loaded.graph);
    see(loaded.pattern);
    see(loaded.names);
    for (const auto& [number, name] : *loaded.names) {
      see(&number);
      see(name.data());
    }
    see(loaded.numbers);
    see(loaded.numbers->get());
    see((*loaded.numbers)->data());
    see(loaded.line);
    see(loaded.copy);
  }
};

// Reads everything; "" when it is as it was loaded.
std::string difference(const Loaded& loaded, const std::string& text) {
  if (loaded.document->dump() != text) return "document";
  if (!std::regex_match("abba123-xyzlong ending", *loaded.pattern)) return "pattern";
  if (std::regex_match("abba1-xlong ", *loaded.pattern)) return "pattern matches all";
  double kilometres = 0;
  for (const auto edge : boost::make_iterator_range(boost::edges(*loaded.graph))) {
    kilometres += (*loaded.graph)[edge].kilometres;
  }
  if (kilometres != 5 * 500 * 499 / 2. + 7.5 * 500) return "graph";
  if (loaded.names->at(17) != "a name that is too long to be kept inside 17") return "names";
  if (std::count((*loaded.numbers)->begin(), (*loaded.numbers)->end(), 7) != 10000) return "vector";
  if (std::string(loaded.line) != "the first line\n") return "line";
  if (std::string(loaded.copy) != "a string of C") return "copy";
  return "";
}

class ArenaScopeLoaders : public testing::Test {
 protected:
  ArenaScopeLoaders() {
    EXPECT_GT(std::fputs("the first line\nthe second\n", file_.get()), 0);
    std::rewind(file_.get());
    EXPECT_EQ(std::fgetc(file_.get()), 't');  // so that it has its buffer
    std::rewind(file_.get());
    loaded_ = in_scope(arena_, [&] { return load(text_, file_.get()); });
  }

  const std::string text_ = json_text();
  const std::unique_ptr<FILE, decltype(&std::fclose)> file_{std::tmpfile(), &std::fclose};
  Arena arena_ = make_arena();
  Loaded loaded_{};
};

TEST_F(ArenaScopeLoaders, EveryPartLiesInTheArena) {
  Walk walk = {arena_};
  walk.walk(loaded_);
  EXPECT_EQ(walk.outside, 0U);
  EXPECT_GT(walk.parts, 20000U);
  EXPECT_EQ(difference(loaded_, text_), "");
  const Loaded elsewhere = [&] {
    std::rewind(file_.get());
    return load(text_, file_.get());
  }();
  Walk control = {arena_};
  control.walk(elsewhere);
  EXPECT_EQ(control.outside, control.parts);
  // The automaton cannot be walked: counted.
  const auto before = arena_.stats().live_allocations;
  const auto* another = in_scope(arena_, [] { return new std::regex("(a|b)+[0-9]{2,5}"); });
  EXPECT_GT(arena_.stats().live_allocations, before + 3);
  delete another;
  EXPECT_EQ(arena_.stats().live_allocations, before);
  for (auto* document : {loaded_.document, elsewhere.document}) delete document;
  for (auto* pattern : {loaded_.pattern, elsewhere.pattern}) delete pattern;
  for (auto* graph : {loaded_.graph, elsewhere.graph}) delete graph;
  for (auto* names : {loaded_.names, elsewhere.names}) delete names;
  for (auto* numbers : {loaded_.numbers, elsewhere.numbers}) delete numbers;
  for (char* text : {loaded_.line, elsewhere.line, loaded_.copy, elsewhere.copy}) std::free(text);
  EXPECT_EQ(arena_.stats().live_allocations, 0U);
}

// What a destructor that writes nothing frees.
void free_parts(const Loaded& loaded) {
  std::free(loaded.line);
  std::free(loaded.copy);
  delete loaded.names;
  ::operator delete(loaded.document);
}

TEST_F(ArenaScopeLoaders, AChildUsesAndFreesThemAndCopiesNothing) {
  ASSERT_TRUE(arena_.freeze());
  const auto child = test::run_in_child([&] {
    std::string wrong = difference(loaded_, text_);
    const auto before = arena_.stats().dropped_frees;
    free_parts(loaded_);
    const auto dropped = arena_.stats().dropped_frees - before;
    wrong += difference(loaded_, text_);  // all still there
    const std::size_t hits = malloc_hits(arena_);
    auto own = arena_.private_bytes();
    return wrong + std::to_string(dropped) + " dropped, " + std::to_string(hits) + " again, " +
           std::to_string(own.value()) + " private";
  });
  // Line, copy, document; the map, its nodes and their strings.
  EXPECT_EQ(child.said, "2004 dropped, 0 again, 0 private");
  free_parts(loaded_);
  EXPECT_EQ(arena_.stats().dropped_frees, 2004U);
  EXPECT_EQ(difference(loaded_, text_), "");
  EXPECT_EQ(malloc_hits(arena_), 0U);
  EXPECT_EQ(arena_.private_bytes().value(), 0U);
}

// Destructors that write do so to pages of the child's own, in a lenient arena.
TEST_F(ArenaScopeLoaders, LenientlyAChildMayDestroyThem) {
  ASSERT_TRUE(arena_.freeze(FreezeMode::lenient));
  const auto child = test::run_in_child([&] {
    delete loaded_.document;
    delete loaded_.graph;
    delete loaded_.numbers;
    delete loaded_.pattern;
    auto own = arena_.private_bytes();
    return std::to_string(malloc_hits(arena_)) + (own.value() > 0 ? " copied" : " clean");
  });
  EXPECT_EQ(child.said, "0 copied");
  EXPECT_EQ(difference(loaded_, text_), "");
  EXPECT_EQ(arena_.private_bytes().value(), 0U);
}

// ---- malloc, function by function.

TEST(ArenaScope, EveryWayToAllocateLandsThere) {
  const Arena arena = make_arena();
  struct Way {
    const char* name;
    void* (*allocate)();
    void (*free)(void*) = &std::free;
    std::size_t alignment = 8;  // jemalloc's for the smallest
  };
  const std::vector<Way> ways = {
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
      {"new[]", [] { return ::operator new[](100); },
       [](void* block) { ::operator delete[](block); }},
      {"nothrow new", [] { return ::operator new(100, std::nothrow); },
       [](void* block) { ::operator delete(block, std::nothrow); }},
      {"aligned new", [] { return ::operator new (100, std::align_val_t{512}); },
       [](void* block) { ::operator delete (block, std::align_val_t{512}); }, 512},
      {"aligned new[]", [] { return ::operator new[](100, std::align_val_t{64}, std::nothrow); },
       [](void* block) { ::operator delete[](block, std::align_val_t{64}); }, 64},
      {"large", [] { return std::malloc(20_MiB); }},
      {"nothing", [] { return std::malloc(0); }},
  };
  for (const auto& way : ways) {
    SCOPED_TRACE(way.name);
    void* inside = in_scope(arena, way.allocate);
    void* outside = way.allocate();
    void* twice = in_scope(arena, way.allocate);
    EXPECT_TRUE(arena.contains(inside));
    EXPECT_TRUE(arena.contains(twice));
    EXPECT_NE(inside, twice);
    EXPECT_NE(outside, nullptr);
    EXPECT_FALSE(arena.contains(outside));
    for (void* block : {inside, outside, twice}) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % way.alignment, 0U);
    }
    EXPECT_EQ(malloc_usable_size(inside), malloc_usable_size(outside));
    EXPECT_GE(arena.stats().live_allocations, 2U);
    way.free(inside);
    in_scope(arena, [&] { way.free(outside); });
    in_scope(arena, [&] { way.free(twice); });
    EXPECT_EQ(arena.stats().live_allocations, 0U);
  }
}

TEST(ArenaScope, CallocIsZeroedAlsoWhereABlockWasFreed) {
  const Arena arena = make_arena();
  for (const std::size_t size : {100UL, 5000UL, 100000UL, 5UL << 20U}) {
    in_scope(arena, [&] { give(take(5, size)); });
    auto* zeros = static_cast<char*>(in_scope(arena, [&] { return std::calloc(1, size); }));
    EXPECT_EQ(std::count(zeros, zeros + size, 0), static_cast<std::ptrdiff_t>(size));
    std::free(zeros);
  }
  volatile std::size_t too_many = SIZE_MAX / 2;
  EXPECT_EQ(in_scope(arena, [&] { return std::calloc(too_many, 4); }), nullptr);
}

TEST(ArenaScope, FreeOfNothingIsNothing) {
  const Arena arena = make_arena();
  in_scope(arena, [] {
    std::free(nullptr);
    EXPECT_EQ(malloc_usable_size(nullptr), 0U);
  });
  std::free(nullptr);
}

TEST(ArenaScope, WhatIsFreedInsideOfOtherMemoryIsNotHandedOutThere) {
  const Arena arena = make_arena();
  for (const std::size_t size : {16UL, 48UL, 1000UL, 20000UL, 100000UL, 3UL << 20U}) {
    SCOPED_TRACE(size);
    const std::size_t count = size > 1000000 ? 3 : 100;
    const auto before = take(count, size);
    const auto inside = in_scope(arena, [&] {
      give(before);
      return take(2 * count, size);
    });
    EXPECT_EQ(count_inside(arena, before), 0U);
    EXPECT_EQ(count_inside(arena, inside), 2 * count);
    // And the other way round.
    give(inside);
    const auto after = take(3 * count, size);
    EXPECT_EQ(count_inside(arena, after), 0U);
    give(after);
  }
  EXPECT_EQ(arena.stats().live_allocations, 0U);
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
    EXPECT_EQ(first.freeze().error().code, ErrorCode::in_use);
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
  EXPECT_EQ(arena.freeze().error().code, ErrorCode::in_use);
  { const auto next = ArenaScope::enter(other); }
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
    for (std::size_t i = 0; i < std::min(from, to); ++i) {
      if (block[i] != static_cast<unsigned char>(i * 7 + from)) return false;
    }
    return true;
  };
  std::map<std::size_t, unsigned char*> sealed;
  for (const std::size_t size : sizes) {
    sealed[size] = in_scope(frozen, [&] { return fill(size); });
  }
  ASSERT_TRUE(frozen.freeze());
  const auto resize = [](void* block, std::size_t size) {
    return static_cast<unsigned char*>(std::realloc(block, size));
  };
  for (const std::size_t from : sizes) {
    for (const std::size_t to : sizes) {
      SCOPED_TRACE(std::to_string(from) + " to " + std::to_string(to));
      auto* inside = in_scope(arena, [&] { return resize(fill(from), to); });
      EXPECT_TRUE(arena.contains(inside) && kept(inside, from, to));
      std::free(inside);
      auto* block = fill(from);
      block = in_scope(arena, [&] { return resize(block, to); });
      EXPECT_TRUE(arena.contains(block) && kept(block, from, to)) << "heap to arena";
      std::free(block);
      block = in_scope(arena, [&] { return fill(from); });
      block = resize(block, to);
      EXPECT_TRUE(!arena.contains(block) && kept(block, from, to)) << "arena to heap";
      std::free(block);
      block = in_scope(arena, [&] { return fill(from); });
      block = in_scope(other, [&] { return resize(block, to); });
      EXPECT_TRUE(other.contains(block) && kept(block, from, to)) << "arena to arena";
      std::free(block);
      block = resize(sealed[from], to);
      EXPECT_TRUE(!frozen.contains(block) && kept(block, from, to)) << "frozen to heap";
      std::free(block);
      block = in_scope(arena, [&] { return resize(sealed[from], to); });
      EXPECT_TRUE(arena.contains(block) && kept(block, from, to)) << "frozen to arena";
      std::free(block);
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

// ---- A full arena.

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
  for (const std::size_t size : {16UL, 800UL, 5000UL, 100000UL, 1UL << 20U}) {
    in_scope(arena, [&] {  // what was freed serves other sizes
      void* block = std::malloc(size);
      EXPECT_TRUE(arena.contains(block)) << size;
      std::free(block);
    });
  }
}

TEST(ArenaScope, WhatIsFreedOfAFullArenaServesOtherSizesAtOnce) {
  const Arena arena = make_arena("small", 8_MiB);
  Blocks blocks;
  in_scope(arena, [&] {
    while (auto* block = static_cast<char*>(::operator new(1000, std::nothrow))) {
      blocks.push_back(block);
    }
    give(blocks);
    for (const std::size_t size : {20000UL, 1UL << 20U}) {
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
  struct Large {
    std::array<char, 1_MiB> bytes;
  };
  const auto code = in_scope(arena, [&] {
    for (const std::size_t size : {64_KiB, 4_KiB, 512UL, 64UL, 8UL}) {
      while (std::malloc(size) != nullptr) {
      }
    }
    const auto made = arena.make<Large>();
    return made ? std::optional<ErrorCode>() : made.error().code;
  });
  EXPECT_EQ(code, ErrorCode::capacity_exceeded);
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
  EXPECT_TRUE(refused());
  EXPECT_TRUE(in_scope(arena, refused));
}

// ---- The freeze.

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
    const auto frozen = arena.freeze();
    ASSERT_FALSE(frozen);
    EXPECT_EQ(frozen.error().code, ErrorCode::in_use);
    EXPECT_THAT(frozen.error().message, HasSubstr("1 ArenaScope(s) have not ended"));
    EXPECT_EQ(count_inside(arena, take(10, 48)), 10U);
  }
  EXPECT_TRUE(arena.freeze());
}

TEST(ArenaScope, OfAFrozenArenaIsAnErrorOrItsSuccessors) {
  Arena plain = make_arena("plain");
  Arena first = make_arena("first");
  Arena second = make_arena("second");
  Arena third = make_arena("third");
  ASSERT_TRUE(plain.freeze());
  const auto refused = ArenaScope::enter(plain);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::arena_frozen);
  ASSERT_TRUE(first.freeze({.successor = &second}));
  EXPECT_EQ(in_scope(first, [&] { return count_inside(second, take(10, 48)); }), 10U);
  ASSERT_TRUE(second.freeze({.successor = &third}));
  EXPECT_EQ(in_scope(first, [&] { return count_inside(third, take(10, 48)); }), 10U);
  EXPECT_EQ(malloc_hits(third), 0U);
}

TEST(ArenaScope, OfAThawedArenaFillsItsOpenPart) {
  Arena arena = make_arena();
  const auto old = in_scope(arena, [] { return take(100, 48); });
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(arena.thaw());
  const auto fresh = in_scope(arena, [&] {
    give(old);
    return take(300, 48);
  });
  EXPECT_EQ(arena.stats().dropped_frees, 100U);
  EXPECT_EQ(count_inside(arena, fresh), 300U);
  for (const char* block : fresh) {
    EXPECT_EQ(std::count(old.begin(), old.end(), block), 0);
  }
  ASSERT_TRUE(arena.refreeze());
  give(fresh);
  EXPECT_EQ(arena.stats().dropped_frees, 400U);
  EXPECT_EQ(malloc_hits(arena), 0U);
  const auto child = test::run_in_child([&] {
    give(fresh);
    auto own = arena.private_bytes();
    return std::to_string(malloc_hits(arena)) + " " + std::to_string(own.value());
  });
  EXPECT_EQ(child.said, "0 0");
}

// ---- Threads.

TEST(ArenaScope, IsOneThreadsOwn) {
  const Arena arena = make_arena();
  const Arena theirs = make_arena("theirs");
  std::atomic<int> turn = 0;
  std::size_t hits = 1;
  std::size_t inside = 0;
  std::thread other([&] {
    while (turn != 1) std::this_thread::yield();
    hits = malloc_hits(arena);
    inside = in_scope(theirs, [&] { return count_inside(theirs, take(100, 48)); });
    hits += malloc_hits(arena);
    turn = 2;
  });
  in_scope(arena, [&] {
    turn = 1;
    while (turn != 2) give(take(100, 48));
  });
  other.join();
  EXPECT_EQ(hits, 0U);
  EXPECT_EQ(inside, 100U);
}

TEST(ArenaScope, AnyThreadMayFree) {
  Arena arena = make_arena();
  const auto blocks = in_scope(arena, [] { return take(10000, 64); });
  const Arena theirs = make_arena("theirs");
  std::size_t hits = 1;
  std::thread([&] {
    for (std::size_t i = 0; i < 5000; ++i) std::free(blocks[i]);
    hits = malloc_hits(arena);
    in_scope(theirs, [&] {
      for (std::size_t i = 5000; i < 10000; ++i) std::free(blocks[i]);
    });
    hits += malloc_hits(arena);
  }).join();
  EXPECT_EQ(hits, 0U);
  EXPECT_EQ(theirs.stats().live_allocations, 0U);
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(ArenaScope, WhatAThreadLeavesBehindStays) {
  Arena arena = make_arena();
  Blocks blocks;
  for (int i = 0; i < 20; ++i) {
    std::thread([&] {
      const auto mine = in_scope(arena, [] { return take(100, 64); });
      blocks.insert(blocks.end(), mine.begin(), mine.end());
    }).join();
  }
  EXPECT_EQ(count_inside(arena, blocks), 2000U);
  ASSERT_TRUE(arena.freeze());
  give(blocks);
  EXPECT_EQ(arena.stats().dropped_frees, 2000U);
}

// The C library keeps the stacks of threads that ended, with records that it allocated.
TEST(ArenaScope, AThreadStartedInsideLeavesNothingThatIsWrittenToLater) {
  const auto child = test::run_in_child([] {
    Arena arena = make_arena();
    in_scope(arena, [] { std::thread([] { give(take(10, 64)); }).join(); });
    if (!arena.freeze()) return "not frozen";
    for (int i = 0; i < 5; ++i) {
      std::thread([] { give(take(10, 64)); }).join();
    }
    return "fine";
  });
  EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
}

// ---- fork().

TEST(ArenaScope, IsOverInAForkedChild) {
  Arena outer = make_arena("outer");
  Arena arena = make_arena();
  auto* before = strdup("from before");
  char* inside = nullptr;
  const std::function<std::string()> body = [&]() -> std::string {
    if (malloc_hits(arena) + malloc_hits(outer) != 0) return "hit";
    std::free(before);
    std::free(inside);  // not there, dropped
    if (ArenaScope::enter(arena).error().code != ErrorCode::not_inherited) return "entered";
    Arena own = make_arena("own");
    if (in_scope(own, [&] { return count_inside(own, take(100, 48)); }) != 100) return "no scope";
    return malloc_hits(own) == 0 && own.freeze() ? "fine" : "failed";
  };
  {
    const auto first = ArenaScope::enter(outer);
    const auto second = ArenaScope::enter(arena);
    inside = strdup("inside");
    const auto child = test::run_in_child(body);
    EXPECT_EQ(child.said, "fine") << "signal " << child.signal;
    EXPECT_EQ(count_inside(arena, take(100, 48)), 100U);
    EXPECT_STREQ(inside, "inside");
  }
  std::free(before);
  EXPECT_EQ(malloc_hits(arena), 0U);
  EXPECT_TRUE(arena.freeze());
  EXPECT_TRUE(outer.freeze());
}

// The scope's destructor runs in the child too.
TEST(ArenaScope, MayEndInAForkedChild) {
  const Arena arena = make_arena();
  std::optional<ArenaScope> scope;
  const std::function<std::string()> body = [&] {
    scope.reset();
    return std::to_string(malloc_hits(arena));
  };
  scope.emplace(ArenaScope::enter(arena).value());
  EXPECT_EQ(test::run_in_child(body).said, "0");
  EXPECT_EQ(count_inside(arena, take(100, 48)), 100U);
}

int handlers_hit = 0;
const Arena* arena_of_handlers = nullptr;

// Handlers of others run in the child before ours.
TEST(ArenaScope, IsOverInTheChildForEveryForkHandler) {
  const auto allocate = [] {
    const std::unique_ptr<int> block = std::make_unique<int>(1);
    handlers_hit += arena_of_handlers != nullptr && arena_of_handlers->contains(block.get());
  };
  const std::function<std::string()> body = [&] {
    // Registered before any arena of this program, when it is run by itself.
    static const int registered = pthread_atfork(nullptr, nullptr, allocate);
    const Arena arena = make_arena();
    arena_of_handlers = &arena;
    const std::function<std::string()> in_child = [] { return std::to_string(handlers_hit); };
    const auto scope = ArenaScope::enter(arena);
    const auto child = test::run_in_child(in_child);
    return registered == 0 && child.said == "0" ? "fine" : "signal";
  };
  EXPECT_EQ(test::run_in_child(body).said, "fine");
}

TEST(ArenaScope, ForkWhileOtherThreadsAreInside) {
  Arena arena = make_arena("busy", 512_MiB);
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        in_scope(arena, [] {
          for (std::size_t size = 8; size < 100000; size += size / 2) give(take(3, size));
        });
        give(take(10, 100));
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const auto child = test::run_in_child([&] {
      alarm(60);
      Arena own = make_arena("own");
      const auto blocks = in_scope(own, [] { return take(100, 48); });
      const bool fine = count_inside(own, blocks) == 100 && malloc_hits(own) == 0 && own.freeze();
      return fine ? "fine" : "failed";
    });
    ASSERT_EQ(child.said, "fine") << "signal " << child.signal;
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(arena.stats().live_allocations, 0U);
}

TEST(ArenaScope, ABlockOfADestroyedArenaIsDropped) {
  Blocks blocks;
  {
    const Arena arena = make_arena();
    blocks = in_scope(arena, [] { return take(10, 64); });
  }
  give(blocks);
}

// ---- All of it at random.

struct Block {
  unsigned char* bytes = nullptr;
  std::size_t size = 0;
  unsigned char pattern = 0;
};

class RandomWork {
 public:
  RandomWork(unsigned seed, const Arena& first, const Arena& second, std::vector<Block>& shared,
             std::mutex& mutex)
      : random_(seed), first_(first), second_(second), shared_(shared), mutex_(mutex) {}

  // The number of blocks that lay in the wrong place or had other bytes.
  std::size_t run(int steps) {
    outside(steps);
    for (auto& block : blocks_) free_block(block);
    return wrong_;
  }

 private:
  void outside(int steps) {
    for (int i = 0; i < steps; ++i) {
      if (random_() % 50 == 0) {
        inside(first_, 1);
      } else {
        step(nullptr);
      }
    }
  }

  void inside(const Arena& arena, int depth) {
    const auto scope = ArenaScope::enter(arena).value();
    for (auto i = random_() % 100; i > 0; --i) {
      if (depth < 4 && random_() % 30 == 0) {
        inside(random_() % 2 == 0 ? first_ : second_, depth + 1);
      } else {
        step(&arena);
      }
    }
  }

  void step(const Arena* current) {
    Block& block = blocks_[random_() % blocks_.size()];
    const std::size_t size = 1 + random_() % (std::size_t{1} << (3 + random_() % 15));
    switch (random_() % 4) {
      case 0: {  // exchange with other threads
        const std::lock_guard lock(mutex_);
        std::swap(block, shared_[random_() % shared_.size()]);
        return;
      }
      case 1:
        if (block.bytes != nullptr) {
          const auto resized = static_cast<unsigned char*>(std::realloc(block.bytes, size));
          check_place(resized, current);
          check_bytes(resized, std::min(size, block.size), block.pattern);
          fill(block, resized, size);
          return;
        }
        [[fallthrough]];
      default:
        free_block(block);
        fill(block,
             static_cast<unsigned char*>(random_() % 8 == 0
                                             ? std::aligned_alloc(128, (size + 127) & ~127UL)
                                             : std::malloc(size)),
             size);
        check_place(block.bytes, current);
    }
  }

  void fill(Block& block, unsigned char* bytes, std::size_t size) {
    block = {bytes, size, static_cast<unsigned char>(random_())};
    std::memset(bytes, block.pattern, size);
  }
  void free_block(Block& block) {
    check_bytes(block.bytes, block.size, block.pattern);
    std::free(block.bytes);
    block = {};
  }
  void check_bytes(const unsigned char* bytes, std::size_t size, unsigned char pattern) {
    wrong_ += std::count(bytes, bytes + size, pattern) == static_cast<std::ptrdiff_t>(size) ? 0 : 1;
  }
  void check_place(const void* block, const Arena* current) {
    for (const Arena* arena : {&first_, &second_}) {
      wrong_ += arena->contains(block) == (arena == current) ? 0 : 1;
    }
  }

  std::mt19937 random_;
  const Arena& first_;
  const Arena& second_;
  std::vector<Block>& shared_;
  std::mutex& mutex_;
  std::vector<Block> blocks_ = std::vector<Block>(200);
  std::size_t wrong_ = 0;
};

TEST(ArenaScope, AnyMixOfThreadsScopesAndCalls) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Arena first = make_arena("first", 1_GiB);
  Arena second = make_arena("second", 1_GiB);
  std::vector<Block> shared(100);
  std::mutex mutex;
  std::atomic<std::size_t> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&, i] { wrong += RandomWork(seed + i, first, second, shared, mutex).run(30000); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0U);
  for (const auto& block : shared) std::free(block.bytes);
  EXPECT_EQ(first.stats().live_allocations, 0U);
  EXPECT_EQ(second.stats().live_allocations, 0U);
  EXPECT_TRUE(first.freeze());
  EXPECT_TRUE(second.freeze());
}

}  // namespace
}  // namespace cowshed
