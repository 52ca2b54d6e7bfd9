#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/budget.h>

namespace cowshed::cowtop {
namespace {

TEST(BudgetTest, Sizes) {
  const std::vector<std::pair<const char*, std::uint64_t>> sizes = {{"0", 0},
                                                                    {"4096", 4096},
                                                                    {"64MiB", 64ULL << 20U},
                                                                    {"1KiB", 1024},
                                                                    {"1.5GiB", 3ULL << 29U},
                                                                    {"0.5KiB", 512},
                                                                    {"2TiB", 2ULL << 40U},
                                                                    {"4096.0", 4096}};
  for (const auto& [text, bytes] : sizes) EXPECT_EQ(parse_size(text).value(), bytes) << text;
}

TEST(BudgetTest, WhatIsNoSize) {
  for (const char* text : {"", "MiB", "-1", "+1", "1.5", "64MB", "64 MiB", "64mib", "1e3", "0x10",
                           "nan", "inf", "99999999999999999999", "9999999TiB", "1,5GiB", "5%"}) {
    const auto size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_THAT(size.error().message, StartsWith("'" + std::string(text) + "' is not a size"));
  }
}

TEST(BudgetTest, Percentages) {
  EXPECT_DOUBLE_EQ(parse_percentage("5%").value(), 0.05);
  EXPECT_DOUBLE_EQ(parse_percentage("0%").value(), 0);
  EXPECT_DOUBLE_EQ(parse_percentage("0.5%").value(), 0.005);
  EXPECT_DOUBLE_EQ(parse_percentage("250%").value(), 2.5);
  for (const char* text : {"", "5", "0.05", "%", "-5%", "5 %", "5%%", "nan%", "99999999999%"})
    EXPECT_FALSE(parse_percentage(text)) << text;
}

TEST(BudgetTest, Objects) {
  const auto object = parse_object("a=b=4KiB").value();
  EXPECT_EQ(object.name, "a=b");
  EXPECT_EQ(object.bytes, 4096U);
  EXPECT_EQ(parse_object("index=0").value().bytes, 0U);
  for (const char* text : {"", "index", "=0", "index=", "index=5%"})
    EXPECT_FALSE(parse_object(text)) << text;
}

TEST(BudgetTest, WhatCannotBeHeldTo) {
  Budget budget;
  EXPECT_THAT(what_is_wrong_with(budget), StartsWith("no limit"));
  budget.max_growth = 0.1;
  EXPECT_THAT(what_is_wrong_with(budget), StartsWith("--max-growth"));
  budget.baseline = "file";
  EXPECT_EQ(what_is_wrong_with(budget), "");
  budget.max_growth.reset();
  EXPECT_THAT(what_is_wrong_with(budget), StartsWith("--baseline"));
}

}  // namespace
}  // namespace cowshed::cowtop
