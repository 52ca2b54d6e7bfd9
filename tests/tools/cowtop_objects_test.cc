#include <array>
#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

// Objects are sampled: on a busy machine cowtop may come too late, and then has another try.
constexpr std::array kLingerMs = {"300", "1500", "6000"};

// Of each process; nothing for one whose objects were not seen.
std::vector<std::map<std::string, int>> pages_by_object(const Json& processes) {
  std::vector<std::map<std::string, int>> result;
  for (const Json& process : processes) {
    auto& pages = result.emplace_back();
    for (const Json& object : process.value("objects", Json::array())) {
      EXPECT_THAT(object.at("type"), HasSubstr("Block"));
      EXPECT_EQ(object.at("arena"), "subject");
      pages[object.at("name")] = object.at("copied_pages");
    }
  }
  return result;
}

class CowtopObjects : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  }

  // What cowtop says of a run of object_subject; nothing without the backend.
  static std::string report(const char* linger_ms, bool json, const std::string& image) {
    std::vector<std::string> arguments = {COWTOP, "--backend", GetParam()};
    if (json) arguments.emplace_back("--json");
    arguments.insert(arguments.end(), {"--", OBJECT_SUBJECT, linger_ms});
    if (!image.empty()) arguments.push_back(image);
    const auto finished = test::run(arguments);
    if (finished.exit_status() == 125) return {};
    EXPECT_EQ(finished.exit_status(), 0) << finished.err;
    // After the line that the subject prints.
    return finished.out.substr(finished.out.find('\n') + 1);
  }

  // Both processes of object_subject.
  static Json measure(const std::string& image = {}) {
    Json processes;
    for (const char* linger_ms : kLingerMs) {
      const std::string text = report(linger_ms, true, image);
      if (text.empty()) return nullptr;
      processes = Json::parse(text).at("processes");
      const auto seen = pages_by_object(processes);
      if (seen.size() == 2 && !seen[0].empty() && !seen[1].empty()) break;
    }
    return processes;
  }
};

// What the worker inherited as the parent's copies is not a copy of its own.
const std::vector<std::map<std::string, int>> copied_pages = {{{"first", 2}, {"second", 0}},
                                                              {{"first", 1}, {"second", 3}}};

TEST_P(CowtopObjects, AreNamedWithWhatEachProcessCopied) {
  const Json processes = measure();
  if (processes.is_null()) GTEST_SKIP() << "no " << GetParam() << " backend here";
  EXPECT_EQ(pages_by_object(processes), copied_pages);
  EXPECT_EQ(processes[1]["objects_sampled"], true);
  EXPECT_EQ(processes[1]["arenas"][0]["copied_pages"], 4);
}

TEST_P(CowtopObjects, HaveALineInTheTable) {
  std::string text;
  for (const char* linger_ms : kLingerMs) {
    text = report(linger_ms, false, {});
    if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
    if (text.find("object 'second'") != std::string::npos) break;
  }
  EXPECT_THAT(text, HasSubstr("object 'second' ("));
  EXPECT_THAT(text, HasSubstr("Block) of arena 'subject': 3 pages copied by PID "));
  EXPECT_THAT(text, Not(HasSubstr("Block) of arena 'subject': 0 pages")));
}

TEST_P(CowtopObjects, OfAnArenaThatWasOpenedFromAnImage) {
  const std::string image = ::testing::TempDir() + "cowtop-" + std::to_string(::getpid()) + ".cow";
  const Json processes = measure(image);
  std::filesystem::remove(image);
  if (processes.is_null()) GTEST_SKIP() << "no " << GetParam() << " backend here";
  EXPECT_EQ(pages_by_object(processes), copied_pages);
  for (const std::size_t i : {0U, 1U}) {
    ASSERT_EQ(processes[i]["arenas"].size(), 1U) << processes[i];
    EXPECT_EQ(processes[i]["arenas"][0]["name"], "subject");
    EXPECT_EQ(processes[i]["arenas"][0]["bytes"], 2 << 20);
    EXPECT_EQ(processes[i]["arenas"][0]["copied_pages"], i == 0 ? 2 : 4);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, CowtopObjects, ::testing::Values("tracepoint", "pagemap"),
                         [](const auto& backend) { return backend.param; });

}  // namespace
}  // namespace cowshed::cowtop
