#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <cowshed/share/type_id.h>
#include <cowshed/share/type_tree.h>

namespace app {
struct Rule {};
namespace {
struct Hidden {};
}  // namespace
}  // namespace app

namespace cowshed {
namespace {

template <class T>
std::string readable() {
  return readable_type(type_name<T>());
}

TEST(ReadableType, LeavesOutWhatSaysNothing) {
  EXPECT_EQ(readable<int>(), "int");
  EXPECT_EQ(readable<unsigned long>(), "unsigned long");
  EXPECT_EQ(readable<std::string>(), "string");
  EXPECT_EQ(readable<std::u32string>(), "u32string");
  EXPECT_EQ(readable<app::Rule>(), "app::Rule");
  EXPECT_EQ(readable<app::Hidden>(), "app::Hidden");
  EXPECT_EQ(readable<std::vector<app::Rule>>(), "vector<app::Rule>");
  EXPECT_EQ(readable<std::vector<std::vector<std::string>>>(), "vector<vector<string>>");
  using Map = std::map<std::string, std::vector<long>>;
  EXPECT_EQ(readable<Map>(), "map<string, vector<long>>");
  using Rules = std::unordered_map<std::string, std::unique_ptr<app::Rule>>;
  EXPECT_EQ(readable<Rules>(), "unordered_map<string, unique_ptr<app::Rule>>");
}

TEST(ReadableType, KeepsWhatIsNoDefault) {
  EXPECT_EQ(readable_type("std::set<int, app::less>"), "set<int, app::less>");
  EXPECT_EQ(readable_type("std::set<int, std::less<int>, std::allocator<int> >"), "set<int>");
  EXPECT_EQ(readable_type("nostd::vector<int>"), "nostd::vector<int>");
  EXPECT_EQ(readable_type("std::function<void(int, std::vector<char>&)>"),
            "function<void(int, vector<char>&)>");
}

TEST(ReadableType, LeavesWhatItCannotRead) {
  for (const std::string odd : {"", "a<b", "a>b", "<", ">", ",", "std::vector<int", "a, b", "<>"}) {
    EXPECT_NO_THROW(readable_type(odd)) << odd;
  }
  EXPECT_EQ(readable_type("std::vector<int"), "std::vector<int");
}

std::string text(const internal::TypeTree& tree) {
  std::string result;
  for (const TypePath& path : tree.paths()) {
    result += path.path + ": " + std::to_string(path.objects) + " " + std::to_string(path.bytes) +
              " " + std::to_string(path.own_bytes) + "; ";
  }
  return result;
}

TEST(TypeTree, CountsByPathLargestFirst) {
  internal::TypeTree tree;
  tree.enter("Config", 0);
  tree.enter("int", 8);
  tree.leave(12);
  tree.enter("vector", 12);  // 8 of its own
  tree.enter("string", 20);
  tree.leave(50);
  tree.enter("string", 50);
  tree.leave(80);
  tree.add("int", 5, 20, 80);
  tree.leave(100);
  tree.leave(100);
  // The compiler may give equal literals one address, as equal types have.
  EXPECT_EQ(text(tree),
            "Config: 1 100 8; Config → vector: 1 88 8; Config → vector → string: 2 60 60; "
            "Config → vector → int: 5 20 20; Config → int: 1 4 4; ");
}

TEST(TypeTree, ATypeInsideItselfHasOnePath) {
  internal::TypeTree tree;
  const std::string_view list = "List";
  const std::string_view pointer = "pointer";
  constexpr std::uint64_t kDepth = 500;
  for (std::uint64_t i = 0; i < kDepth; ++i) {
    tree.enter(list, 10 * i);
    tree.enter(pointer, 10 * i + 4);
  }
  for (std::uint64_t i = 0; i < 2 * kDepth; ++i) {
    tree.leave(10 * kDepth);
  }
  EXPECT_EQ(text(tree), "List: 500 5000 2000; List → pointer: 500 3000 3000; ");
}

}  // namespace
}  // namespace cowshed
