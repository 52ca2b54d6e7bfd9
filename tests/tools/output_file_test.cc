#include <array>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): setenv(3)
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/output_file.h>

namespace cowshed::cowtop {
namespace {

using ::testing::HasSubstr;

constexpr uid_t kNobody = 65534;

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

TEST(OutputFile, AFileIsForOneADeviceForAll) {
  const TestFolder folder;
  for (const bool is_device : {false, true}) {
    const std::string path = is_device ? "/dev/null" : folder / "recording";
    const auto one = OutputFile::open(path);
    const auto other = OutputFile::open(path);
    ASSERT_TRUE(one && other);
    EXPECT_TRUE(one->lock());
    const auto locked = other->lock();
    EXPECT_EQ(locked.has_value(), is_device);
    if (!locked) {
      EXPECT_EQ(locked.error().code, ErrorCode::in_use);
    }
  }
}

TEST(OutputFile, IsNoneOfTheOthersByWhateverName) {
  const TestFolder folder;
  const std::string path = folder / "report";
  write_file(path, "older");
  ASSERT_EQ(::symlink("report", (folder / "symlink").c_str()), 0);
  ASSERT_EQ(::link(path.c_str(), (folder / "link").c_str()), 0);
  for (const char* name : {"report", "symlink", "link"}) {
    const auto file = OutputFile::open(folder / name, {"", path});
    ASSERT_FALSE(file) << name;
    EXPECT_EQ(file.error().message, (folder / name).string() + ": is the same file as " + path +
                                        ", which would be lost; name another file");
  }
  EXPECT_EQ(contents_of(path), "older");
  EXPECT_TRUE(OutputFile::open("/dev/null", {"/dev/null", path})) << "nothing is lost";
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

TEST_F(InASharedFolder, NoSymlinkOfSomebodyElseInAStickyOne) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a symlink of somebody else";
  ASSERT_EQ(::chmod(shared_.c_str(), 01777), 0);
  ASSERT_EQ(::symlink((folder_ / "victim").c_str(), path_.c_str()), 0);
  ASSERT_EQ(::lchown(path_.c_str(), kNobody, kNobody), 0);
  expect_refused("a symbolic link");
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
  ASSERT_EQ(::chown(path_.c_str(), kNobody, kNobody), 0);
  expect_refused("somebody else's file");
  EXPECT_EQ(contents_of(path_), "theirs");
}

TEST_F(InASharedFolder, NoFolderThatIsSomebodyElsesSymlink) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a symlink of somebody else";
  const std::string own = folder_ / "own";
  ASSERT_EQ(::mkdir(own.c_str(), 0755), 0);
  write_file(own + "/report", "untouched");
  const std::string link = shared_ + "/run";
  ASSERT_EQ(::symlink(own.c_str(), link.c_str()), 0);
  ASSERT_EQ(::lchown(link.c_str(), kNobody, kNobody), 0);
  path_ = link + "/report";
  expect_refused("its folder run is a symbolic link");
  ASSERT_EQ(::lchown(link.c_str(), 0, 0), 0);
  EXPECT_TRUE(OutputFile::open(path_)) << "root's own is followed";
  EXPECT_EQ(contents_of(own + "/report"), "untouched");
}

TEST_F(InASharedFolder, NoFifoOfSomebodyElseIsWaitedFor) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a FIFO of somebody else";
  ASSERT_EQ(::mkfifo(path_.c_str(), 0666), 0);
  ASSERT_EQ(::chown(path_.c_str(), kNobody, kNobody), 0);
  expect_refused("somebody else's file");
}

// As root sees it: whose folder it is may have put anything there.
class InAFolderOfSomebodyElse : public InASharedFolder {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a folder of somebody else";
    InASharedFolder::SetUp();
    ASSERT_EQ(::chmod(shared_.c_str(), 0755), 0);
    ASSERT_EQ(::chown(shared_.c_str(), kNobody, kNobody), 0);
  }
};

TEST_F(InAFolderOfSomebodyElse, NoSymlinkOfTheirsIsFollowed) {
  const std::string victim = folder_ / "victim";
  write_file(victim, "untouched");
  ASSERT_EQ(::symlink(victim.c_str(), path_.c_str()), 0);
  ASSERT_EQ(::lchown(path_.c_str(), kNobody, kNobody), 0);
  expect_refused("a symbolic link");
  ASSERT_EQ(::lchown(path_.c_str(), 0, 0), 0);
  EXPECT_TRUE(OutputFile::open(path_)) << "root's own is followed";
  EXPECT_EQ(contents_of(victim), "untouched");
}

TEST_F(InAFolderOfSomebodyElse, NoFifoOfTheirsIsWaitedFor) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0666), 0);
  ASSERT_EQ(::chown(path_.c_str(), kNobody, kNobody), 0);
  expect_refused("somebody else's file");
}

TEST_F(InAFolderOfSomebodyElse, AFileOfTheirsKeepsItsOwner) {
  write_file(path_, "older");
  ASSERT_EQ(::chown(path_.c_str(), kNobody, kNobody), 0);
  auto file = OutputFile::open(path_);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write_report("new"));
  EXPECT_EQ(contents_of(path_), "new");
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, kNobody);
}

// Under sudo: what is theirs alone leads to nothing that they could not have written themselves.
class InAFolderOfWhoCalledSudo : public InAFolderOfSomebodyElse {
 protected:
  void SetUp() override {
    InAFolderOfSomebodyElse::SetUp();
    if (IsSkipped()) return;
    if (const char* before = ::getenv("SUDO_UID")) before_ = before;
    ::setenv("SUDO_UID", std::to_string(kNobody).c_str(), 1);
    for (const std::string& each : {real_, roots_}) ASSERT_EQ(::mkdir(each.c_str(), 0755), 0);
    ASSERT_EQ(::chown(real_.c_str(), kNobody, kNobody), 0);
    path_ = shared_ + "/link/report";
  }
  void TearDown() override {
    ::unsetenv("SUDO_UID");
    if (before_) ::setenv("SUDO_UID", before_->c_str(), 1);
  }
  void link(const std::string& target, const std::string& name, uid_t owner = kNobody) {
    const std::string path = shared_ + "/" + name;
    ASSERT_EQ(::symlink(target.c_str(), path.c_str()), 0);
    ASSERT_EQ(::lchown(path.c_str(), owner, owner), 0);
  }
  std::string real_ = folder_ / "real";
  std::string roots_ = folder_ / "roots";

 private:
  std::optional<std::string> before_;
};

TEST_F(InAFolderOfWhoCalledSudo, TheirSymlinkToAFolderOfTheirsIsFollowed) {
  link(real_, "link");
  auto file = OutputFile::open(path_);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write_report("new"));
  EXPECT_EQ(contents_of(real_ + "/report"), "new");
  link("link/report", "file");
  EXPECT_TRUE(OutputFile::open(shared_ + "/file"));
}

TEST_F(InAFolderOfWhoCalledSudo, NothingIsMadeWhereTheyCouldNotWrite) {
  link(roots_, "link");
  expect_refused("a symbolic link of the user who called sudo leads to a folder");
  link(roots_ + "/report", "file");
  path_ = shared_ + "/file";
  expect_refused("a symbolic link of the user who called sudo leads to a folder");
  EXPECT_NE(::access((roots_ + "/report").c_str(), F_OK), 0);
  for (const mode_t mode : {0775U, 0777U}) {
    ASSERT_EQ(::chmod(real_.c_str(), mode), 0);
    link(real_, "to" + std::to_string(mode));
    path_ = shared_ + "/to" + std::to_string(mode) + "/report";
    expect_refused("a symbolic link of the user who called sudo leads to a folder");
  }
  EXPECT_NE(::access((real_ + "/report").c_str(), F_OK), 0);
}

// Whose folders are those of a process's owner, and its memory is a file there.
TEST_F(InAFolderOfWhoCalledSudo, NorInProc) {
  test::Subprocess theirs({"sh", "-c", "echo up; exec sleep 60"}, [] {
    if (::setresuid(kNobody, kNobody, kNobody) != 0) ::_exit(1);
  });
  theirs.read_until("up");
  const std::string proc = "/proc/" + std::to_string(theirs.pid());
  link(proc, "proc");
  link(proc + "/fd/0", "fd");
  for (const char* name : {"proc/mem", "proc/fd/0", "proc/cwd/report", "fd"}) {
    const auto file = OutputFile::open(shared_ + "/" + name);
    ASSERT_FALSE(file) << name;
    EXPECT_EQ(file.error().code, ErrorCode::permission_denied) << file.error().message;
    EXPECT_THAT(file.error().message, HasSubstr("a symbolic link")) << "and not the kernel's";
  }
  ::kill(theirs.pid(), SIGKILL);
  theirs.finish();
}

TEST_F(InAFolderOfWhoCalledSudo, ASecondSymlinkOutOfTheirFolderIsRefused) {
  link("../real", "link");
  ASSERT_EQ(::symlink((roots_ + "/report").c_str(), (real_ + "/report").c_str()), 0);
  expect_refused("a symbolic link of the user who called sudo leads to a folder");
  ASSERT_EQ(::lchown((real_ + "/report").c_str(), kNobody, kNobody), 0);
  expect_refused("a symbolic link of the user who called sudo leads to a folder");
  EXPECT_NE(::access((roots_ + "/report").c_str(), F_OK), 0);
}

TEST_F(InAFolderOfWhoCalledSudo, NoFileWithAnotherNameElsewhereByTheirSymlink) {
  link(real_, "link");
  const std::string victim = folder_ / "victim";
  write_file(victim, "untouched");
  ASSERT_EQ(::link(victim.c_str(), (real_ + "/report").c_str()), 0);
  expect_refused("a file with another name elsewhere");
  EXPECT_EQ(contents_of(victim), "untouched");
}

TEST_F(InAFolderOfWhoCalledSudo, AThirdUsersSymlinkIsNotFollowed) {
  link(real_, "link", kNobody - 1);
  expect_refused(
      "its folder link is a symbolic link in a folder that others may write to; "
      "remove it, or name the folder that it points to, or another one");
}

TEST_F(InAFolderOfWhoCalledSudo, NorTheirsWhereAThirdUserMayWrite) {
  link(real_, "link");
  for (const mode_t mode : {0775U, 01777U}) {
    ASSERT_EQ(::chmod(shared_.c_str(), mode), 0);
    expect_refused("its folder link is a symbolic link");
  }
}

TEST_F(InAFolderOfWhoCalledSudo, NorWithAnotherOrNoSudoUid) {
  link(real_, "link");
  for (const char* text : {"0", "", "x", "65534x", "-1", "99999999999", "65533"}) {
    ::setenv("SUDO_UID", text, 1);
    expect_refused("its folder link is a symbolic link");
  }
  ::unsetenv("SUDO_UID");
  expect_refused("its folder link is a symbolic link");
}

TEST(OutputFile, FollowsSymlinksOfOnesOwn) {
  const TestFolder folder;
  ASSERT_EQ(::mkdir((folder / "to").c_str(), 0755), 0);
  ASSERT_EQ(::symlink("to/../to/", (folder / "link").c_str()), 0);
  ASSERT_EQ(::symlink("report", (folder / "to/first").c_str()), 0);
  ASSERT_EQ(::symlink((folder / "link/first").c_str(), (folder / "second").c_str()), 0);
  auto file = OutputFile::open(folder.path().string() + "/.//second");
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write_report("new"));
  EXPECT_EQ(contents_of(folder / "to/report"), "new");
}

TEST(OutputFile, WhatCannotBeWritten) {
  const TestFolder folder;
  ASSERT_EQ(::symlink("loop", (folder / "loop").c_str()), 0);
  write_file(folder / "file", "");
  for (const auto& [name, why] : std::vector<std::pair<std::string, std::string>>{
           {"loop", "Too many levels of symbolic links"},
           {"loop/report", "Too many levels of symbolic links"},
           {"file/report", "Not a directory"},
           {"no/report", "No such file or directory"},
           {"new/", "Is a directory"},
           {"", "Is a directory"},
           {".", "Is a directory"}}) {
    const auto file = OutputFile::open(folder / name);
    ASSERT_FALSE(file) << name;
    EXPECT_EQ(file.error().message, "cannot write " + (folder / name).string() + ": " + why);
  }
  EXPECT_FALSE(OutputFile::open("/"));
  const auto dash = OutputFile::open("-");
  ASSERT_FALSE(dash) << "not a file of that name";
  EXPECT_EQ(dash.error().message, "-: standard output is /dev/stdout, and a file of that name ./-");
}

TEST(OutputFile, APipeByTheNameOfItsDescriptor) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto file = OutputFile::open("/dev/fd/" + std::to_string(ends[1]));
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write_report("new"));
  std::array<char, 3> got;
  EXPECT_EQ(::read(ends[0], got.data(), got.size()), 3);
  EXPECT_EQ(std::string(got.data(), got.size()), "new");
  for (const int end : ends) ::close(end);
}

// What is more than it holds at once is waited for as well.
TEST(OutputFile, TheReaderOfAFifoIsWaitedFor) {
  const TestFolder folder;
  const std::string path = folder / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text(1 << 20, 'x');
  auto read = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return contents_of(path);
  });
  auto file = OutputFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE(file->write_report(text));
  {
    const OutputFile closed(std::move(*file));
  }
  EXPECT_TRUE(read.get() == text);
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
