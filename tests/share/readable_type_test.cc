#include <cowshed/share/readable_type.h>
#include <cowshed/share/type_id.h>

#include "share.h"

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
  for (const std::string odd : {"", "a<b", "a>b", "<", ">", ",", "std::vector<int", "a, b", "<>"})
    EXPECT_NO_THROW(readable_type(odd)) << odd;
  EXPECT_EQ(readable_type("std::vector<int"), "std::vector<int");
}

}  // namespace
}  // namespace cowshed
