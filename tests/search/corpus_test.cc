#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cowshed/tools/search/corpus.h>

namespace cowshed::search {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Corpus : public testing::Test {
 protected:
  Corpus() { std::filesystem::create_directories(folder_); }
  ~Corpus() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("corpus_test." + std::to_string(getpid()));
};

TEST_F(Corpus, ListsAreFoundByTheirNames) {
  const auto second = write("b_main_binary-amd64_Packages", "");
  const auto first = write("a_main_binary-amd64_Packages.lz4", "");
  write("a_InRelease", "");
  write("lock", "");
  write("a_Packages_old", "");
  std::filesystem::create_directory(folder_ / "dir_Packages");
  EXPECT_THAT(find_lists(folder_).value(), ElementsAre(first, second));
}

TEST_F(Corpus, AFolderWithoutListsSaysWhatToDo) {
  EXPECT_THAT(find_lists(folder_).error().message, HasSubstr("run `apt-get update`"));
  EXPECT_THAT(find_lists(folder_ / "none").error().message, HasSubstr("No such file or directory"));
}

TEST_F(Corpus, PlainListsAreReadAsTheyAre) {
  const std::string text = std::string(300'000, 'x') + "\n";
  EXPECT_EQ(read_list(write("x_Packages", text)).value(), text);
  EXPECT_EQ(read_list(write("empty_Packages", "")).value(), "");
}

TEST_F(Corpus, AListThatIsGoneIsAnError) {
  EXPECT_THAT(read_list(folder_ / "x_Packages").error().message, HasSubstr("cannot be read"));
  EXPECT_THAT(read_list(folder_ / "x_Packages.lz4").error().message, HasSubstr("cannot be read"));
}

TEST_F(Corpus, DamagedCompressionIsAnError) {
  const auto list = write("x_Packages.lz4", std::string(5000, '\x5a'));
  EXPECT_FALSE(read_list(list).has_value());
}

}  // namespace
}  // namespace cowshed::search
