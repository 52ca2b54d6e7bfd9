#include <ranges>

#include <cowshed/share/map.h>

#include "every_method.h"

namespace cowshed {
namespace {

using testing::MatchesRegex;
using Map = test::EveryMethod;

COWSHED_EVERY_METHOD(Map);

// Later items are done sooner.
std::string slow_name(int number) {
  std::this_thread::sleep_for(std::chrono::microseconds(number % 4 == 0 ? 2000 : 0));
  return std::to_string(number);
}

TEST_P(Map, ResultsComeInTheOrderOfTheRange) {
  std::vector<std::string> expected;
  for (int i = 0; i < 200; ++i) expected.push_back(std::to_string(i));
  EXPECT_EQ(value_of(map<slow_name>({.workers = with({.count = 3})}, std::views::iota(0, 200))),
            expected);
  EXPECT_TRUE(
      value_of(map<slow_name>({.workers = with({.count = 2})}, std::vector<int>())).empty());
}

TEST_P(Map, ItemsAreCountedByType) {
  std::string name = "counted " + test::name_of_method({GetParam(), 0});
  name.append(56 - name.size(), '.');
  const std::vector<int> numbers(10, 1);
  ASSERT_TRUE(map<slow_name>({.workers = with({.name = name + "\u00fc and on"})}, numbers));
  const TransferSource tasks = sent_by(name + " tasks");
  EXPECT_EQ(tasks.by_value.messages, 10U);
  const auto sent = std::find_if(tasks.types.begin(), tasks.types.end(),
                                 [](const auto& type) { return type.sent.messages != 0; });
  ASSERT_NE(sent, tasks.types.end());
  EXPECT_EQ(sent->type, "int");
}

struct Index {
  int factor = 7;
};

int multiply(const Worker& self, int number, const Index& index, int more) {
  return number * index.factor + more + 0 * self.rank;
}

TEST_P(Map, FurtherArgumentsGoToTheFunction) {
  ArenaOf<Index> of;
  ASSERT_TRUE(of.arena.freeze());
  const std::vector<int> numbers = {1, 2, 3};
  EXPECT_EQ(value_of(map<multiply>({.workers = one()}, numbers, of.ref, 5)),
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

struct Large {
  std::uint64_t mebibytes;
};

}  // namespace

template <>
struct Codec<Large> {
  static void encode(Encoder& to, const Large& large) {
    const std::vector<char> piece(std::size_t{1} << 20U);
    if (large.mebibytes == 7) throw std::runtime_error("no sevens");
    for (std::uint64_t i = 0; i < large.mebibytes; ++i) to.put_bytes(piece.data(), piece.size());
  }
  static Large decode(Decoder&) { throw std::runtime_error("unreadable"); }
};

namespace {

Large make_large(std::uint64_t mebibytes) { return {mebibytes}; }
int take_large(const Large&) { return 0; }

TEST_P(Map, WhatDoesNotTravelIsNamed) {
  const auto value = map<make_large>({.workers = one()}, std::vector<std::uint64_t>{0});
  EXPECT_THAT(value, Fails(ErrorCode::worker_failed, "item 0: unreadable"));
  const auto item = map<take_large>({.workers = one()}, std::vector<Large>{{7}});
  EXPECT_THAT(item, Fails(ErrorCode::system_call, "item 0: no sevens"));
}

TEST_P(Map, WhatIsTooLargeIsNamed) {
  if (GetParam() != Start::fork) GTEST_SKIP() << "takes a GiB and is the same under each method";
  const auto value = map<make_large>({.workers = one()}, std::vector<std::uint64_t>{1024});
  EXPECT_THAT(value, Fails(ErrorCode::message_too_large, "item 0: its value has 107374"));
  const auto item = map<take_large>({.workers = one()}, std::vector<Large>{{1024}});
  EXPECT_THAT(item, Fails(ErrorCode::message_too_large, "item 0: it has 107374"));
}

int throw_at(int number, int at) {
  if (number == at) throw std::runtime_error("not this one");
  return number;
}

TEST_P(Map, AnExceptionNamesTheItemAndIsNoDeath) {
  const MapOptions options = {.workers = with({.count = 2, .restarts = 3})};
  const auto thrown = map<throw_at>(options, std::views::iota(0, 100), 17);
  EXPECT_THAT(thrown, Fails(ErrorCode::worker_failed, "item 17: not this one"));
}

// Dies at item 17 as often as there are tokens; 0: by exit.
int die_at_17(int number, int signal, Channel<int>& tokens) {
  if (number == 17 && tokens.try_receive()) {
    if (signal == 0) _exit(0);
    (void)raise(signal);
  }
  return number;
}

Channel<int> tokens(int count) {
  auto channel = make<int>({.name = "tokens"});
  for (int i = 0; i < count; ++i) EXPECT_TRUE(channel.try_send(i));
  return channel;
}

TEST_P(Map, TheItemOfAWorkerThatDiesIsGivenToAnother) {
  const auto numbers = std::views::iota(0, 100);
  const std::vector<int> expected(numbers.begin(), numbers.end());
  for (const int signal : {SIGKILL, 0}) {
    const MapOptions options = {.workers = with({.count = 2, .restarts = 2})};
    EXPECT_EQ(value_of(map<die_at_17>(options, numbers, signal, tokens(2))), expected);
  }
}

TEST_P(Map, AnItemThatEndsItsWorkerIsNamed) {
  const MapOptions options = {.workers = with({.count = 2})};
  const auto left = map<die_at_17>(options, std::views::iota(0, 100), 0, tokens(1));
  EXPECT_THAT(left, Fails(ErrorCode::worker_failed,
                          MatchesRegex("item 17: worker [01] \\(pid [0-9]+\\) ended without a "
                                       "value: its function did not return")));
}

TEST_P(Map, AnItemThatKillsEveryWorkerIsNamedWithTheLast) {
  for (const int restarts : {0, 2}) {
    const MapOptions options = {.workers = with({.count = 3, .restarts = restarts})};
    const auto killed = map<die_at_17>(options, std::views::iota(0, 100), SIGKILL, tokens(1000));
    const std::string times = restarts == 0 ? "" : ", given out 3 times";
    EXPECT_THAT(killed,
                Fails(ErrorCode::worker_failed, MatchesRegex("item 17" + times +
                                                             ": worker [0-2] \\(pid [0-9]+\\) "
                                                             "died of signal 9 \\(Killed\\)")));
  }
}

int die(int number, Channel<int>& tokens) {
  if (tokens.try_receive()) (void)raise(SIGKILL);
  return number;
}

// No item is lost twice here.
TEST_P(Map, AWorkerIsStartedAgainOnlySoOften) {
  const MapOptions options = {.workers = with({.restarts = 1}), .window = 4};
  const auto killed = map<die>(options, std::views::iota(0, 100), tokens(2));
  EXPECT_THAT(killed, Fails(ErrorCode::worker_failed, StartsWith("item 1: worker 0 (pid ")));
}

std::vector<char> blow_up_unless_killed(const std::vector<char>& bytes, Channel<int>& tokens) {
  if (tokens.try_receive()) (void)raise(SIGKILL);
  return blow_up(bytes);
}

TEST_P(Map, LargeItemsAreGivenToAnother) {
  std::vector<std::vector<char>> items;
  for (char c = 'a'; c < 'i'; ++c) items.emplace_back(std::size_t{3} << 20U, c);
  const MapOptions options = {.workers = with({.count = 2, .restarts = 3})};
  const auto values = value_of(map<blow_up_unless_killed>(options, items, tokens(3)));
  for (auto& item : items) item = blow_up(item);
  EXPECT_EQ(values, items);
}

// Each worker tells its PID when it is at work.
int work_until_killed(int number, Channel<pid_t>& at_work) {
  static const bool told = at_work.send(getpid()).has_value();
  std::this_thread::sleep_for(std::chrono::microseconds(number % 8 == 0 ? 100 : 0));
  return told ? 2 * number : -1;
}

TEST_P(Map, WorkersKilledAtRandomLoseNothingAndDoubleNothing) {
  constexpr int kKills = 40;
  auto at_work = value_of(Channel<pid_t>::create({.name = "at work"}));
  std::atomic<bool>& done = test::shared<std::atomic<bool>>();
  Child killer([&] {
    std::mt19937 random(4711);
    for (int kills = 0; kills < kKills; ++kills) {
      const auto pid = at_work.receive();
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      if (!pid || kill(*pid, SIGKILL) != 0) return 1;
    }
    done = true;
    return 0;
  });
  int consumed = 0;
  const auto numbers = std::views::iota(0) |
                       std::views::take_while([&](int number) { return number < 3000 || !done; });
  const MapOptions options = {.workers = with({.count = 3, .restarts = kKills})};
  const auto done_all = map_each<work_until_killed>(
      options, numbers, [&](int number) { EXPECT_EQ(number, 2 * consumed++); }, at_work);
  EXPECT_TRUE(done_all) << done_all.error().message;
  EXPECT_GE(consumed, 3000);
  EXPECT_EQ(killer.wait(), 0);
}

}  // namespace
}  // namespace cowshed
