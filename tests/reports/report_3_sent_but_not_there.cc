// The report: queue.put(big) returns, then get(block=False) raises Empty although the item was put;
// workers exit early, or never.

#include <atomic>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>
#include <string>
#include <vector>

#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

#include "old_way.h"

namespace cowshed {
namespace {

constexpr std::size_t kMessage = std::size_t{1} << 20U;
constexpr int kMessages = 100;

TEST(SentButNotThere, TheOldWay) {
  const auto old = test::run_python(R"(
import json, multiprocessing, queue
items = multiprocessing.Queue()
empty = 0
for i in range(100):
    items.put(bytes(1 << 20))
    try:
        items.get(block=False)
    except queue.Empty:
        empty += 1
        items.get()
print(json.dumps({"empty": empty}))
)",
                                    std::chrono::seconds(60));
  ASSERT_EQ(old.exit_status, 0) << old.err;
  const int empty = old.json()["empty"];
  test::tell("multiprocessing.Queue: after " + std::to_string(empty) +
             " of 100 put(), get(block=False) raised Empty");
  EXPECT_GT(empty, 0) << "the old failure is gone";
}

TEST(SentButNotThere, TheOldWayToSayThatNothingFollows) {
  const auto old = test::run_python(R"(
import json, multiprocessing
def work(items, done):
    while items.get() is not None:
        pass
    done.put(None)
items, done = multiprocessing.Queue(), multiprocessing.SimpleQueue()
workers = [multiprocessing.Process(target=work, args=(items, done), daemon=True) for _ in range(4)]
for worker in workers:
    worker.start()
items.put(None)  # one sentinel for four workers
done.get()
for worker in workers:
    worker.join(0.5)
print(json.dumps({"waiting": sum(worker.is_alive() for worker in workers)}))
)",
                                    std::chrono::seconds(60));
  ASSERT_EQ(old.exit_status, 0) << old.err;
  const int waiting = old.json()["waiting"];
  test::tell("multiprocessing.Queue: one sentinel ended one of 4 workers, " +
             std::to_string(waiting) + " wait for ever");
  EXPECT_GE(waiting, 2) << "the old failure is gone";
}

TEST(SentButNotThere, WithCowshedItIsThere) {
  auto items = Channel<Bytes>::create({.name = "items", .memory = 64 * kMessage}).value();
  const std::vector<std::byte> message(kMessage);
  int there = 0;
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(items.send(message));
    const auto received = items.try_receive();
    there += received && received->size() == kMessage ? 1 : 0;
  }
  test::tell("cowshed::Channel: after " + std::to_string(there) + " of " +
             std::to_string(kMessages) + " send(), try_receive() had it");
  EXPECT_EQ(there, kMessages);
}

TEST(SentButNotThere, WithCowshedOneCloseEndsAllWorkers) {
  auto items = Channel<int>::create({.name = "items"}).value();
  auto done = Channel<int>::create({.name = "done"}).value();
  const auto work = [&] {
    int count = 0;
    while (items.receive()) {
      ++count;
    }
    return done.send(count) ? 0 : 1;
  };
  auto workers = start({.count = 4}, work).value();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(items.send(i));
  }
  items.close();
  const auto exits = workers.wait().value();
  int ended = 0;
  int received = 0;
  for (const WorkerExit& exit : exits) {
    ended += exit.ok() ? 1 : 0;
    received += done.try_receive().value_or(0);
  }
  test::tell("cowshed::Channel: one close() ended " + std::to_string(ended) + " of 4 workers, " +
             std::to_string(received) + " of 1000 messages were received");
  EXPECT_EQ(ended, 4);
  EXPECT_EQ(received, 1000);
}

}  // namespace
}  // namespace cowshed
