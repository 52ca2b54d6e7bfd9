#include <nlohmann/json.hpp>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// docs/examples/http_server: what its README says of it holds.
namespace cowshed::cowtop {
namespace {

const std::string example = EXAMPLE;

using Json = nlohmann::json;

bool has_package_lists() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/var/lib/apt/lists", error))
    if (entry.path().filename().string().find("_Packages") != std::string::npos) return true;
  return false;
}

TEST(HttpServerExample, TheWorkersCopyTheHeapAndNotTheArena) {
  if (!has_package_lists()) GTEST_SKIP() << "no package lists here: run apt-get update";
  const auto measured = test::run({example + "/measure", "--build", BUILD, "--json", "--workers",
                                   "2", "--clients", "4", "--requests", "400"});
  // It fails too when the answers differ or a worker does not end well.
  ASSERT_EQ(measured.exit_status(), 0) << measured.err;
  const Json runs = Json::parse(measured.out);
  EXPECT_EQ(runs["before"]["answers"], runs["after"]["answers"]);
  EXPECT_EQ(runs["after"]["requests"], 400);
  ASSERT_EQ(runs["before"]["workers"].size(), 2U);
  ASSERT_EQ(runs["after"]["workers"].size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    const Json& before = runs["before"]["workers"][i];
    const Json& after = runs["after"]["workers"][i];
    EXPECT_TRUE(before["arenas"].empty());
    ASSERT_EQ(after["arenas"].size(), 1U);
    EXPECT_EQ(after["arenas"][0]["name"], "catalogue");
    EXPECT_EQ(after["arenas"][0]["copied_pages"], 0);
    EXPECT_GT(before["copied_bytes"].get<double>(),
              0.5 * after["arenas"][0]["bytes"].get<double>());
    EXPECT_GT(before["copied_bytes"].get<double>(), 10 * after["copied_bytes"].get<double>());
  }
}

TEST(HttpServerExample, TheReadmeShowsTheDifference) {
  const auto diff = test::run({"diff", "-u", "--label", "before.cc", "--label", "after.cc",
                               example + "/before.cc", example + "/after.cc"});
  ASSERT_EQ(diff.exit_status(), 1) << diff.err;
  std::ifstream file(example + "/README.md");
  std::stringstream readme;
  readme << file.rdbuf();
  EXPECT_NE(readme.str().find("```diff\n" + diff.out + "```\n"), std::string::npos)
      << "README.md should show:\n"
      << diff.out;
}

}  // namespace
}  // namespace cowshed::cowtop
