#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cowshed/tests/search/package_lists.h>
#include <cowshed/tools/search/corpus.h>

// The same program text on heap and arena: same answers, counts and frees; other costs.
namespace cowshed::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kSystemLists = "/var/lib/apt/lists";

json run_json(const std::string& storage, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--storage", storage, "--json"});
  const Finished finished = search(arguments);
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.err, "");
  return json::parse(finished.out);
}

// What comes before "This run:".
std::string run_text(const std::string& storage, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--storage", storage});
  const Finished finished = search(arguments);
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  const auto end = finished.out.find("\nThis run: ");
  EXPECT_NE(end, std::string::npos) << finished.out;
  return finished.out.substr(0, end);
}

// No page of the arena in any worker, by the worker's own account; every free dropped.
void expect_untouched_arena(const json& arena, int workers) {
  ASSERT_EQ(arena["workers"].size(), static_cast<std::size_t>(workers));
  std::uint64_t dropped = 0;
  for (const json& worker : arena["workers"]) {
    EXPECT_EQ(worker["arena_copied_bytes"], 0) << worker;
    dropped += worker["arena_dropped_frees"].get<std::uint64_t>();
  }
  EXPECT_EQ(dropped, arena["same"]["frees"].get<std::uint64_t>());
}

TEST(Storages, AgreeOnGeneratedLists) {
  const PackageLists lists;
  lists.generate(500);
  const std::vector<std::string> arguments = {"--lists", lists.folder(), "--queries",
                                              "300",     "--linger",     "0"};
  const std::string heap_text = run_text("heap", arguments);
  EXPECT_EQ(heap_text, run_text("arena", arguments));
  EXPECT_THAT(heap_text, HasSubstr("500 records of 2 lists"));
  EXPECT_THAT(heap_text, HasSubstr("300 queries, the first 12:"));

  const json heap = run_json("heap", arguments);
  const json arena = run_json("arena", arguments);
  EXPECT_EQ(heap["same"], arena["same"]);
  EXPECT_EQ(heap["same"]["dependencies"], 1000);
  EXPECT_GT(heap["same"]["references_copied"].get<int>(), 300);
  // All but one worker free each warm page.
  EXPECT_EQ(heap["same"]["frees"].get<int>(), 3 * heap["same"]["warm_pages"].get<int>());
  EXPECT_FALSE(heap["workers"][0].contains("arena_copied_bytes"));
  expect_untouched_arena(arena, 4);
}

TEST(Storages, AnswersDoNotDependOnTheNumberOfWorkers) {
  const PackageLists lists;
  lists.generate(300);
  const auto run_with = [&](const std::string& workers) {
    return run_json("arena", {"--lists", lists.folder(), "--queries", "200", "--workers", workers,
                              "--linger", "0"})["same"];
  };
  const json one = run_with("1");
  EXPECT_EQ(one["frees"], 0);
  for (const char* workers : {"2", "7"}) {
    const json more = run_with(workers);
    EXPECT_EQ(more["answers_digest"], one["answers_digest"]);
    EXPECT_EQ(more["sample"], one["sample"]);
  }
}

TEST(Storages, MoreWorkersThanQueries) {
  const PackageLists lists;
  lists.generate(20);
  const std::vector<std::string> arguments = {
      "--lists", lists.folder(), "--queries", "2", "--workers", "5", "--linger", "0"};
  EXPECT_EQ(run_json("heap", arguments)["same"], run_json("arena", arguments)["same"]);
}

TEST(Storages, AgreeOnThisMachinesListsAndOnlyTheHeapIsCopied) {
  if (const auto lists = search::find_lists(kSystemLists); !lists) {
    GTEST_SKIP() << lists.error().message;
  }
  std::vector<std::string> arguments = {"--queries", kSanitized ? "200" : "1000"};
  if (kSanitized) {
    arguments.insert(arguments.end(), {"--limit", "5000"});
  }
  const json heap = run_json("heap", arguments);
  const json arena = run_json("arena", arguments);
  EXPECT_EQ(heap["same"], arena["same"]);
  expect_untouched_arena(arena, 4);
  ASSERT_EQ(heap["workers"].size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto copied = heap["workers"][i]["private_growth_bytes"].get<std::uint64_t>();
    const auto beside_arena = arena["workers"][i]["private_growth_bytes"].get<std::uint64_t>();
    EXPECT_GT(copied, beside_arena);
    // Reference counts are in most pages of the index; a sanitizer's malloc keeps them together.
    if (!kSanitized) {
      EXPECT_GT(copied * 2, heap["index_bytes"].get<std::uint64_t>());
      EXPECT_GT(copied, 10 * beside_arena);
    }
  }
}

}  // namespace
}  // namespace cowshed::test
