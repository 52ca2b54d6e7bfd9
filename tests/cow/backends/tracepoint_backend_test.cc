#include <cowshed/cow/open_backend.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

// What this process has called read(2) for, in all its threads.
std::uint64_t reads_so_far() {
  std::ifstream io("/proc/self/io");
  for (std::string name; io >> name;) {
    std::uint64_t count = 0;
    io >> count;
    if (name == "syscr:") return count;
  }
  return 0;
}

TEST(TracepointBackend, AParentIsLookedAtOnceForAllItsNewChildren) {
  constexpr int kChildren = 500;
  auto opened = open_backend(BackendChoice::tracepoint);
  if (!opened) GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
  const cowshed::test::Folder folder;
  const std::string turn = folder / "turn";
  ASSERT_EQ(mkfifo(turn.c_str(), 0600), 0);
  // A shell, not this program, whose mappings are thousands under a sanitizer.
  cowshed::test::Subprocess parent({"/bin/sh", "-c",
                                    "for round in 1 2; do read -r line <$0; i=0; while [ $i -lt $1 "
                                    "]; do (:); i=$((i + 1)); done;"
                                    "echo round $round; done; read -r line <$0",
                                    turn, std::to_string(kChildren)});
  const auto fork_all = [&](const char* said) {
    std::ofstream(turn) << '\n';
    parent.read_until(said);
  };
  Backend& backend = *opened->backend;
  fork_all("round 1");  // it is a shell by then
  ASSERT_TRUE(backend.attach({parent.pid()}));
  ASSERT_TRUE(backend.sample());
  fork_all("round 2");
  const std::uint64_t before = reads_so_far();
  ASSERT_GT(before, 0U);
  ASSERT_TRUE(backend.sample());
  EXPECT_LT(reads_so_far() - before, std::uint64_t{kChildren});
  EXPECT_EQ(backend.measurement().processes.size(), std::size_t{kChildren} + 1);
}

}  // namespace
}  // namespace cowshed::cow
