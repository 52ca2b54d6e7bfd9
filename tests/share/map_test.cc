#include <csignal>
#include <gmock/gmock.h>
#include <numeric>
#include <ranges>
#include <string>
#include <thread>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/map.h>
#include <cowshed/share/registry.h>

#include "every_method.h"

namespace cowshed {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Map = test::EveryMethod;
using test::value_of;

COWSHED_EVERY_METHOD(Map);

// Later items are done sooner.
std::string slow_name(int number) {
  std::this_thread::sleep_for(std::chrono::microseconds(number % 4 == 0 ? 2000 : 0));
  return std::to_string(number);
}

TEST_P(Map, ResultsComeInTheOrderOfTheRange) {
  const auto names =
      value_of(map<slow_name>({.workers = with({.count = 3})}, std::views::iota(0, 200)));
  ASSERT_EQ(names.size(), 200U);
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(names[static_cast<std::size_t>(i)], std::to_string(i));
  }
  EXPECT_TRUE(
      value_of(map<slow_name>({.workers = with({.count = 2})}, std::vector<int>())).empty());
}

struct Index {
  int factor = 7;
};

int multiply(const Worker& self, int number, const Index& index, int more) {
  return number * index.factor + more + 0 * self.rank;
}

TEST_P(Map, FurtherArgumentsGoToTheFunction) {
  Arena arena = value_of(Arena::create({.name = "index", .capacity = 64_MiB}));
  const auto ref = value_of(publish("index", value_of(arena.make<Index>())));
  ASSERT_TRUE(arena.freeze());
  const std::vector<int> numbers = {1, 2, 3};
  EXPECT_EQ(value_of(map<multiply>({.workers = one()}, numbers, ref, 5)),
            (std::vector<int>{12, 19, 26}));
}

// Counts how far the range was read beyond what was consumed.
TEST_P(Map, TheRangeIsReadOnlyAsFarAsThereIsRoom) {
  int read = 0;
  int consumed = 0;
  int most = 0;
  const auto numbers = std::views::iota(0, 500) | std::views::transform([&](int number) {
                         most = std::max(most, ++read - consumed);
                         return number;
                       });
  const MapOptions options = {.workers = with({.count = 2}), .window = 5};
  ASSERT_TRUE(map_each<slow_name>(options, numbers, [&](const std::string& name) {
    EXPECT_EQ(name, std::to_string(consumed));
    ++consumed;
  }));
  EXPECT_EQ(consumed, 500);
  EXPECT_LE(most, 5);
  EXPECT_GT(most, 1);
}

std::vector<char> blow_up(const std::vector<char>& bytes) {
  std::vector<char> twice = bytes;
  twice.insert(twice.end(), bytes.begin(), bytes.end());
  return twice;
}

TEST_P(Map, LargeItemsAndValues) {
  std::vector<std::vector<char>> items;
  for (char c = 'a'; c < 'i'; ++c) {
    items.emplace_back(std::size_t{3} << 20U, c);
  }
  const auto values = value_of(map<blow_up>({.workers = with({.count = 2})}, items));
  ASSERT_EQ(values.size(), items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(values[i].size(), 2 * items[i].size());
    EXPECT_EQ(values[i].back(), items[i].back());
  }
}

int fail_at(int number, int at, bool by_signal) {
  if (number == at && by_signal) {
    (void)raise(SIGKILL);
  }
  if (number == at) {
    throw std::runtime_error("not this one");
  }
  return number;
}

TEST_P(Map, AFailureNamesTheItemOrTheWorker) {
  const MapOptions options = {.workers = with({.count = 2})};
  const auto thrown = map<fail_at>(options, std::views::iota(0, 100), 17, false);
  ASSERT_FALSE(thrown);
  EXPECT_EQ(thrown.error().code, ErrorCode::worker_failed);
  EXPECT_EQ(thrown.error().message, "item 17: not this one");
  const auto killed = map<fail_at>(options, std::views::iota(0, 100), 17, true);
  ASSERT_FALSE(killed);
  EXPECT_EQ(killed.error().code, ErrorCode::worker_failed);
  EXPECT_THAT(killed.error().message, HasSubstr("died of signal 9"));
}

}  // namespace
}  // namespace cowshed
