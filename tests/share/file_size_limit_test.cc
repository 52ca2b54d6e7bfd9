#include <cowshed/share/image.h>

#include "share.h"

// Past RLIMIT_FSIZE the kernel ends a process by SIGXFSZ.  A new arena, a new generation and an
// image are errors instead.
namespace cowshed {
namespace {

using testing::MatchesRegex;

void set_limit(rlim_t bytes) {
  const rlimit limit = {bytes, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
}

template <class T>
std::string outcome(const Expected<T>& result) {
  return result
             ? "ok\n"
             : std::strerror(result.error().system_errno) + (": " + result.error().message) + "\n";
}

TEST(FileSizeLimit, AnArenaBeyondItIsNotMade) {
  EXPECT_EQ(run_in_child([] {
              set_limit(1_MiB);
              return outcome(Arena::create({.name = "big", .capacity = 64_MiB}));
            }).said,
            "File too large: arena 'big': a file of 67108864 bytes, where RLIMIT_FSIZE is 1048576; "
            "raise it (ulimit -f)\n");
}

TEST(FileSizeLimit, AnArenaThatIsThereIsFilledAndFrozenButHasNoNewGeneration) {
  EXPECT_THAT(run_in_child([] {
                Arena empty = Arena::create({.name = "early", .capacity = 64_MiB}).value();
                set_limit(1_MiB);
                std::memset(empty.allocate(10_MiB), 1, 10_MiB);
                std::string said = outcome(empty.freeze()) + outcome(empty.thaw());
                set_limit(RLIM_INFINITY);
                return said + outcome(empty.thaw());
              }).said,
              MatchesRegex("ok\nFile too large: arena 'early': .*raise it \\(ulimit -f\\)\nok\n"));
}

TEST(FileSizeLimit, AnImageBeyondItIsNotSavedAndLeavesNothing) {
  std::string folder = testing::TempDir() + "cowshed-limit-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  EXPECT_THAT(run_in_child([&] {
                Arena arena = Arena::create({.name = "saved", .capacity = 64_MiB}).value();
                std::memset(arena.allocate(10_MiB), 1, 10_MiB);
                const bool frozen = arena.freeze().has_value();
                set_limit(4_MiB);
                return frozen ? outcome(save_image(arena, folder + "/saved.cow")) : "not frozen";
              }).said,
              MatchesRegex("File too large: image " + folder + "/saved.cow: a file of .*\n"));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cowshed
