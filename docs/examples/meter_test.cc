// A test of one's own that a worker's searches copy none of the index, and next to nothing else.
#include <gtest/gtest.h>
#include <memory_resource>
#include <string>
#include <vector>

#include <cowshed/cow/gtest_matchers.h>
#include <cowshed/cow/meter.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using cowshed::cow::AtMost;
using cowshed::cow::Meter;
using Words = std::pmr::vector<std::pmr::string>;

TEST(Index, ASearchCopiesNoneOfIt) {
  auto arena = cowshed::Arena::create({.name = "words", .capacity = 1_GiB}).value();
  Words* words = arena.make<Words>().value();
  for (int i = 0; i < 10'000; ++i) words->emplace_back("a word, number " + std::to_string(i));
  const cowshed::Ref<Words> ref = cowshed::publish("words", words).value();
  ASSERT_TRUE(arena.freeze(cowshed::FreezeMode::lenient));  // strict: a write would be a SIGSEGV

  auto questions = cowshed::Channel<std::size_t>::create({.name = "questions"}).value();
  auto answers = cowshed::Channel<std::size_t>::create({.name = "answers"}).value();
  const auto search = [&](const Words& all) {
    while (const auto question = questions.receive())
      if (!answers.send(all[*question].size())) return;
  };
  auto workers = cowshed::start({.count = 1}, search, ref).value();
  const auto ask = [&](std::size_t question) {
    return questions.send(question) ? answers.receive().value() : 0;
  };
  EXPECT_EQ(ask(7), 16U);  // what a worker copies to start is behind it now

  auto meter = Meter::begin(workers.processes()[0].pid()).value();
  for (std::size_t i = 0; i < 1000; ++i) EXPECT_GT(ask(i), 15U);
  ASSERT_TRUE(meter.end());  // while it still runs
  EXPECT_THAT(meter.copied(), AtMost(64_KiB));
  EXPECT_THAT(meter.copied()->within(arena.base(), arena.stats().used), AtMost(0));

  questions.close();
  ASSERT_TRUE(workers.wait().value().front().ok());
}
