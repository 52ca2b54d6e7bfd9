#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "child.h"
#include "scope_blocks.h"

// Loaders that know nothing of arenas.
namespace cowshed {
namespace {

using test::in_scope;
using test::make_arena;
using test::malloc_hits;

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

}  // namespace
}  // namespace cowshed
