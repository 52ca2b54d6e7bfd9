#include <cerrno>
#include <cstring>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/resource.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/image.h>

#include "child.h"

// Past RLIMIT_FSIZE the kernel ends a process by SIGXFSZ.  A new arena, a new generation and an
// image are errors instead.
namespace cowshed {
namespace {

using test::run_in_child;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void set_limit(rlim_t bytes) {
  const rlimit limit = {bytes, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
}

template <class T>
std::string outcome(const Expected<T>& result) {
  if (result) {
    return "ok\n";
  }
  EXPECT_EQ(result.error().code, ErrorCode::system_call);
  return std::strerror(result.error().system_errno) + (": " + result.error().message) + "\n";
}

TEST(FileSizeLimit, AnArenaBeyondItIsNotMade) {
  const auto child = run_in_child([] {
    set_limit(1_MiB);
    return outcome(Arena::create({.name = "big", .capacity = 64_MiB}));
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_EQ(child.said,
            "File too large: arena 'big': a file of 67108864 bytes, where RLIMIT_FSIZE is 1048576; "
            "raise it (ulimit -f)\n");
}

TEST(FileSizeLimit, AnArenaThatIsThereIsFilledAndFrozenButHasNoNewGeneration) {
  const auto child = run_in_child([] {
    auto arena = Arena::create({.name = "early", .capacity = 64_MiB});
    set_limit(1_MiB);
    std::memset(arena->allocate(10_MiB), 1, 10_MiB);
    std::string said = outcome(arena->freeze());
    said += outcome(arena->thaw());
    set_limit(RLIM_INFINITY);
    return said + outcome(arena->thaw());
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, StartsWith("ok\nFile too large: arena 'early': "));
  EXPECT_THAT(child.said, HasSubstr("raise it (ulimit -f)\nok\n"));
}

TEST(FileSizeLimit, AnImageBeyondItIsNotSavedAndLeavesNothing) {
  std::string folder = ::testing::TempDir() + "cowshed-limit-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const auto child = run_in_child([&] {
    auto arena = Arena::create({.name = "saved", .capacity = 64_MiB});
    std::memset(arena->allocate(10_MiB), 1, 10_MiB);
    if (!arena->freeze()) {
      return std::string("not frozen");
    }
    set_limit(4_MiB);
    return outcome(save_image(*arena, folder + "/saved.cow"));
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, StartsWith("File too large: image " + folder + "/saved.cow: a file of "));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cowshed
