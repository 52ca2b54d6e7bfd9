#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>

#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

class CowtopObjects : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    // The leak checker of a sanitized subject is a process of its own.
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  }

  // What cowtop says of a run of object_subject.
  std::string report(const std::string& linger_ms, bool json, const std::string& image = {}) {
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
};

std::map<std::string, int> pages_by_object(const Json& process) {
  std::map<std::string, int> result;
  for (const Json& object : process.at("objects")) {
    EXPECT_THAT(object.at("type"), HasSubstr("Block"));
    EXPECT_EQ(object.at("arena"), "subject");
    result[object.at("name")] = object.at("copied_pages");
  }
  return result;
}

TEST_P(CowtopObjects, AreNamedWithWhatEachProcessCopied) {
  const std::string text = report("500", true);
  if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
  const Json json = Json::parse(text);
  const Json& processes = json.at("processes");
  ASSERT_EQ(processes.size(), 2U);
  // What the worker inherited as the parent's copies is not a copy of its own.
  EXPECT_EQ(pages_by_object(processes[0]),
            (std::map<std::string, int>{{"first", 2}, {"second", 0}}));
  EXPECT_EQ(pages_by_object(processes[1]),
            (std::map<std::string, int>{{"first", 1}, {"second", 3}}));
  EXPECT_EQ(processes[1]["objects_sampled"], true);
  EXPECT_EQ(processes[1]["arenas"][0]["copied_pages"], 4);
}

TEST_P(CowtopObjects, HaveALineInTheTable) {
  const std::string text = report("300", false);
  if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
  EXPECT_THAT(text, HasSubstr("object 'second' ("));
  EXPECT_THAT(text, HasSubstr("Block) of arena 'subject': 3 pages copied by PID "));
  EXPECT_THAT(text, Not(HasSubstr("Block) of arena 'subject': 0 pages")));
}

TEST_P(CowtopObjects, OfAnArenaThatWasOpenedFromAnImage) {
  const std::string image = ::testing::TempDir() + "cowtop-" + std::to_string(::getpid()) + ".cow";
  const std::string text = report("500", true, image);
  const std::string table = text.empty() ? "" : report("500", false, image);
  std::filesystem::remove(image);
  if (text.empty()) GTEST_SKIP() << "no " << GetParam() << " backend here";
  const Json processes = Json::parse(text).at("processes");
  ASSERT_EQ(processes.size(), 2U);
  EXPECT_EQ(pages_by_object(processes[0]),
            (std::map<std::string, int>{{"first", 2}, {"second", 0}}));
  EXPECT_EQ(pages_by_object(processes[1]),
            (std::map<std::string, int>{{"first", 1}, {"second", 3}}));
  const int expected[] = {2, 4};
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(processes[i]["arenas"].size(), 1U) << processes[i];
    EXPECT_EQ(processes[i]["arenas"][0]["name"], "subject");
    EXPECT_EQ(processes[i]["arenas"][0]["bytes"], 2 << 20);
    EXPECT_EQ(processes[i]["arenas"][0]["copied_pages"], expected[i]);
  }
  EXPECT_THAT(table, HasSubstr("arena 'subject' of 2.0 MiB: 4 pages copied by PID "));
  EXPECT_THAT(table, HasSubstr("Block) of arena 'subject': 3 pages copied by PID "));
}

INSTANTIATE_TEST_SUITE_P(Backends, CowtopObjects, ::testing::Values("tracepoint", "pagemap"),
                         [](const auto& backend) { return backend.param; });

}  // namespace
}  // namespace cowshed::cowtop
