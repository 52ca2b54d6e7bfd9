#include <cowshed/cow/process_tree.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

ProcessCopies process(pid_t pid, pid_t ppid, Role role, std::optional<std::uint64_t> pages) {
  ProcessCopies result;
  result.pid = pid;
  result.ppid = ppid;
  result.role = role;
  result.copied_anon_pages = pages;
  result.copied_file_pages = 0;
  return result;
}

TEST(Subtrees, OfSeveralRoots) {
  const auto trees = subtrees({process(10, 1, Role::root, 1), process(20, 1, Role::root, 2),
                               process(21, 20, Role::child, 4),
                               process(15, 99, Role::child, 1000)});  // of whom, is not known
  EXPECT_EQ(trees[0].copied_pages, 1U);
  EXPECT_EQ(trees[1].copied_pages, 6U);
  EXPECT_EQ(trees[3].copied_pages, 1000U);
}

TEST(Subtrees, OfNestedWorkers) {
  const auto trees = subtrees({
      process(10, 1, Role::root, std::nullopt), process(11, 10, Role::child, 5),
      process(12, 11, Role::child, 7), process(13, 10, Role::child, std::nullopt),
      process(12, 13, Role::child, 20),    // the PID again
      process(14, 12, Role::child, 30),    // its child
      process(15, 99, Role::child, 1000),  // of a parent that was not seen
      process(10, 15, Role::child, 0)      // the root's PID again
  });
  ASSERT_EQ(trees.size(), 8U);
  EXPECT_EQ(trees[0].copied_pages, 5U + 7U + 20U + 30U + 1000U);
  EXPECT_EQ(trees[0].processes, 8U);
  EXPECT_EQ(trees[1].copied_pages, 12U);
  EXPECT_EQ(trees[2].copied_pages, 7U);
  EXPECT_EQ(trees[3].copied_pages, 50U);
  EXPECT_EQ(trees[3].processes, 3U);
  EXPECT_EQ(trees[4].copied_pages, 50U);
  EXPECT_EQ(trees[6].copied_pages, 1000U);
  EXPECT_EQ(trees[6].processes, 2U);
}

}  // namespace
}  // namespace cowshed::cow
