// The report: what exactly is pickled when I start a process, and how many objects and bytes?  Was
// my read-only object quietly modified?

#include <memory_resource>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/test.h>

namespace cowshed {
namespace {

using Words = std::pmr::vector<std::pmr::string>;

Words& make_words(Arena& arena) {
  auto* words = arena.make<Words>().value();
  for (int i = 0; i < 50'000; ++i) words->emplace_back(std::string(20, 'w') + std::to_string(i));
  return *words;
}

TEST(WhatIsSent, WithCowshedOneCallSaysIt) {
  auto arena = Arena::create({.name = "words", .capacity = 1_GiB}).value();
  const auto ref = publish("words", static_cast<const Words*>(&make_words(arena))).value();
  ASSERT_TRUE(arena.freeze());
  struct Query {
    int word;
    char text[60];
  };
  auto queries = Channel<Query>::create({.name = "queries"}).value();
  auto index = Channel<Ref<Words>>::create({.name = "index"}).value();
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
  const TransferReport report = transfer_report();
  bool said_queries = false;
  bool said_index = false;
  for (const TransferSource& source : report.sources) {
    const auto& value = source.by_value;
    if (source.name == "queries")
      said_queries = value.messages == 1000 && value.bytes == 1000 * sizeof(Query);
    if (source.name == "index") said_index = value.bytes == 0 && source.by_reference.objects == 1;
  }
  EXPECT_TRUE(said_queries);
  EXPECT_TRUE(said_index);
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
  const TransferReport report = transfer_report();
  const auto sent = [&](const std::string& origin, const std::string& name) -> TransferSource {
    for (const TransferSource& source : report.sources)
      if (source.origin == origin && source.name == name) return source;
    return {};
  };
  constexpr std::size_t kRules = 8 + 1000 * (8 + 6);  // a count, and each rule with its own
  EXPECT_EQ(sent("launch", "by fork").by_value.bytes, 0U);
  EXPECT_EQ(sent("launch", "by fork").inherited.objects, 4U);
  EXPECT_GE(sent("launch", "by spawn").by_value.bytes, 2 * kRules);
  EXPECT_LT(sent("launch", "by spawn").by_value.bytes, 2 * kRules + 100);
  EXPECT_EQ(sent("launch", "by spawn").inherited.objects, 0U);
  const auto spawned = sent("launch", "by spawn").types;
  ASSERT_FALSE(spawned.empty());
  EXPECT_EQ(spawned[0].type, "vector<string>");
  for (const char* name : {"by fork", "by spawn"}) {  // what came back, either way
    EXPECT_EQ(sent("result", name).by_value.objects, 2U);
    EXPECT_EQ(sent("result", name).by_value.bytes, 2 * kRules);
  }
}

TEST(WhatIsSent, WithCowshedAWriteToWhatIsSharedIsNamed) {
  auto arena = Arena::create({.name = "words", .capacity = 1_GiB}).value();
  const auto ref = publish("words", static_cast<const Words*>(&make_words(arena))).value();
  ASSERT_TRUE(arena.freeze());
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

int main(int argc, char** argv) {
  const cowshed::Runtime runtime(argc, argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
