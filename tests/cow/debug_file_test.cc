#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/binaries.h>
#include <cowshed/cow/symbols.h>
#include <cowshed/tests/support/public_copy.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed::cow {
namespace {

namespace fs = std::filesystem;

constexpr const char* kServer = "DEBUGINFOD_URLS";

bool loads_libdebuginfod(int flags) {
  void* library = ::dlopen("libdebuginfod.so.1", RTLD_LAZY | flags);
  if (library != nullptr) ::dlclose(library);
  return library != nullptr;
}

std::uint64_t address_of_main() {
  std::istringstream symbols(cowshed::test::run({NM, SITE_SUBJECT}).out);
  for (std::string line; std::getline(symbols, line);) {
    if (line.ends_with(" main")) return std::stoull(line, nullptr, 16);
  }
  ADD_FAILURE() << "no main in " << SITE_SUBJECT;
  return 0;
}

// A copy of a program, without symbols.
class DebugFile : public ::testing::Test {
 protected:
  DebugFile() {
    ::unsetenv(kServer);
    ::setenv("DEBUGINFOD_CACHE_PATH", (folder() / "cache").c_str(), 1);
    objcopy({"--only-keep-debug", program_.path(), (folder() / "symbols").string()});
    objcopy({"--strip-all", program_.path()});
  }
  ~DebugFile() override {
    ::unsetenv(kServer);
    ::unsetenv("DEBUGINFOD_CACHE_PATH");
  }

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
    Mapping mapping;
    mapping.path = program_.path();
    mapping.inode = file.st_ino;
    Binaries binaries{ProcFiles()};
    Symbols symbols;
    return symbols.frames({binaries.open(mapping, ::getpid()), address_of_main()}).back();
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

// In a process of its own: what is loaded stays.
TEST_F(DebugFile, ThatIsNotThereIsAskedOfNoServerThatNobodyNamed) {
  const auto look_up = [this] {
    EXPECT_EQ(main_of_copy().function, "");
    const bool was_loaded = loads_libdebuginfod(RTLD_NOLOAD);
    ::setenv(kServer, "file:///nowhere", 1);
    EXPECT_EQ(main_of_copy().function, "");
    EXPECT_FALSE(was_loaded);
    EXPECT_EQ(loads_libdebuginfod(RTLD_NOLOAD), loads_libdebuginfod(0));
    std::exit(HasFailure() ? 1 : 0);
  };
  const fs::path symbols = folder() / "symbols";
  link_to(symbols);
  fs::remove(symbols);
  EXPECT_EXIT(look_up(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cowshed::cow
