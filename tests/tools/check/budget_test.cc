#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tools/cowtop/check/budget.h>

namespace cowshed::cowtop {
namespace {

TEST(BudgetTest, Sizes) {
  EXPECT_EQ(parse_size("0").value(), 0);
  EXPECT_EQ(parse_size("4096").value(), 4096);
  EXPECT_EQ(parse_size("4096.0").value(), 4096);
  EXPECT_EQ(parse_size("0.5KiB").value(), 512);
  EXPECT_EQ(parse_size("1KiB").value(), 1024);
  EXPECT_EQ(parse_size("64MiB").value(), 64ULL << 20U);
  EXPECT_EQ(parse_size("64 MiB").value(), 64ULL << 20U);
  EXPECT_EQ(parse_size("1.5GiB").value(), 3ULL << 29U);
  EXPECT_EQ(parse_size("2TiB").value(), 2ULL << 40U);
}

TEST(BudgetTest, WhatIsNoSize) {
  for (const char* text : {"", "MiB", "-1", "+1", "1.5", "64MB", "64  MiB", "64mib", "1e3", "0x10",
                           "nan", "inf", "99999999999999999999", "9999999TiB", "1,5GiB", "5%"}) {
    EXPECT_THAT(failure_of(parse_size(text)).message,
                StartsWith("'" + std::string(text) + "' is not a size"));
  }
}

TEST(BudgetTest, Percentages) {
  EXPECT_DOUBLE_EQ(parse_percentage("5%").value(), 0.05);
  EXPECT_DOUBLE_EQ(parse_percentage("0%").value(), 0);
  EXPECT_DOUBLE_EQ(parse_percentage("0.5%").value(), 0.005);
  EXPECT_DOUBLE_EQ(parse_percentage("250%").value(), 2.5);
  for (const char* text : {"", "5", "0.05", "%", "-5%", "5  %", "5%%", "nan%", "99999999999%"})
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
