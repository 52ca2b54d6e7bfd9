#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/bench/pairs.h>
#include <cowshed/bench/report.h>

// What the benchmarks make of what they measured.
namespace cowshed::bench {
namespace {

using nlohmann::json;
using testing::ElementsAre;

std::string order_of(int rounds) {
  std::string order;
  const auto note = [&](char name) {
    return [&order, name] {
      order += name;
      return 0.0;
    };
  };
  interleave({{"a", note('a')}, {"b", note('b')}, {"c", note('c')}}, rounds);
  return order;
}

TEST(Interleave, EachOrderIsFollowedByItsReverse) {
  EXPECT_THAT(order_of(1), testing::UnorderedElementsAre('a', 'b', 'c'));
  for (const int rounds : {2, 3, 40}) {
    const std::string order = order_of(rounds);
    ASSERT_EQ(order.size(), 6 * static_cast<std::size_t>((rounds + 1) / 2));
    for (std::size_t i = 0; i < order.size(); i += 6) {
      const std::string there = order.substr(i, 3);
      EXPECT_THAT(there, testing::UnorderedElementsAre('a', 'b', 'c'));
      EXPECT_EQ(order.substr(i + 3, 3), std::string(there.rbegin(), there.rend()));
    }
  }
}

TEST(Interleave, EachComesAfterEachOther) {
  const std::string order = order_of(40);
  for (const std::string pair : {"ab", "ba", "ac", "ca", "bc", "cb", "aa", "bb", "cc"}) {
    EXPECT_NE(order.find(pair), std::string::npos) << pair;
  }
}

TEST(CompareDifferences, IsOfTheMedians) {
  // The median of the pairs' ratios is 0.5.
  const Comparison compared = compare_differences({10, 10, 10, 10}, {20, 20, 0.001, -5});
  EXPECT_DOUBLE_EQ(compared.ratio, 10 / ((20 + 0.001) / 2));
  EXPECT_EQ(compared.interval.high, kNoBound);
  EXPECT_GE(compared.interval.low, 0.5);
}

TEST(CompareDifferences, OfWhatIsSureIsNarrow) {
  const Comparison compared = compare_differences({10, 11, 9, 10}, {20, 22, 18, 20});
  EXPECT_DOUBLE_EQ(compared.ratio, 0.5);
  EXPECT_GT(compared.interval.low, 0.4);
  EXPECT_LT(compared.interval.high, 0.6);
}

std::vector<std::string> verdicts_of(const Report& report) {
  const auto file = std::filesystem::temp_directory_path() /
                    ("cowshed-report-" + std::to_string(getpid()) + ".json");
  report.write_json(file.string());
  std::vector<std::string> verdicts;
  const json written = json::parse(std::ifstream(file));
  for (const auto& goal : written["goals"]) {
    verdicts.push_back(goal["verdict"]);
  }
  std::filesystem::remove(file);
  return verdicts;
}

Comparison control(double ratio) { return compare({ratio, ratio}, {1, 1}); }

TEST(Report, GoalsOfAVoidGroupHaveNoOtherVerdict) {
  Report report("benchmark", "question");
  report.control("first", control(1.2));
  for (const std::string group : {"first", "last", "sound", ""}) {
    report.goal({group + " goal", Goal::Bound::at_most, 2, "", group}, 1, {1, 1});
  }
  report.control("last", control(0.9));
  report.control("sound", control(1.01));
  EXPECT_THAT(verdicts_of(report), ElementsAre("void", "void", "met", "met"));
}

TEST(Report, AGoalIsMetOrMissedByItsWholeInterval) {
  Report report("benchmark", "question");
  for (const Interval interval : {Interval{1, 2}, Interval{1, 3}, Interval{2.5, 3}}) {
    report.goal({"at most", Goal::Bound::at_most, 2, ""}, interval.low, interval);
    report.goal({"at least", Goal::Bound::at_least, 2, ""}, interval.high, interval);
  }
  EXPECT_THAT(verdicts_of(report),
              ElementsAre("met", "undecided", "undecided", "undecided", "missed", "met"));
}

}  // namespace
}  // namespace cowshed::bench
