// The report: what exactly is pickled when I start a process, and how many objects and bytes?  Was
// my read-only object quietly modified?

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory_resource>
#include <string>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/size_literals.h>
#include <cowshed/share/transfer_report.h>
#include <cowshed/share/workers.h>

#include "old_way.h"

namespace cowshed {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(WhatIsSent, TheOldWaySaysNothing) {
  const auto old = test::run_old_way({"/usr/bin/python3", EXAMPLE}, std::chrono::seconds(60));
  EXPECT_EQ(old.exit_status, 0) << old.err;
  EXPECT_EQ(old.out + old.err, "");
}

TEST(WhatIsSent, OfTheOldWayByPickled) {
  const auto counted =
      test::run_old_way({"/usr/bin/python3", PICKLED, "--json", "--start-method", "all", EXAMPLE},
                        std::chrono::seconds(100));
  ASSERT_EQ(counted.exit_status, 0) << counted.err;
  const json report = counted.json();
  for (const json& run : report["runs"]) {
    const std::string method = run["start_method"];
    std::uint64_t objects = 0;
    std::uint64_t bytes = 0;
    for (const json& channel : run["channels"]) {
      if (channel["transfer"] == "Process start") {
        objects += channel["objects"].get<std::uint64_t>();
        bytes += channel["bytes"].get<std::uint64_t>();
      }
    }
    test::tell("multiprocessing, " + method + ": a start sends " + std::to_string(objects) +
               " objects, " + std::to_string(bytes) + " bytes");
    if (method == "fork") {
      EXPECT_EQ(objects, 0U);
    } else {
      EXPECT_GT(objects, 600'000U) << "the whole of what fork inherits";
      EXPECT_GT(bytes, 9'000'000U);
    }
  }
}

TEST(WhatIsSent, TheOldWayModifiesWhatIsOnlyRead) {
  const auto old = test::run_python(R"(
import json, os
def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty")) << 10
words = [str(i) * 3 for i in range(300_000)]
reader, writer = os.pipe()
if os.fork() == 0:
    before = private_bytes()
    length = sum(len(word) for word in words)  # only reads
    os.write(writer, json.dumps({"written": private_bytes() - before}).encode())
    os._exit(0)
os.wait()
print(os.read(reader, 1000).decode())
)",
                                    std::chrono::seconds(60));
  ASSERT_EQ(old.exit_status, 0) << old.err;
  const std::uint64_t written = old.json()["written"];
  test::tell("Python: reading a list in a forked child wrote to " + std::to_string(written >> 20U) +
             " MiB of it, and nothing said so");
  EXPECT_GT(written, 10_MiB) << "the old failure is gone";
}

using Words = std::pmr::vector<std::pmr::string>;

Words& make_words(Arena& arena) {
  auto* words = arena.make<Words>().value();
  for (int i = 0; i < 50'000; ++i) {
    words->emplace_back(std::string(20, 'w') + std::to_string(i));
  }
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
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(queries.send({i, {}}));
  }
  queries.close();
  EXPECT_TRUE(worker.wait().value().at(0).ok());
  const TransferReport report = transfer_report();
  test::tell(to_table(report));
  const json sent = json::parse(to_json(report));
  bool said_queries = false;
  bool said_index = false;
  for (const json& source : sent["sources"]) {
    if (source["name"] == "queries") {
      said_queries = source["by_value"] ==
                     json{{"messages", 1000}, {"objects", 1000}, {"bytes", 1000 * sizeof(Query)}};
    }
    if (source["name"] == "index") {
      said_index = source["by_value"]["bytes"] == 0 && source["by_reference"]["objects"] == 1;
    }
  }
  EXPECT_TRUE(said_queries) << sent;
  EXPECT_TRUE(said_index) << sent;
}

TEST(WhatIsSent, WithCowshedAWriteToWhatIsSharedIsNamed) {
  auto arena = Arena::create({.name = "words", .capacity = 1_GiB}).value();
  const auto ref = publish("words", static_cast<const Words*>(&make_words(arena))).value();
  ASSERT_TRUE(arena.freeze());
  const auto read = [&](const Words& words) {
    std::size_t length = 0;
    for (const auto& word : words) {
      length += word.size();
    }
    return length > 0 && arena.private_bytes().value() == 0 ? 0 : 1;
  };
  auto reader = start({.name = "reader"}, read, ref).value();
  EXPECT_TRUE(reader.wait().value().at(0).ok()) << "read, and not one page is its own";
  const auto write = [](const Words& words) { const_cast<Words&>(words).clear(); };
  auto writer = start({.name = "writer"}, write, ref).value();
  const auto exits = writer.wait().value();
  test::tell("cowshed: " + exits.at(0).error);
  EXPECT_FALSE(exits.at(0).ok());
  EXPECT_THAT(exits.at(0).error, HasSubstr("wrote to frozen arena 'words'"));
}

}  // namespace
}  // namespace cowshed
