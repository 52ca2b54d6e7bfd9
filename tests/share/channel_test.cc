#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/share/channel.h>

namespace cowshed {
namespace {

struct Job {
  std::uint64_t number;
  char text[56];
};

TEST(Channel, ArrivesInAForkedChild) {
  auto jobs = Channel<Job>::create({.name = "jobs"});
  ASSERT_TRUE(jobs) << jobs.error().message;
  auto answers = Channel<std::uint64_t>::create({.name = "answers"});
  ASSERT_TRUE(answers);
  const pid_t child = fork();
  if (child == 0) {
    std::uint64_t sum = 0;
    while (auto job = jobs->receive()) {
      sum += job->number;
    }
    (void)answers->send(sum);
    _exit(0);
  }
  for (std::uint64_t i = 1; i <= 100000; ++i) {
    ASSERT_TRUE(jobs->send({i, "job"}));
  }
  jobs->close();
  EXPECT_EQ(answers->receive().value(), 100000ULL * 100001 / 2);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(jobs->stats().sent, 100000);
  EXPECT_EQ(jobs->stats().received, 100000);
  EXPECT_TRUE(jobs->stats().lost.empty());
}

TEST(Channel, BytesArrive) {
  auto channel = Channel<Bytes>::create();
  ASSERT_TRUE(channel) << channel.error().message;
  for (const std::size_t size : {0UL, 1UL, 192UL, 193UL, 5000UL, 1UL << 20U, 100UL << 20U}) {
    auto buffer = channel->buffer(size);
    ASSERT_TRUE(buffer) << buffer.error().message;
    memset(buffer->data(), 7, size);
    ASSERT_TRUE(channel->send(buffer->span()));
    ASSERT_TRUE(channel->send(std::move(*buffer)));
    for (int i = 0; i < 2; ++i) {
      const auto bytes = channel->try_receive();
      ASSERT_TRUE(bytes) << bytes.error().message;
      EXPECT_EQ(bytes->size(), size);
      EXPECT_EQ(std::count(bytes->data(), bytes->data() + size, std::byte{7}), size);
    }
  }
  EXPECT_EQ(channel->stats().outstanding, 0);
}

}  // namespace
}  // namespace cowshed
