// The report: what exactly is pickled when I start a process, and how many objects and bytes?  Was
// my read-only object quietly modified?

#include <cowshed/tests/share/share.h>

namespace cowshed {
namespace {

using Words = std::pmr::vector<std::pmr::string>;

// In an arena that is frozen then.
Ref<Words> publish_words(Arena& arena) {
  auto* words = arena.make<Words>().value();
  for (int i = 0; i < 50'000; ++i) words->emplace_back(std::string(20, 'w') + std::to_string(i));
  const auto ref = publish("words", words).value();
  EXPECT_TRUE(arena.freeze());
  return ref;
}

TEST(WhatIsSent, WithCowshedOneCallSaysIt) {
  Arena arena = make_arena("words", 1_GiB);
  const auto ref = publish_words(arena);
  struct Query {
    int word;
    char text[60];
  };
  auto queries = make<Query>({.name = "queries"});
  auto index = make<Ref<Words>>({.name = "index"});
  auto worker = start({.name = "search"}, [&] {
                  const auto words = index.receive().value();
                  int wrong = 0;
                  while (const auto query = queries.receive()) {
                    const auto number = static_cast<std::size_t>(query->word);
                    wrong += (*words)[number].ends_with(std::to_string(number)) ? 0 : 1;
                  }
                  return wrong;
                }).value();
  ASSERT_TRUE(index.send(ref));
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queries.send({i, {}}));
  queries.close();
  EXPECT_TRUE(worker.wait().value().at(0).ok());
  EXPECT_EQ(sent_by("queries").by_value.messages, 1000U);
  EXPECT_EQ(sent_by("queries").by_value.bytes, 1000 * sizeof(Query));
  EXPECT_EQ(sent_by("index").by_value.bytes, 0U);
  EXPECT_EQ(sent_by("index").by_reference.objects, 1U);
}

std::vector<std::string> search(const std::vector<std::string>& rules, const int& least) {
  std::vector<std::string> found;
  for (const std::string& rule : rules)
    if (rule.size() > static_cast<std::size_t>(least)) found.push_back(rule);
  return found;
}

// "What exactly is sent when I start a worker by spawn rather than fork?"
TEST(WhatIsSent, WithCowshedTheSameStartByForkAndBySpawn) {
  const std::vector<std::string> rules(1000, "a rule");
  for (const auto& [method, name] :
       {std::pair(Start::fork, "by fork"), {Start::spawn, "by spawn"}}) {
    auto workers = start<search>({.method = method, .count = 2, .name = name}, rules, 3).value();
    const auto results = workers.wait().value();
    for (const auto& result : results) EXPECT_EQ(result.value, rules) << result.error;
  }
  constexpr std::size_t kRules = 8 + 1000 * (8 + 6);  // a count, and each rule with its own
  const TransferSource forked = sent_by("by fork", "launch");
  EXPECT_EQ(forked.by_value.bytes, 0U);
  EXPECT_EQ(forked.inherited.objects, 4U);
  const TransferSource spawned = sent_by("by spawn", "launch");
  EXPECT_GE(spawned.by_value.bytes, 2 * kRules);
  EXPECT_LT(spawned.by_value.bytes, 2 * kRules + 100);
  EXPECT_EQ(spawned.inherited.objects, 0U);
  EXPECT_EQ(spawned.types.at(0).type, "vector<string>");
  for (const char* name : {"by fork", "by spawn"}) {  // what came back, either way
    EXPECT_EQ(sent_by(name, "result").by_value.objects, 2U);
    EXPECT_EQ(sent_by(name, "result").by_value.bytes, 2 * kRules);
  }
}

TEST(WhatIsSent, WithCowshedAWriteToWhatIsSharedIsNamed) {
  Arena arena = make_arena("words", 1_GiB);
  const auto ref = publish_words(arena);
  const auto read = [&](const Words& words) {
    std::size_t length = 0;
    for (const auto& word : words) length += word.size();
    return length > 0 && arena.private_bytes().value() == 0 ? 0 : 1;
  };
  auto reader = start({.name = "reader"}, read, ref).value();
  EXPECT_TRUE(reader.wait().value().at(0).ok()) << "read, and not one page is its own";
  const auto write = [](const Words& words) { const_cast<Words&>(words).clear(); };
  auto writer = start({.name = "writer"}, write, ref).value();
  const auto exits = writer.wait().value();
  EXPECT_FALSE(exits.at(0).ok());
  EXPECT_THAT(exits.at(0).error, HasSubstr("wrote to frozen arena 'words'"));
}

}  // namespace
}  // namespace cowshed
