#include <dlfcn.h>

#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/cow/sandbox/file_opener.h>
#include <cowshed/tests/subjects/public_copy.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

namespace fs = std::filesystem;

constexpr const char* kServer = "DEBUGINFOD_URLS";

std::uint64_t address_of_main() {
  std::istringstream symbols(cowshed::test::run({NM, SITE_SUBJECT}).out);
  for (std::string line; std::getline(symbols, line);)
    if (line.ends_with(" main")) return std::stoull(line, nullptr, 16);
  ADD_FAILURE() << "no main in " << SITE_SUBJECT;
  return 0;
}

// A copy of a program, without symbols.
class DebugFile : public ::testing::Test {
 protected:
  DebugFile() {
    objcopy({"--only-keep-debug", program_.path(), (folder() / "symbols").string()});
    objcopy({"--strip-all", program_.path()});
  }
  ~DebugFile() override { ::unsetenv(kServer); }

  fs::path folder() const { return fs::path(program_.path()).parent_path(); }

  static void objcopy(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), OBJCOPY);
    EXPECT_EQ(cowshed::test::run(arguments).exit_status(), 0);
  }

  void link_to(const fs::path& symbols) const {
    objcopy({"--add-gnu-debuglink=" + symbols.string(), program_.path()});
  }

  Frame main_of_copy() const {
    struct stat file{};
    EXPECT_EQ(::stat(program_.path().c_str(), &file), 0);
    const Mapping mapping{.inode = file.st_ino, .path = program_.path(), .device = file.st_dev};
    LocalCodeReader reader([&](auto, FileKind kind, const std::string& name) {
      return open_requested(ProcFiles(), {kind, ::getpid(), 0, mapping, name});
    });
    reader.add_binary(1, program_.path());
    return reader.frames(1, address_of_main()).back();
  }

 private:
  cowshed::test::PublicCopy program_{SITE_SUBJECT};
};

TEST_F(DebugFile, IsFoundByItsName) {
  const fs::path beside = folder() / "linked.debug";
  fs::rename(folder() / "symbols", beside);
  link_to(beside);
  EXPECT_EQ(main_of_copy().function, "main");
  fs::create_directory(folder() / ".debug");
  fs::rename(beside, folder() / ".debug" / "linked.debug");
  const Frame frame = main_of_copy();
  EXPECT_EQ(frame.function, "main");
  EXPECT_TRUE(frame.file.ends_with("site_subject.cc")) << frame.file;
  EXPECT_GT(frame.line, 0);
}

// Whoever names a build id would have us load libcurl, and ask for it.
TEST_F(DebugFile, IsAskedOfNoServer) {
  const fs::path symbols = folder() / "symbols";
  link_to(symbols);
  fs::remove(symbols);
  ::setenv(kServer, "file:///nowhere", 1);
  EXPECT_EQ(main_of_copy().function, "");
  EXPECT_EQ(::dlopen("libdebuginfod.so.1", RTLD_LAZY | RTLD_NOLOAD), nullptr);
}

TEST_F(DebugFile, OfAnotherBinaryIsNotTaken) {
  const fs::path beside = folder() / "symbols";
  link_to(beside);
  objcopy(
      {"--remove-section=.note.gnu.build-id", "--only-keep-debug", SITE_SUBJECT, beside.string()});
  EXPECT_EQ(main_of_copy().function, "");
}

}  // namespace
}  // namespace cowshed::cow
