#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/budget.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

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
  for (const char* text : {"", "5", "0.05", "%", "-5%", "5 %", "5%%", "nan%", "99999999999%"}) {
    EXPECT_FALSE(parse_percentage(text)) << text;
  }
}

TEST(BudgetTest, Objects) {
  EXPECT_EQ(parse_object("index=0").value(), (Budget::Object{"index", 0}));
  EXPECT_EQ(parse_object("a=b=4KiB").value(), (Budget::Object{"a=b", 4096}));
  for (const char* text : {"", "index", "=0", "index=", "index=5%"}) {
    EXPECT_FALSE(parse_object(text)) << text;
  }
}

class BudgetFile : public ::testing::Test {
 protected:
  Expected<Budget> read(const std::string& contents) {
    write_file(path_, contents);
    return read_budget(path_);
  }

  TestFolder folder_;
  std::string path_ = folder_ / "budget.json";
};

TEST_F(BudgetFile, TheExampleSaysAllThatThereIs) {
  Budget expected;
  expected.per = Budget::Per::child;
  expected.max_copied_bytes = 64 << 20;
  expected.max_ratio = 0.05;
  expected.objects = {{"index", 0}, {"names", 128 << 10}};
  expected.baseline = folder_ / "before.cowtop";
  expected.max_growth = 0.1;
  const auto budget = read(kBudgetExample);
  ASSERT_TRUE(budget) << budget.error().message;
  EXPECT_EQ(*budget, expected);
}

TEST_F(BudgetFile, AnAbsoluteBaselineStays) {
  EXPECT_EQ(read(R"({"schema": "cowshed.budget/1", "baseline": "/x"})").value().baseline, "/x");
}

TEST_F(BudgetFile, WhatIsWrongIsOneLineWithTheFileAndTheKey) {
  const auto with = [](const std::string& member) {
    return R"({"schema": "cowshed.budget/1", )" + member + "}";
  };
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "is not a JSON object"},
      {"[]", "is not a JSON object"},
      {"{\"schema\": ", "is not a JSON object"},
      {"{}", "has no \"schema\""},
      {R"({"schema": "cowshed.budget/2"})", "\"schema\": \"cowshed.budget/2\" is not"},
      {R"({"schema": 1})", "\"schema\": 1 is not"},
      {with(R"("max_copied": 1, "per": "tree", "max_copied": 2)"),
       "\"max_copied\": is there twice"},
      {with(R"("objects": {"a": 1, "b": 1, "a": 2})"), "\"a\": is there twice"},
      {with(R"("objects": {"": 0})"), "\"objects\": an object's name is empty"},
      {with(R"("max_copy": 1)"), "\"max_copy\": no such key"},
      {with(R"("a\nb": 1)"), R"("a\nb": no such key)"},
      {with(R"("max_copied": "64MB")"), "\"max_copied\": '64MB' is not a size"},
      {with(R"("max_copied": -1)"), "\"max_copied\": -1 is not a size"},
      {with(R"("max_copied": 1.5)"), "\"max_copied\": 1.5 is not a size"},
      {with(R"("max_copied": null)"), "\"max_copied\": null is not a size"},
      {with(R"("max_ratio": 5)"), "\"max_ratio\": 5 is not a percentage"},
      {with(R"("max_ratio": "5")"), "\"max_ratio\": '5' is not a percentage"},
      {with(R"("max_growth": {})"), "\"max_growth\": {} is not a percentage"},
      {with(R"("objects": [])"), "\"objects\": is not an object"},
      {with(R"("objects": {"index": "x"})"), "\"objects\": \"index\": 'x' is not a size"},
      {with(R"("per": "process")"), "\"per\": \"process\" is not"},
      {with(R"("baseline": 1)"), "\"baseline\": 1 is not the name of a file"},
      {with(R"("baseline": "")"), "\"baseline\": \"\" is not the name of a file"}};
  for (const auto& [contents, message] : wrong) {
    const auto budget = read(contents);
    ASSERT_FALSE(budget) << contents;
    EXPECT_THAT(budget.error().message, StartsWith(path_ + ": " + message));
    EXPECT_THAT(budget.error().message, ::testing::Not(HasSubstr("\n")));
  }
}

TEST_F(BudgetFile, CannotBeRead) {
  EXPECT_FALSE(read_budget("/no/such"));
  EXPECT_FALSE(read_budget("/"));
}

TEST(BudgetTest, OfTwoTheOneThatSaysSomething) {
  Budget under;
  under.per = Budget::Per::tree;
  under.max_copied_bytes = 1;
  under.objects = {{"a", 1}, {"b", 2}};
  under.baseline = "under";
  under.max_growth = 0.1;
  EXPECT_EQ(merged(under, {}), under);
  Budget over;
  over.per = Budget::Per::child;
  over.max_ratio = 0.5;
  over.objects = {{"a", 3}};
  over.baseline = "over";
  const Budget both = merged(under, over);
  EXPECT_EQ(both.per, Budget::Per::child);
  EXPECT_EQ(both.max_copied_bytes, 1U);
  EXPECT_EQ(both.max_ratio, 0.5);
  EXPECT_EQ(both.objects, (std::vector<Budget::Object>{{"b", 2}, {"a", 3}}));
  EXPECT_EQ(both.baseline, "over");
  EXPECT_EQ(both.max_growth, 0.1);
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
