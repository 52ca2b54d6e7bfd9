#include <algorithm>
#include <chrono>
#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include <cowshed/tests/search/package_lists.h>

namespace cowshed::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

void expect_error(const Finished& finished, int status, const std::string& message) {
  EXPECT_EQ(finished.exit_status(), status);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, StartsWith("package_search: "));
  EXPECT_THAT(finished.err, HasSubstr(message));
  EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
}

TEST(Usage, BadArgumentsAreOneLine) {
  expect_error(search({}), 2, "--storage");
  expect_error(search({"--storage", "disk"}), 2, "disk");
  expect_error(search({"--storage", "heap", "--workers", "0"}), 2, "--workers");
  expect_error(search({"--storage", "heap", "--queries", "many"}), 2, "--queries");
  expect_error(search({"--storage", "heap", "--limit", "-1"}), 2, "--limit");
  expect_error(search({"--storage", "heap", "left over"}), 2, "left over");
}

TEST(Usage, HelpTeaches) {
  const Finished help = search({"--help"});
  EXPECT_EQ(help.exit_status(), 0);
  EXPECT_THAT(help.out, HasSubstr("cowtop -- package_search --storage heap"));
  EXPECT_THAT(help.out, HasSubstr("Exit status:"));
  const Finished version = search({"--version"});
  EXPECT_EQ(version.exit_status(), 0);
  EXPECT_THAT(version.out, StartsWith("package_search 0."));
}

class BadLists : public testing::TestWithParam<const char*> {
 protected:
  Finished search_lists() const {
    return search({"--storage", GetParam(), "--lists", lists_.folder()});
  }
  PackageLists lists_;
};

TEST_P(BadLists, None) {
  expect_error(search_lists(), 1, "run `apt-get update`");
  expect_error(search({"--storage", GetParam(), "--lists", lists_.folder() / "missing"}), 1,
               "No such file or directory");
}

TEST_P(BadLists, Empty) {
  lists_.write("a_Packages", "");
  expect_error(search_lists(), 1, "empty; run `apt-get update`");
}

TEST_P(BadLists, Unreadable) {
  lists_.generate(5);
  std::filesystem::create_symlink("nowhere", lists_.folder() / "a_Packages");
  expect_error(search_lists(), 1, "a_Packages cannot be read");
}

TEST_P(BadLists, Garbage) {
  lists_.generate(5);
  lists_.write("z_Packages",
               "\x7f"
               "ELF garbage\n");
  expect_error(search_lists(), 1, "z_Packages:1: ");
}

TEST_P(BadLists, CompressedGarbage) {
  lists_.write("z_Packages.lz4", "no lz4 frame");
  expect_error(search_lists(), 1, "z_Packages.lz4");
}

TEST_P(BadLists, CutOff) {
  lists_.write("z_Packages", "Package: a\nVersion: 1\n\nPackage: b\nVers");
  expect_error(search_lists(), 1, "z_Packages:5: the list ends in the middle of a line");
}

INSTANTIATE_TEST_SUITE_P(Storages, BadLists, testing::Values("heap", "arena"),
                         [](const auto& storage) { return std::string(storage.param); });

std::vector<pid_t> children_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", pid));
  return {std::istream_iterator<pid_t>(file), {}};
}

TEST(Workers, OneThatIsKilledIsReported) {
  PackageLists lists;
  lists.generate(50);
  Subprocess service({PACKAGE_SEARCH, "--storage", "arena", "--workers", "3", "--queries", "50",
                      "--linger", "2000", "--lists", lists.folder()});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (children_of(service.pid()).size() < 3 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const auto children = children_of(service.pid());
  ASSERT_EQ(children.size(), 3U);
  ASSERT_EQ(kill(children[1], SIGKILL), 0);
  expect_error(service.finish(), 1, "signal 9");
}

}  // namespace
}  // namespace cowshed::test
