#include <future>

#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/test.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/io/output_file.h>

namespace cowshed::cowtop {
namespace {

constexpr uid_t kNobody = 65534;

std::string why_not(const std::string& path, const std::vector<std::string>& others = {}) {
  return failure_of(OutputFile::open(path, others)).message;
}

void expect_written(const std::string& path, const std::string& kept_in) {
  auto file = OutputFile::open(path).value();
  ASSERT_TRUE(file.write_report("new"));
  EXPECT_EQ(contents_of(kept_in), "new");
}

class OutputFileTest : public ::testing::Test {
 protected:
  const TestFolder folder_;
  std::string path_ = folder_ / "report";
};

TEST_F(OutputFileTest, KeepsWhatItHeldUntilItIsWritten) {
  write_file(path_, "an older report, which is longer");
  {
    auto file = OutputFile::open(path_).value();
    EXPECT_EQ(contents_of(path_), "an older report, which is longer");
    ASSERT_TRUE(file.write_report("new"));
  }
  EXPECT_EQ(contents_of(path_), "new");
}

TEST_F(OutputFileTest, AppendsAfterWhatItWrote) {
  write_file(path_, "older");
  auto file = OutputFile::open(path_).value();
  file.clear();
  ASSERT_TRUE(file.append("one ") && file.append("two"));
  EXPECT_EQ(contents_of(path_), "one two");
}

TEST_F(OutputFileTest, AFileIsForOneADeviceForAll) {
  for (const bool is_device : {false, true}) {
    const std::string path = is_device ? "/dev/null" : folder_ / "recording";
    const auto one = OutputFile::open(path).value();
    const auto other = OutputFile::open(path).value();
    EXPECT_TRUE(one.lock());
    const auto locked = other.lock();
    EXPECT_EQ(locked.has_value(), is_device);
    if (!locked) EXPECT_EQ(locked.error().code, ErrorCode::in_use);
  }
}

TEST_F(OutputFileTest, IsNoneOfTheOthersByWhateverName) {
  write_file(path_, "older");
  ASSERT_EQ(::symlink("report", (folder_ / "symlink").c_str()), 0);
  ASSERT_EQ(::link(path_.c_str(), (folder_ / "link").c_str()), 0);
  for (const char* name : {"report", "symlink", "link"}) {
    EXPECT_EQ(why_not(folder_ / name, {"", path_}), (folder_ / name).string() +
                                                        ": is the same file as " + path_ +
                                                        ", which would be lost; name another file");
  }
  EXPECT_EQ(contents_of(path_), "older");
  EXPECT_TRUE(OutputFile::open("/dev/null", {"/dev/null", path_})) << "nothing is lost";
}

class InASharedFolder : public OutputFileTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::mkdir(shared_.c_str(), 0700), 0);
    ASSERT_EQ(::chmod(shared_.c_str(), 0777), 0);
    write_file(victim_, "untouched");
    path_ = shared_ + "/report";
  }
  void make_theirs(const std::string& path) {
    ASSERT_EQ(::lchown(path.c_str(), kNobody, kNobody), 0);
  }
  std::string victim_ = folder_ / "victim";
  std::string shared_ = folder_ / "shared";
};

TEST_F(InASharedFolder, NothingIsWrittenThatMayBeATrap) {
  struct Trap {
    std::string why;
    std::function<void()> plant;
    mode_t mode = 0777;
    bool is_theirs = false;  // the folder
  };
  const auto link = [&] { ASSERT_EQ(::symlink(victim_.c_str(), path_.c_str()), 0); };
  const auto fifo = [&] {
    ASSERT_EQ(::mkfifo(path_.c_str(), 0666), 0);
    make_theirs(path_);
  };
  std::vector<Trap> traps = {
      {"report is a symbolic link", link},
      {"report is a symbolic link", [&] { ASSERT_EQ(::symlink("no/such", path_.c_str()), 0); }},
      {"a file with another name elsewhere",
       [&] { ASSERT_EQ(::link(victim_.c_str(), path_.c_str()), 0); }}};
  if (::geteuid() == 0) {
    traps.insert(
        traps.end(),
        {{"report is a symbolic link", [&] { link(), make_theirs(path_); }, 01777},
         {"somebody else's file", [&] { write_file(path_, "theirs"), make_theirs(path_); }},
         {"somebody else's file", fifo},
         // To root, whose folder it is may have put anything there.
         {"report is a symbolic link", [&] { link(), make_theirs(path_); }, 0755, true},
         {"somebody else's file", fifo, 0755, true}});
  }
  for (const Trap& trap : traps) {
    SCOPED_TRACE(trap.why);
    ASSERT_EQ(::chmod(shared_.c_str(), trap.mode), 0);
    if (::geteuid() == 0) ASSERT_EQ(::chown(shared_.c_str(), trap.is_theirs ? kNobody : 0, 0), 0);
    trap.plant();
    EXPECT_EQ(why_not(path_),
              path_ + ": " + trap.why +
                  " in a folder that others may write to; remove it, or name another file");
    EXPECT_EQ(contents_of(victim_), "untouched");
    ASSERT_EQ(::unlink(path_.c_str()), 0);
  }
  EXPECT_NE(::access((shared_ + "/no/such").c_str(), F_OK), 0);
}

TEST_F(InASharedFolder, NoSymlinkLeadsToAnotherFolder) {
  ASSERT_EQ(::symlink(".", (shared_ + "/run").c_str()), 0);
  EXPECT_THAT(why_not(shared_ + "/run/report"), HasSubstr("/run/report: run is a symbolic link"));
}

TEST_F(InASharedFolder, AFileOfTheirsInTheirFolderKeepsItsOwner) {
  if (::geteuid() != 0) GTEST_SKIP() << "takes root, to make a folder of somebody else";
  ASSERT_EQ(::chmod(shared_.c_str(), 0755), 0);
  write_file(path_, "older");
  for (const std::string& each : {shared_, path_}) make_theirs(each);
  expect_written(path_, path_);
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, kNobody);
}

TEST_F(OutputFileTest, FollowsSymlinksOfOnesOwn) {
  ASSERT_EQ(::mkdir((folder_ / "to").c_str(), 0755), 0);
  ASSERT_EQ(::symlink("to/../to/", (folder_ / "link").c_str()), 0);
  ASSERT_EQ(::symlink("report", (folder_ / "to/first").c_str()), 0);
  ASSERT_EQ(::symlink((folder_ / "link/first").c_str(), (folder_ / "second").c_str()), 0);
  expect_written(folder_.path().string() + "/.//second", folder_ / "to/report");
}

TEST_F(OutputFileTest, WhatCannotBeWritten) {
  ASSERT_EQ(::symlink("loop", (folder_ / "loop").c_str()), 0);
  write_file(folder_ / "file", "");
  for (const auto& [name, why] : std::vector<std::pair<std::string, std::string>>{
           {"loop", "Too many levels of symbolic links"},
           {"loop/report", "Too many levels of symbolic links"},
           {"file/report", "Not a directory"},
           {"no/report", "No such file or directory"},
           {"new/", "No such file or directory"},
           {"", "Is a directory"},
           {".", "Is a directory"}}) {
    EXPECT_EQ(why_not(folder_ / name), "cannot write " + (folder_ / name).string() + ": " + why);
  }
  EXPECT_FALSE(OutputFile::open("/"));
  EXPECT_EQ(why_not("-"), "-: write /dev/stdout for standard output, ./- for a file of that name");
}

TEST_F(OutputFileTest, APipeByTheNameOfItsDescriptor) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto file = OutputFile::open("/dev/fd/" + std::to_string(ends[1])).value();
  ASSERT_TRUE(file.write_report("new"));
  std::array<char, 3> got;
  EXPECT_EQ(::read(ends[0], got.data(), got.size()), 3);
  EXPECT_EQ(std::string(got.data(), got.size()), "new");
  for (const int end : ends) ::close(end);
}

// What is more than it holds at once is waited for as well.
TEST_F(OutputFileTest, TheReaderOfAFifoIsWaitedFor) {
  const std::string path = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text(1 << 20, 'x');
  auto read = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return contents_of(path);
  });
  EXPECT_TRUE(OutputFile::open(path).value().write_report(text));
  EXPECT_TRUE(read.get() == text);
}

TEST_F(InASharedFolder, AFileOfOnesOwn) {
  write_file(path_, "older");
  expect_written(path_, path_);
}

}  // namespace
}  // namespace cowshed::cowtop
