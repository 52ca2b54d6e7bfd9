#include <sys/socket.h>

#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/helper_process.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

// What is read of a hostile program is read in a process that may die.

namespace cowshed::cow {
namespace {

namespace fs = std::filesystem;
using BinaryId = CodeReader::BinaryId;

constexpr std::uint64_t kCode = 0x8000;  // of the site subject

class CodeReaderProcessOf : public ::testing::Test {
 protected:
  FileDescriptor open(BinaryId binary, FileKind kind) const {
    const auto path = paths_.find(binary);
    if (kind != FileKind::itself || path == paths_.end()) return {};
    return FileDescriptor(::open(path->second.c_str(), O_RDONLY | O_CLOEXEC));
  }

  std::string copy(const std::string& name) const {
    const fs::path path = folder_ / name;
    fs::copy_file(SITE_SUBJECT, path);
    return path;
  }

  // How many places in the code have names.
  std::size_t named(BinaryId binary, std::uint64_t begin) {
    std::size_t count = 0;
    for (std::uint64_t address = begin; address < begin + kCode; address += 64)
      count += reader_.frames(binary, address).back().function.empty() ? 0 : 1;
    return count;
  }
  // The helpers of this process.
  static std::vector<pid_t> helpers() {
    return ProcFiles().children(::getpid()).value_or(std::vector<pid_t>());
  }

  const cowshed::test::Folder folder_;
  std::map<BinaryId, std::string> paths_;
  CodeReader::FileOf file_of_ = [this](BinaryId binary, FileKind kind, const std::string&) {
    return open(binary, kind);
  };
  CodeReaderProcess reader_{file_of_};
};

TEST_F(CodeReaderProcessOf, ReadsTheSameAsIsReadHere) {
  paths_[1] = SITE_SUBJECT;
  LocalCodeReader here(file_of_);
  const auto extent = here.add_binary(1, SITE_SUBJECT).value();
  const auto apart = reader_.add_binary(1, SITE_SUBJECT).value();
  EXPECT_EQ(apart.begin, extent.begin);
  EXPECT_EQ(apart.end, extent.end);
  for (std::uint64_t address = extent.begin; address < extent.begin + kCode; address += 64)
    EXPECT_EQ(reader_.frames(1, address), here.frames(1, address)) << address;
  EXPECT_GT(named(1, extent.begin), 10U);
  EXPECT_EQ(reader_.release_sites(1), here.release_sites(1));
  EXPECT_THAT(reader_.set_aside(), IsEmpty());
}

TEST_F(CodeReaderProcessOf, ReadsTheLinesOfPython) {
  const PythonCode code{"total", "/app/pool.py", 4, {0x81, 0x00, 0xd9, 0x00, 0x00}};
  const auto lines = reader_.python_lines(code);
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_EQ(lines[1].instruction, 2U);
  EXPECT_EQ(lines[1].line, 5);
  EXPECT_EQ(lines[2].line, 0);
  PythonCode endless = code;
  endless.lines.assign(1 << 20, 0xd8);
  EXPECT_EQ(reader_.python_lines(endless).size(), kMostPythonLines);
  EXPECT_THAT(helpers(), SizeIs(1));
}

TEST_F(CodeReaderProcessOf, AFileThatShrinksWhileItIsReadKillsTheProcessAlone) {
  paths_[1] = copy("shrinks");
  paths_[2] = copy("sound");
  const auto extent = reader_.add_binary(1, paths_[1]);
  ASSERT_TRUE(extent && reader_.add_binary(2, paths_[2]));
  fs::resize_file(paths_[1], 0);
  EXPECT_THAT(reader_.frames(1, extent->begin + 0x1000), ElementsAre(Frame{}));
  EXPECT_THAT(reader_.set_aside(), ElementsAre(1U));
  EXPECT_THAT(reader_.release_sites(1), IsEmpty());
  EXPECT_GT(named(2, extent->begin), 10U) << "by another process";
}

TEST_F(CodeReaderProcessOf, WhatKillsItAgainAndAgainEndsIt) {
  for (BinaryId binary = 1; binary <= 20; ++binary) {
    paths_[binary] = copy("shrinks" + std::to_string(binary));
    if (!reader_.add_binary(binary, paths_[binary])) break;
    fs::resize_file(paths_[binary], 0);
    reader_.frames(binary, 0x1000);
  }
  EXPECT_TRUE(reader_.has_given_up());
  EXPECT_LT(reader_.set_aside().size(), 20U);
  EXPECT_THAT(helpers(), IsEmpty());
}

// Each type of the mangled name has the one before twice: the text doubles.
std::string exploding_name(int doublings) {
  std::string name = "_Z1f1AIiiE";
  const auto id = [](int number) {
    constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    return number == 0
               ? std::string("S_")
               : "S" + std::string(1, kDigits.at(static_cast<std::size_t>(number - 1))) + "_";
  };
  for (int i = 1; i <= doublings; ++i) name += "S_I" + id(i) + id(i) + "E";
  return name;
}

TEST_F(CodeReaderProcessOf, ANameThatIsEndlessSetsItsFileAside) {
  paths_[1] = folder_ / "endless";
  ASSERT_EQ(
      cowshed::test::run({OBJCOPY, "--strip-debug", "--redefine-sym=main=" + exploding_name(35),
                          SITE_SUBJECT, paths_[1]})
          .exit_status(),
      0);
  paths_[2] = copy("sound");
  const auto extent = reader_.add_binary(1, paths_[1]);
  ASSERT_TRUE(extent && reader_.add_binary(2, paths_[2]));
  named(1, extent->begin);
  EXPECT_THAT(reader_.set_aside(), ElementsAre(1U));
  EXPECT_FALSE(reader_.has_given_up());
  EXPECT_GT(named(2, extent->begin), 10U);
}

TEST_F(CodeReaderProcessOf, ALongNameIsCutAndNotDemangled) {
  paths_[1] = folder_ / "long";
  const std::string name = "_Z9999" + std::string(9999, 'a') + "v";
  ASSERT_EQ(cowshed::test::run(
                {OBJCOPY, "--strip-debug", "--redefine-sym=main=" + name, SITE_SUBJECT, paths_[1]})
                .exit_status(),
            0);
  LocalCodeReader here(file_of_);
  const auto extent = here.add_binary(1, paths_[1]).value();
  std::set<std::string> names;
  for (std::uint64_t address = extent.begin; address < extent.begin + kCode; address += 16)
    names.insert(here.frames(1, address).back().function);
  EXPECT_THAT(names, ::testing::Contains(name.substr(0, 4096)));
}

TEST_F(CodeReaderProcessOf, ItsProcessHasNoRights) {
  paths_[1] = SITE_SUBJECT;
  ASSERT_TRUE(reader_.add_binary(1, SITE_SUBJECT));
  const auto children = helpers();
  ASSERT_EQ(children.size(), 1U);
  const ProcFiles proc;
  const auto user = static_cast<uid_t>(proc.status_number(children[0], "Uid"));
  if (::geteuid() != 0) EXPECT_EQ(user, ::geteuid());
  else EXPECT_TRUE(user >= 0x70000000 || user == 65534) << user << " in a user namespace";
  EXPECT_THAT(cowshed::test::contents_of(proc.path(children[0], "status")),
              AllOf(HasSubstr("CapEff:\t0000000000000000"), HasSubstr("CapPrm:\t0000000000000000"),
                    HasSubstr("NoNewPrivs:\t1"), HasSubstr("Seccomp:\t2")));
  const auto descriptors = std::distance(fs::directory_iterator(proc.path(children[0], "fd")), {});
  EXPECT_EQ(descriptors, 1) << "its socket";
}

TEST_F(CodeReaderProcessOf, GarbageIsNoBinary) {
  paths_[1] = folder_ / "garbage";
  std::ofstream(paths_[1]) << "\x7f"
                              "ELF\x02\x01\x01"
                           << std::string(1000, '\xff');
  EXPECT_FALSE(reader_.add_binary(1, paths_[1]));
  EXPECT_FALSE(reader_.add_binary(2, "none"));
  EXPECT_THAT(reader_.frames(1, 0), ElementsAre(Frame{}));
}

// Nothing that a child without rights may do: it says what it could.
TEST(HelperProcess, WithoutRightsCannotOpenOrRunAnything) {
  const auto helper =
      HelperProcess::start("test", HelperProcess::Rights::none, [](const HelperSocket& socket) {
        std::string could;
        if (::open("/etc/passwd", O_RDONLY) >= 0) could += "open ";
        if (::socket(AF_INET, SOCK_STREAM, 0) >= 0) could += "socket ";
        if (::fork() >= 0) could += "fork ";
        if (::kill(1, 0) == 0) could += "kill ";
        if (::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
            MAP_FAILED) {
          could += "exec ";
        }
        socket.send("could: " + could);
      });
  ASSERT_TRUE(helper);
  EXPECT_EQ(helper->receive(std::chrono::seconds(60), std::chrono::seconds(60)).value().bytes,
            "could: ");
}

TEST(HelperProcess, ThatDoesNotAnswerIsNotWaitedFor) {
  const auto helper = HelperProcess::start("test", HelperProcess::Rights::as_ours,
                                           [](const HelperSocket&) { ::pause(); });
  ASSERT_TRUE(helper);
  EXPECT_FALSE(helper->receive(std::chrono::hours(1), std::chrono::milliseconds(1)));
}

}  // namespace
}  // namespace cowshed::cow
