#include <nlohmann/json.hpp>

#include <cowshed/share/arena_scope.h>

#include "scope_blocks.h"
#include "share.h"

// Loaders that know nothing of arenas.
namespace cowshed {
namespace {

using test::in_scope;
using test::malloc_hits;

struct Loaded {
  nlohmann::json* document;
  std::map<int, std::string>* names;
  std::shared_ptr<std::vector<int>>* numbers;
  char* line;  // of getline()
  char* copy;  // of strdup()
};

Loaded load(const std::string& text, FILE* file) {
  Loaded loaded = {};
  loaded.document = new nlohmann::json(nlohmann::json::parse(text));
  loaded.names = new std::map<int, std::string>;
  for (int i = 0; i < 1000; ++i)
    loaded.names->emplace(i, "a name that is too long to be kept inside " + std::to_string(i));
  loaded.numbers = new auto(std::make_shared<std::vector<int>>(10000, 7));
  std::size_t room = 0;
  if (getline(&loaded.line, &room, file) < 0) throw std::runtime_error("getline");
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

// How many parts what was loaded has, and how many of them lie elsewhere.
struct Walk {
  const Arena& arena;
  std::size_t parts = 0;
  std::size_t outside = 0;

  Walk(const Arena& place, const Loaded& loaded) : arena(place) {
    walk(*loaded.document);
    for (const auto& [number, name] : *loaded.names) {
      see(&number);
      see(name.data());
    }
    for (const void* part :
         std::initializer_list<const void*>{loaded.names, loaded.numbers, loaded.numbers->get(),
                                            (*loaded.numbers)->data(), loaded.line, loaded.copy}) {
      see(part);
    }
  }
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
      for (const auto& element : value) walk(element);
    } else if (value.is_string()) {
      see(value.get_ref<const std::string&>().data());
    }
  }
};

// Reads everything; "" when it is as it was loaded.
std::string difference(const Loaded& loaded, const std::string& text) {
  if (loaded.document->dump() != text) return "document";
  if (loaded.names->at(17) != "a name that is too long to be kept inside 17") return "names";
  if (**loaded.numbers != std::vector<int>(10000, 7)) return "vector";
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
  const Walk walk(arena_, loaded_);
  EXPECT_EQ(walk.outside, 0U);
  EXPECT_GT(walk.parts, 20000U);
  EXPECT_EQ(difference(loaded_, text_), "");
  std::rewind(file_.get());
  const Loaded elsewhere = load(text_, file_.get());
  const Walk control(arena_, elsewhere);
  EXPECT_EQ(control.outside, control.parts);
  for (const Loaded& loaded : {loaded_, elsewhere}) {
    delete loaded.document;
    delete loaded.names;
    delete loaded.numbers;
    std::free(loaded.line);
    std::free(loaded.copy);
  }
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
  const auto use_and_free = [&] {
    std::string wrong = difference(loaded_, text_);
    free_parts(loaded_);
    wrong += difference(loaded_, text_);  // all still there
    return wrong + std::to_string(arena_.stats().dropped_frees) + " dropped, " +
           std::to_string(malloc_hits(arena_)) + " again, " +
           std::to_string(arena_.private_bytes().value()) + " private";
  };
  // Line, copy, document; the map, its nodes and their strings.
  EXPECT_EQ(run_in_child(use_and_free).said, "2004 dropped, 0 again, 0 private");
  EXPECT_EQ(use_and_free(), "2004 dropped, 0 again, 0 private");
}

// Destructors that write do so to pages of the child's own, in a lenient arena.
TEST_F(ArenaScopeLoaders, LenientlyAChildMayDestroyThem) {
  ASSERT_TRUE(arena_.freeze(FreezeMode::lenient));
  const auto child = run_in_child([&] {
    delete loaded_.document;
    delete loaded_.numbers;
    const auto own = arena_.private_bytes();
    return std::to_string(malloc_hits(arena_)) + (own.value() > 0 ? " copied" : " clean");
  });
  EXPECT_EQ(child.said, "0 copied");
  EXPECT_EQ(difference(loaded_, text_), "");
  EXPECT_EQ(arena_.private_bytes().value(), 0U);
}

}  // namespace
}  // namespace cowshed
