#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

using internal::counted_transfers;
using internal::CountedTransfer;
using internal::TransferCounter;
using internal::TransferRow;

// What was counted under a name, as "kind type: messages objects bytes; ".
std::string counted(const std::string& name) {
  std::string text;
  for (const CountedTransfer& each : counted_transfers()) {
    if (name == each.what.name) {
      text += std::to_string(each.what.kind) + " " + each.what.type + ": " +
              std::to_string(each.count.messages) + " " + std::to_string(each.count.objects) + " " +
              std::to_string(each.count.bytes) + "; ";
    }
  }
  return text;
}

TEST(TransferCounter, CountsByTypeAndKind) {
  const TransferCounter counter("channel", "kinds");
  EXPECT_EQ(counted("kinds"), "");
  const TransferRow jobs = counter.row("Job", TransferKind::value);
  EXPECT_EQ(counted("kinds"), "") << "nothing was sent";
  jobs.add(1, 64);
  jobs.add(3, 192);
  counter.add("Job", TransferKind::reference, 1, 1 << 20);
  counter.add("Job", TransferKind::value, 1, 64);
  counter.add("Result", TransferKind::moved, 1, std::uint64_t{5} << 30);
  EXPECT_EQ(counted("kinds"), "1 Job: 3 5 320; 2 Job: 1 1 1048576; 3 Result: 1 1 5368709120; ");
}

TEST(TransferCounter, OneOfTheSameNameCountsOn) {
  TransferCounter("channel", "again").add("int", TransferKind::value, 1, 4);
  TransferCounter("channel", "again").add("int", TransferKind::value, 1, 4);
  TransferCounter("launch", "again").add("int", TransferKind::value, 1, 4);
  EXPECT_EQ(counted("again"), "1 int: 2 2 8; 1 int: 1 1 4; ");
}

TEST(TransferCounter, ThreadsThatEndedAreCounted) {
  constexpr int kRounds = 5;  // more threads in all than there are lanes
  constexpr int kThreads = 20;
  const TransferRow row = TransferCounter("channel", "threads").row("int", TransferKind::value);
  for (int round = 0; round < kRounds; ++round) {
    (void)begin_threads(kThreads, [&](int) {
      for (int k = 0; k < 1000; ++k) row.add(2, 8);
    });
  }
  EXPECT_EQ(counted("threads"), "1 int: 100000 200000 800000; ");
}

TEST(TransferCounter, ThreadsBeyondTheLanesShareOne) {
  constexpr int kHolders = 64;
  constexpr int kOthers = 2;
  constexpr int kEach = 3'000'000;
  const TransferRow row = TransferCounter("channel", "crowd").row("int", TransferKind::value);
  std::atomic<int> without_a_lane = kHolders;
  std::atomic<bool> over = false;
  auto holders = begin_threads(kHolders, [&](int) {
    row.add(1, 4);
    --without_a_lane;
    without_a_lane.notify_one();
    over.wait(false);
  });
  for (int left = without_a_lane; left > 0; left = without_a_lane) without_a_lane.wait(left);
  (void)begin_threads(kOthers, [&](int) {
    for (int k = 0; k < kEach; ++k) row.add(1, 4);
  });
  over = true;
  over.notify_all();
  holders.clear();
  EXPECT_EQ(counted("crowd"), "1 int: 6000064 6000064 24000256; ");
}

TEST(TransferCounter, AThreadThatCountsWhileItEnds) {
  struct AtEnd {
    const TransferRow* row = nullptr;
    ~AtEnd() { row->add(1, 4); }
  };
  const TransferRow row = TransferCounter("channel", "end").row("int", TransferKind::value);
  std::thread([&] {
    thread_local AtEnd at_end;  // made before the thread's lane: destroyed after it
    at_end.row = &row;
    row.add(1, 4);
  }).join();
  EXPECT_EQ(counted("end"), "1 int: 2 2 8; ");
}

TEST(TransferCounter, AForkedChildCountsItsOwn) {
  const TransferCounter counter("channel", "fork");
  const TransferRow row = counter.row("int", TransferKind::value);
  row.add(1, 4);
  std::thread([&] { row.add(1, 4); }).join();
  const auto child = run_in_child([&] {
    const std::string before = counted("fork");
    row.add(10, 40);
    counter.add("long", TransferKind::value, 1, 8);
    return before + "| " + counted("fork");
  });
  EXPECT_EQ(child.said, "| 1 int: 1 10 40; 1 long: 1 1 8; ");
  row.add(1, 4);
  EXPECT_EQ(counted("fork"), "1 int: 3 3 12; ");
}

TEST(TransferCounter, ThreadsOfAForkedChildCountBesideTheOneThatForked) {
  const TransferRow row = TransferCounter("channel", "beside").row("int", TransferKind::value);
  row.add(1, 4);
  const auto child = run_in_child([&] {
    std::thread other([&] {
      for (int i = 0; i < 5000000; ++i) row.add(1, 4);
    });
    for (int i = 0; i < 5000000; ++i) row.add(1, 4);
    other.join();
    return counted("beside");
  });
  EXPECT_EQ(child.said, "1 int: 10000000 10000000 40000000; ");
}

TEST(TransferCounter, AForkAmidThreadsThatCount) {
  const TransferCounter counter("channel", "amid");
  const TransferRow row = counter.row("int", TransferKind::value);
  test::fork_while(
      50,
      [&](int i) {
        static thread_local int count = 0;
        row.add(1, 4);
        counter.add("int" + std::to_string(i) + std::to_string(++count % 30), TransferKind::value,
                    1, 4);
      },
      [&] {
        counter.add("mine", TransferKind::value, 1, 4);
        const std::string said = counted("amid");
        return said == "1 mine: 1 1 4; " ? "fine" : said;
      });
}

TEST(TransferCounter, LongNamesAreCutOff) {
  TransferCounter("channel", std::string(1000, 'n'))
      .add(std::string(1000, 't'), TransferKind::value, 1, 1);
  const auto all = counted_transfers();
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [](const CountedTransfer& each) {
    return std::ranges::count(each.what.name, 'n') == 64 &&
           std::ranges::count(each.what.type, 't') == 168;
  }));
}

// Last: what comes after it in this process has no row left.
TEST(TransferCounterAtTheEnd, WhatFindsNoRowIsCountedTogether) {
  const auto child = run_in_child([] {
    const TransferCounter counter("channel", "many");
    std::uint64_t named = 0;
    for (int i = 0; i < 2000; ++i)
      counter.add("type" + std::to_string(i), TransferKind::value, 1, 1);
    std::uint64_t others = 0;
    for (const CountedTransfer& each : counted_transfers()) {
      const std::string name = each.what.name;
      named += name == "many" ? each.count.messages : 0;
      others += name == "(others)" ? each.count.messages : 0;
    }
    return std::to_string(named + others) + (named > 900 && others > 900 ? " both" : "");
  });
  EXPECT_EQ(child.said, "2000 both");
}

// The first to count holds the registry for a moment, which a fork waits for.
TEST(TransferCounter, ForkWhileAnotherThreadBeginsToCount) {
  std::atomic<bool> begins = false;
  std::thread first([&] {  // as the first count of a process does
    const std::lock_guard registry(process_tree::mutex());
    begins = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  });
  while (!begins) std::this_thread::yield();
  const auto child = run_in_child([&] {
    alarm(60);
    TransferCounter("channel", "forked").add("int", TransferKind::value, 1, 4);
    return counted("forked");
  });
  first.join();
  EXPECT_EQ(child.said, "1 int: 1 1 4; ") << "signal " << child.signal;
}

}  // namespace
}  // namespace cowshed
