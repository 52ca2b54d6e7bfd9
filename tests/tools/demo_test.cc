#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/support/subprocess.h>

// The demo job under cowtop, by either backend: on the heap each worker copies a large part of the
// index, in the arena no page of it.
namespace cowshed::cowtop {
namespace {

using Json = nlohmann::json;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr const char* kRecords = "5000";
// The pagemap backend looks seldom, to take little of a CPU, and its looks are slower here.
constexpr const char* kLinger = "3000";
// A sanitizer's malloc sorts objects by size: fewer pages hold a count.
constexpr double kLargePart = 0.05;
#else
constexpr const char* kRecords = "30000";
constexpr const char* kLinger = "600";
constexpr double kLargePart = 0.5;
#endif

bool has_package_lists() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/var/lib/apt/lists", error)) {
    if (entry.path().filename().string().find("_Packages") != std::string::npos) return true;
  }
  return false;
}

class Demo : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!has_package_lists()) GTEST_SKIP() << "no package lists here: run apt-get update";
    if (::geteuid() != 0 && std::string(GetParam()) == "tracepoint") {
      GTEST_SKIP() << "needs root for the tracepoint backend";
    }
  }

  struct Run {
    Json service;
    std::vector<Json> workers;  // cowtop's rows
  };

  static Run measure(const char* storage) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("cowshed-demo-" + std::to_string(::getpid()) + ".json");
    const auto finished =
        test::run({COWTOP, "--backend", GetParam(), "--json", "-o", path.string(), "--",
                   PACKAGE_SEARCH, "--storage", storage, "--json", "--limit", kRecords, "--queries",
                   "1000", "--linger", kLinger});
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    Run result;
    result.service = Json::parse(finished.out);
    std::ifstream file(path);
    const Json report = Json::parse(file);
    std::filesystem::remove(path);
    EXPECT_EQ(report["backend"], GetParam());
    std::set<int> pids;
    for (const Json& worker : result.service["workers"]) pids.insert(worker["pid"].get<int>());
    for (const Json& process : report["processes"]) {
      if (pids.contains(process["pid"].get<int>())) result.workers.push_back(process);
    }
    EXPECT_EQ(result.workers.size(), 4U);
    return result;
  }
};

TEST_P(Demo, TheHeapIsCopiedAndTheArenaIsNot) {
  const Run heap = measure("heap");
  const Run arena = measure("arena");
  EXPECT_EQ(heap.service["same"], arena.service["same"]);
  for (const Json& worker : heap.workers) {
    EXPECT_GT(worker["copied_bytes"].get<double>(),
              kLargePart * heap.service["index_bytes"].get<double>());
  }
  for (const Json& worker : arena.workers) {
    ASSERT_EQ(worker["arenas"].size(), 1U) << worker;
    EXPECT_EQ(worker["arenas"][0]["name"], "package index");
    EXPECT_EQ(worker["arenas"][0]["copied_pages"], 0);
    EXPECT_GE(worker["arenas"][0]["bytes"], arena.service["index_bytes"]);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, Demo, ::testing::Values("tracepoint", "pagemap"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace cowshed::cowtop
