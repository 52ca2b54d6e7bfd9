#include <gtest/gtest.h>
#include <unistd.h>

#include <cowshed/share/workers.h>
#include <cowshed/tools/search/links.h>

namespace cowshed::search {
namespace {

// Far more than a socket holds, from all at once.
TEST(Links, BigAnswersDoNotBlockEachOther) {
  constexpr std::size_t kSize = 8U << 20U;
  auto links = Links::create(3).value();
  auto workers = start(
      {.count = 3},
      [](const Worker& self, Links& own) {
        own.keep_only(static_cast<std::size_t>(self.rank));
        own.wait_for_signal();
        for (std::uint64_t i = 0; i < 3; ++i) {
          const std::string answer(kSize, static_cast<char>('a' + self.rank));
          if (!own.send_answer(i, answer)) {
            return 1;
          }
        }
        WorkerSummary summary;
        summary.frees = static_cast<std::uint64_t>(self.rank);
        const bool sent = own.send_summary(summary).has_value();
        own.wait_for_signal();
        return sent ? 0 : 2;
      },
      links);
  ASSERT_TRUE(workers.has_value());
  links.begin();
  const auto messages = links.collect().value();
  links.dismiss();
  ASSERT_EQ(messages.size(), 3U);
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(messages[rank].complete);
    EXPECT_EQ(messages[rank].summary.frees, rank);
    ASSERT_EQ(messages[rank].answers.size(), 3U);
    EXPECT_EQ(messages[rank].answers[2].first, 2U);
    EXPECT_EQ(messages[rank].answers[2].second,
              std::string(kSize, static_cast<char>('a' + static_cast<int>(rank))));
  }
  const auto exits = workers->wait().value();
  for (const auto& exit : exits) {
    EXPECT_TRUE(exit.ok()) << exit.error;
  }
}

TEST(Links, AWorkerThatDiesIsNotWaitedFor) {
  auto links = Links::create(2).value();
  auto workers = start(
      {.count = 2},
      [](const Worker& self, Links& own) {
        own.keep_only(static_cast<std::size_t>(self.rank));
        own.wait_for_signal();
        if (self.rank == 1) {
          (void)own.send_answer(0, "half");
          _exit(3);
        }
        (void)own.send_summary({});
        own.wait_for_signal();
        return 0;
      },
      links);
  ASSERT_TRUE(workers.has_value());
  links.begin();
  const auto messages = links.collect().value();
  links.dismiss();
  EXPECT_TRUE(messages[0].complete);
  EXPECT_FALSE(messages[1].complete);
  EXPECT_EQ(messages[1].answers.size(), 1U);
  EXPECT_EQ(workers->wait().value()[1].exit_code, 3);
}

}  // namespace
}  // namespace cowshed::search
