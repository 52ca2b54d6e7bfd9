// The report: after fork the memory of each child grows although it "only reads".

#include <cowshed/share/immortal_ptr.h>
#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

struct Word {
  explicit Word(std::pmr::string content) : text(std::move(content)) {}
  std::pmr::string text;
};
using Words = std::pmr::vector<ImmortalPtr<const Word>>;

TEST(ReadingCopies, WithCowshedNothingIsCopied) {
  Arena arena = make_arena("words", 1_GiB);
  auto* words = arena.make<Words>().value();
  std::vector<void*> late;
  for (int i = 0; i < 300'000; ++i) {
    auto* word = arena.make<Word>(std::pmr::string(std::string(30, 'w'), arena.resource())).value();
    words->emplace_back(word);
    if (i % 10 == 0) late.push_back(arena.resource()->allocate(64));
  }
  const auto ref = publish("words", words).value();
  ASSERT_TRUE(arena.freeze());
  const auto work = [&](const Words& shared) {
    std::size_t length = 0;
    std::vector<std::shared_ptr<const Word>> counted;
    for (const auto& word : shared) {
      length += word->text.size();
      counted.emplace_back(word);  // a reference taken
    }
    counted.clear();  // and dropped
    for (void* block : late) arena.resource()->deallocate(block, 64);
    if (length != std::size_t{30} * 300'000 || arena.stats().dropped_frees != late.size()) return 1;
    return arena.private_bytes().value() == 0 ? 0 : 2;
  };
  auto workers = start({.count = 2, .name = "reader"}, work, ref).value();
  const auto exits = workers.wait().value();
  for (const WorkerExit& exit : exits) EXPECT_TRUE(exit.ok()) << exit.error;
}

}  // namespace
}  // namespace cowshed
