#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/output_file.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;

TEST(OutputFile, KeepsWhatItHeldUntilItIsWritten) {
  const TestFolder folder;
  const std::string path = folder / "report";
  write_file(path, "an older report, which is longer");
  {
    auto file = OutputFile::open(path);
    ASSERT_TRUE(file);
    EXPECT_EQ(contents_of(path), "an older report, which is longer");
    ASSERT_TRUE(file->write_report("new"));
  }
  EXPECT_EQ(contents_of(path), "new");
}

TEST(OutputFile, AppendsAfterWhatItWrote) {
  const TestFolder folder;
  const std::string path = folder / "recording";
  write_file(path, "older");
  auto file = OutputFile::open(path);
  ASSERT_TRUE(file);
  file->clear();
  ASSERT_TRUE(file->append("one "));
  ASSERT_TRUE(file->append("two"));
  EXPECT_EQ(contents_of(path), "one two");
}

class InASharedFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::mkdir(shared_.c_str(), 0700), 0);
    ASSERT_EQ(::chmod(shared_.c_str(), 0777), 0);
  }
  void expect_refused(const std::string& why) {
    const auto file = OutputFile::open(path_);
    ASSERT_FALSE(file);
    EXPECT_THAT(file.error().message, HasSubstr(path_ + ": " + why));
  }
  TestFolder folder_;
  std::string shared_ = folder_ / "shared";
  std::string path_ = shared_ + "/report";
};

TEST_F(InASharedFolder, NoSymlinkIsFollowed) {
  const std::string victim = folder_ / "victim";
  write_file(victim, "untouched");
  ASSERT_EQ(::symlink(victim.c_str(), path_.c_str()), 0);
  expect_refused("a symbolic link");
  EXPECT_EQ(contents_of(victim), "untouched");
  ASSERT_EQ(::unlink(victim.c_str()), 0);
  expect_refused("a symbolic link");
  EXPECT_NE(::access(victim.c_str(), F_OK), 0) << "nothing is made where it points";
}

TEST_F(InASharedFolder, NoFileWithAnotherNameElsewhere) {
  const std::string victim = folder_ / "victim";
  write_file(victim, "untouched");
  ASSERT_EQ(::link(victim.c_str(), path_.c_str()), 0);
  expect_refused("a file with another name elsewhere");
  EXPECT_EQ(contents_of(victim), "untouched");
}

TEST_F(InASharedFolder, NoFileOfSomebodyElse) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a file of somebody else";
  write_file(path_, "theirs");
  ASSERT_EQ(::chown(path_.c_str(), 65534, 65534), 0);
  expect_refused("somebody else's file");
  EXPECT_EQ(contents_of(path_), "theirs");
}

TEST_F(InASharedFolder, AFileOfOnesOwn) {
  write_file(path_, "older");
  auto file = OutputFile::open(path_);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write_report("new"));
  EXPECT_EQ(contents_of(path_), "new");
}

}  // namespace
}  // namespace cowshed::cowtop
