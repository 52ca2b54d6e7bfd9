// The report: process.join() hangs for ever.

#include <chrono>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>

#include <cowshed/share/channel.h>
#include <cowshed/share/workers.h>

#include "old_way.h"

namespace cowshed {
namespace {

constexpr std::size_t kMessage = std::size_t{1} << 20U;
constexpr std::uint64_t kMessages = 64;

TEST(JoinHangs, TheOldWay) {
  const auto old = test::run_python(R"(
import multiprocessing
def work(results):
    for _ in range(64):
        results.put(bytes(1 << 20))
    print("sent", flush=True)
results = multiprocessing.Queue()
worker = multiprocessing.Process(target=work, args=(results,))
worker.start()
worker.join()
print("joined")
)",
                                    std::chrono::seconds(5));
  test::tell(std::string("multiprocessing: join() of a child that sent 64 MiB which nobody read ") +
             (old.hung ? "hung for 5 s, killed" : "returned"));
  EXPECT_TRUE(old.hung) << "the old failure is gone: " << old.out << old.err;
  EXPECT_EQ(old.out, "sent\n");
}

TEST(JoinHangs, WithAPipeTheChildCannotEndEither) {
  const auto old = test::run_python(R"(
import os
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, bytes(64 << 20))
    os._exit(0)
os.waitpid(child, 0)
print("waited")
)",
                                    std::chrono::seconds(3));
  test::tell(std::string("pipe: waitpid() of the same ") +
             (old.hung ? "hung for 3 s, killed" : "returned"));
  EXPECT_TRUE(old.hung) << "the old failure is gone: " << old.out << old.err;
}

TEST(JoinHangs, WithCowshedTheChildIsGoneAndItsResultsAreThere) {
  auto results =
      Channel<Bytes>::create({.name = "results", .memory = 2 * kMessages * kMessage}).value();
  const auto work = [&] {
    for (std::uint64_t i = 0; i < kMessages; ++i) {
      auto message = results.buffer(kMessage).value();
      std::memcpy(message.data(), &i, sizeof i);
      std::memset(message.data() + sizeof i, static_cast<int>(i), kMessage - sizeof i);
      if (!results.send(std::move(message))) {
        return 1;
      }
    }
    return 0;
  };
  auto worker = start({.name = "sender"}, work).value();
  const auto exits = worker.wait();
  ASSERT_TRUE(exits);
  ASSERT_TRUE(exits->at(0).ok()) << exits->at(0).error;
  std::uint64_t intact = 0;
  for (std::uint64_t i = 0; i < kMessages; ++i) {
    const auto message = results.try_receive();
    ASSERT_TRUE(message) << message.error().message;
    std::uint64_t number = 0;
    std::memcpy(&number, message->data(), sizeof number);
    intact += number == i && message->size() == kMessage &&
                      message->data()[kMessage - 1] == static_cast<std::byte>(i)
                  ? 1
                  : 0;
  }
  test::tell("cowshed: the child had ended when wait() returned, " + std::to_string(intact) +
             " of 64 MiB were received from memory after that");
  EXPECT_EQ(intact, kMessages);
}

}  // namespace
}  // namespace cowshed
