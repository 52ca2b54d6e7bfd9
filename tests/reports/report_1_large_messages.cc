// The report: sending 2 GiB or more between processes dies with struct.error: 'i' format requires
// -2147483648 <= number <= 2147483647, or deadlocks because the error is raised in a helper thread.
// Python's header has grown since 3.8.  What is left of it: copies through a pipe of 64 KiB, and
// errors in the helper thread.

#include <chrono>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>

#include "old_way.h"

namespace cowshed {
namespace {

using namespace size_literals;
using testing::HasSubstr;

constexpr std::uint64_t kSize = 2_GiB + 1;  // one more than what the old header could say

// Of /proc/self/status or /proc/meminfo, in bytes.
std::uint64_t kib_of(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) {
      return std::stoull(line.substr(field.size() + 1)) * 1024;
    }
  }
  return 0;
}

class LargeMessages : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers' shadow of 2 GiB takes more memory than most machines have";
#endif
    if (const auto available = kib_of("/proc/meminfo", "MemAvailable"); available < 10_GiB) {
      GTEST_SKIP() << "needs 10 GiB of memory, " << (available >> 20U) << " MiB are available";
    }
  }
};

TEST_F(LargeMessages, TheOldHeader) {
  const auto old = test::run_python(R"(
import struct
struct.pack("!i", 2**31 + 1)  # what Connection.send() did before Python 3.8
)",
                                    std::chrono::seconds(30));
  EXPECT_EQ(old.exit_status, 1);
  EXPECT_THAT(old.err, HasSubstr("struct.error: 'i' format requires"));
}

TEST_F(LargeMessages, TheOldWayCopies) {
  const auto old = test::run_python(R"(
import json, multiprocessing, time
SIZE = 2**31 + 1
def numbers(path):
    with open(path) as file:
        parts = [line.split() for line in file]
    return {part[0].rstrip(":"): int(part[1]) for part in parts
            if len(part) > 1 and part[1].isdigit()}
def receive(end):
    before = numbers("/proc/self/io")
    value = end.recv()
    after = numbers("/proc/self/io")
    end.send({"length": len(value), "peak": numbers("/proc/self/status")["VmHWM"] << 10,
              "read": after["rchar"] - before["rchar"],
              "reads": after["syscr"] - before["syscr"]})
mine, theirs = multiprocessing.Pipe()
worker = multiprocessing.Process(target=receive, args=(theirs,))
worker.start()
start = time.monotonic()
mine.send(bytes(SIZE))
report = mine.recv()
report["seconds"] = time.monotonic() - start
report["sender_peak"] = numbers("/proc/self/status")["VmHWM"] << 10
worker.join()
print(json.dumps(report))
)",
                                    std::chrono::seconds(300));
  ASSERT_FALSE(old.hung);
  ASSERT_EQ(old.exit_status, 0) << old.err;
  const auto report = old.json();
  EXPECT_EQ(report["length"], kSize);
  const std::uint64_t peaks =
      report["peak"].get<std::uint64_t>() + report["sender_peak"].get<std::uint64_t>();
  test::tell("multiprocessing.Pipe: 2 GiB in " + std::to_string(report["seconds"].get<double>()) +
             " s, through " + std::to_string(report["reads"].get<std::uint64_t>()) +
             " reads, with " + std::to_string(peaks >> 20U) + " MiB in both processes");
  EXPECT_GE(report["read"], kSize) << "every byte through the pipe";
  EXPECT_GE(report["reads"], 100U) << "in small pieces";
  EXPECT_GE(peaks, 3 * kSize) << "a pickle, the pieces, and their object";
}

TEST_F(LargeMessages, TheOldWayFailsInAHelperThread) {
  const auto old = test::run_python(R"(
import multiprocessing
items = multiprocessing.Queue()
items.put(lambda: 0)  # cannot be sent
print("put() returned", flush=True)
items.get()
)",
                                    std::chrono::seconds(3));
  test::tell(std::string("multiprocessing.Queue: put() of what cannot be sent returned, get() ") +
             (old.hung ? "hung for 3 s, killed" : "returned"));
  EXPECT_EQ(old.out, "put() returned\n");
  EXPECT_TRUE(old.hung) << "the old failure is gone";
}

TEST_F(LargeMessages, WithCowshedAMovedBuffer) {
  auto channel = Channel<Bytes>::create({.name = "large", .memory = 3_GiB}).value();
  auto results = Channel<std::uint64_t>::create({.name = "results"}).value();
  const auto receive = [&] {
    const std::uint64_t before = kib_of("/proc/self/status", "RssAnon");
    const auto message = channel.receive().value();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < message.size(); i += 4096) {
      sum += static_cast<std::uint64_t>(message.data()[i]);
    }
    const std::uint64_t grown = kib_of("/proc/self/status", "RssAnon") - before;
    return results.send(message.size()) && results.send(sum) && results.send(grown) ? 0 : 1;
  };
  auto worker = start({.name = "receiver"}, receive).value();
  auto buffer = channel.buffer(kSize).value();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kSize; i += 4096) {
    buffer.data()[i] = static_cast<std::byte>(i >> 12U);
    sum += i >> 12U & 0xffU;
  }
  const auto started = std::chrono::steady_clock::now();
  ASSERT_TRUE(channel.send(std::move(buffer)));
  EXPECT_EQ(results.receive().value(), kSize);
  EXPECT_EQ(results.receive().value(), sum);
  const std::uint64_t grown = results.receive().value();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  ASSERT_TRUE(worker.wait().value().at(0).ok());
  test::tell("cowshed::Channel: 2 GiB moved and read in " + std::to_string(seconds.count()) +
             " s, the receiver's own memory grew by " + std::to_string(grown >> 10U) + " KiB");
  EXPECT_LT(grown, 16_MiB) << "mapped, not copied";
  for (const TransferSource& source : transfer_report().sources) {
    if (source.name == "large") {
      EXPECT_EQ(source.moved.bytes, kSize);
      EXPECT_EQ(source.by_value.bytes, 0U);
    }
  }
}

TEST_F(LargeMessages, WithCowshedAReference) {
  constexpr std::uint64_t kBytes = 512_MiB;  // of any size it is the same 16 bytes
  auto arena = Arena::create({.name = "large", .capacity = 1_GiB}).value();
  const std::span<char> text = arena.make_array<char>(kBytes).value();
  text.back() = 'x';
  auto ref = publish(std::span<const char>(text)).value();
  static_assert(sizeof ref == 16);
  ASSERT_TRUE(arena.freeze());
  auto channel = Channel<decltype(ref)>::create({.name = "reference"});
  const auto receive = [&] {
    const auto received = channel->receive().value();
    return received->size() == kBytes && received->back() == 'x' ? 0 : 1;
  };
  auto worker = start({.name = "receiver"}, receive).value();
  ASSERT_TRUE(channel->send(ref));
  EXPECT_TRUE(worker.wait().value().at(0).ok());
  test::tell("cowshed::Ref: 512 MiB by 16 bytes");
}

TEST_F(LargeMessages, WithCowshedTheSenderGetsTheError) {
  auto channel = Channel<Bytes>::create({.name = "small", .memory = 1_MiB}).value();
  const auto sent = channel.send(std::vector<std::byte>(2_MiB));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::message_too_large);
  test::tell("cowshed::Channel: " + sent.error().message);
}

}  // namespace
}  // namespace cowshed
