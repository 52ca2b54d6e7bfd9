#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include <cowshed/tools/search/depends.h>

namespace cowshed::search {
namespace {

using testing::ElementsAre;

std::vector<std::string> dependencies(std::string_view field) {
  const std::set<std::string, std::less<>> known = {"a", "b", "c", "libc6"};
  std::vector<std::string> names;
  for_each_dependency(
      field, [&](std::string_view name) { return known.contains(name); },
      [&](std::string_view name) { names.emplace_back(name); });
  return names;
}

TEST(Depends, VersionsAndArchitecturesAreLeftOut) {
  EXPECT_THAT(dependencies("libc6 (>= 2.33), a:any, b [amd64] , c<!nocheck>"),
              ElementsAre("libc6", "a", "b", "c"));
}

TEST(Depends, TheFirstKnownAlternativeCounts) {
  EXPECT_THAT(dependencies("unknown | b | c, a | b"), ElementsAre("b", "a"));
}

TEST(Depends, OddFieldsHaveNoNames) {
  for (const std::string_view field : {"", ",", " , | ,, (", "unknown", "|", "\n \n"}) {
    EXPECT_THAT(dependencies(field), ElementsAre()) << field;
  }
}

}  // namespace
}  // namespace cowshed::search
