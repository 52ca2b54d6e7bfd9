#include <cowshed/cow/open_backend.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/memory_map.h>
#include <cowshed/tests/support/subprocess.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

// Calls of read(2) by all threads of this process.
std::size_t reads_so_far() { return cowshed::test::figure_of("/proc/self/io", "syscr"); }

TEST(TracepointBackend, AParentIsLookedAtOnceForAllItsNewChildren) {
  constexpr std::size_t kChildren = 500;
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
  const std::size_t before = reads_so_far();
  ASSERT_GT(before, 0U);
  ASSERT_TRUE(backend.sample());
  EXPECT_LT(reads_so_far() - before, kChildren);
  EXPECT_EQ(backend.measurement().processes.size(), kChildren + 1);
}

}  // namespace
}  // namespace cowshed::cow
