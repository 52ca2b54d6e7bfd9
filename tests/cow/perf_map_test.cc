#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/cow/perf_map.h>

namespace cowshed::cow {
namespace {

TEST(PerfMap, NamesWhatLiesInside) {
  const auto map = PerfMap::parse(
      "7f00 10 py::first:/a b.py\n"
      "0x7f10 0x20 py::second:/b.py\n"
      "8000 10 renamed\n"
      "8000 8 newer");
  EXPECT_EQ(map.function(0x7eff), "");
  EXPECT_EQ(map.function(0x7f00), "py::first:/a b.py");
  EXPECT_EQ(map.function(0x7f0f), "py::first:/a b.py");
  EXPECT_EQ(map.function(0x7f2f), "py::second:/b.py");
  EXPECT_EQ(map.function(0x7f30), "");
  EXPECT_EQ(map.function(0x8000), "newer");
  EXPECT_EQ(map.function(0x8008), "");
}

TEST(PerfMap, WhatIsNoLineIsLeftOut) {
  const auto map =
      PerfMap::parse("\nzzz 10 x\n7f00\n7f00 10\n7f00 10 \n 7f00 10 y\n9000 10 good\n9");
  EXPECT_EQ(map.function(0x7f00), "");
  EXPECT_EQ(map.function(0x9000), "good");
}

TEST(PerfMap, NoFileNoNames) { EXPECT_EQ(PerfMap::read("/nonexistent").function(1), ""); }

class PerfMapFile : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("perf-map-test-" + std::to_string(::getpid()));
  const std::string path_ = folder_ / "perf-1.map";
};

TEST_F(PerfMapFile, IsRead) {
  std::ofstream(path_) << "7f00 10 x\n";
  EXPECT_EQ(PerfMap::read(path_).function(0x7f00), "x");
}

TEST_F(PerfMapFile, WhatIsNoFileOrHasNoEndIsNot) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(PerfMap::read(path_).function(0x7f00), "") << "and does not wait for a writer";
  std::filesystem::remove(path_);
  std::filesystem::create_symlink("/dev/zero", path_);
  EXPECT_EQ(PerfMap::read(path_).function(0), "");
  std::filesystem::remove(path_);
  std::ofstream(path_) << "7f00 10 x\n";
  std::filesystem::resize_file(path_, std::uintmax_t{1} << 40U);
  EXPECT_EQ(PerfMap::read(path_).function(0x7f00), "x");
}

TEST(PerfMap, LongNamesAreCutOff) {
  EXPECT_EQ(PerfMap::parse("7f00 10 " + std::string(100'000, 'x')).function(0x7f00).size(), 1024U);
}

}  // namespace
}  // namespace cowshed::cow
