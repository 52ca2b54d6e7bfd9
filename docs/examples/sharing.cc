// Workers that share an index, take questions from one channel and answer through another; then
// what was sent for it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <memory_resource>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>

using namespace cowshed::size_literals;
using Words = std::pmr::vector<std::pmr::string>;

struct Question {
  std::array<char, 56> prefix;
  int number;
};
struct Answer {
  int number;
  int count;
};

int main() {
  auto arena = cowshed::Arena::create({.name = "words", .capacity = 1_GiB}).value();
  Words* words = arena.make<Words>().value();
  for (int i = 0; i < 100'000; ++i) words->emplace_back("a word, number " + std::to_string(i));
  const cowshed::Ref<Words> ref = cowshed::publish("words", words).value();
  if (!arena.freeze()) return 1;

  auto questions = cowshed::Channel<Question>::create({.name = "questions"}).value();
  auto answers = cowshed::Channel<Answer>::create({.name = "answers"}).value();
  const auto search = [&](const Words& all) {            // the Ref arrives as what it refers to
    while (const auto question = questions.receive()) {  // until closed and empty
      const auto count = std::count_if(all.begin(), all.end(), [&](const std::pmr::string& word) {
        return word.starts_with(question->prefix.data());
      });
      if (!answers.send({question->number, static_cast<int>(count)})) return 1;
    }
    return 0;
  };
  auto workers = cowshed::start({.count = 4, .name = "search"}, search, ref).value();

  for (int i = 1; i <= 9; ++i) {
    Question question{{}, i};
    std::snprintf(question.prefix.data(), question.prefix.size(), "a word, number %d", i);
    if (!questions.send(question)) return 1;
  }
  questions.close();  // ends every worker, each after its last answer
  const auto exits = workers.wait().value();
  for (const auto& exit : exits)
    if (!exit.ok()) std::fprintf(stderr, "%s\n", exit.error.c_str());
  int total = 0;  // the workers are gone, what they sent is not
  while (const auto answer = answers.try_receive()) total += answer->count;
  std::printf("%d words\n%s", total, to_table(cowshed::transfer_report()).c_str());
}
