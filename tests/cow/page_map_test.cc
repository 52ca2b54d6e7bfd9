#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/page_map.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kPage = 4096;

class PageMapTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 64;

  PageMapTest() {
    memory_ = static_cast<char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(memory_, kPages * kPage, MADV_NOHUGEPAGE);
  }
  ~PageMapTest() override { ::munmap(memory_, kPages * kPage); }

  std::uint64_t address(std::size_t page) const {
    return reinterpret_cast<std::uintptr_t>(memory_) + page * kPage;
  }
  Mapping mapping() const {
    Mapping mapping;
    mapping.begin = address(0);
    mapping.end = address(kPages);
    return mapping;
  }

  char* memory_;
};

TEST_F(PageMapTest, FindsWrittenPagesButNotZeroPagesNorHoles) {
  memory_[3 * kPage] = 1;
  memory_[4 * kPage] = 1;
  memory_[9 * kPage] = 1;
  volatile char sink = memory_[20 * kPage];  // the shared zero page
  (void)sink;
  auto pages = PageMap::open(ProcFiles(), ::getpid());
  ASSERT_TRUE(pages);
  const auto found = pages->anonymous_pages(mapping());
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->ranges(),
            (std::vector<PageRange>{{address(3), address(5)}, {address(9), address(10)}}));
  EXPECT_EQ(pages->exclusive_pages(*found)->bytes(), 3 * kPage);
}

TEST_F(PageMapTest, SharedWithAChildIsNotExclusiveUntilOneOfThemWrites) {
  std::memset(memory_, 1, kPages * kPage);
  int done[2];
  int quit[2];
  ASSERT_EQ(::pipe(done), 0);
  ASSERT_EQ(::pipe(quit), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(quit[1]);
    for (std::size_t page = 0; page < 10; ++page) memory_[page * kPage] = 2;
    char byte = 0;
    ::_exit(::write(done[1], &byte, 1) == 1 && ::read(quit[0], &byte, 1) == 0 ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(done[0], &byte, 1), 1);
  auto pages = PageMap::open(ProcFiles(), child);
  ASSERT_TRUE(pages);
  const auto found = pages->anonymous_pages(mapping());
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->bytes(), kPages * kPage);
  EXPECT_EQ(pages->exclusive_pages(*found)->bytes(), 10 * kPage);
  for (const int fd : {quit[0], quit[1], done[0], done[1]}) ::close(fd);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// The child's own copies are its own also while a grandchild shares them.
TEST_F(PageMapTest, ACopyThatAGrandchildSharesIsTheChilds) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to see which page is where";
  std::memset(memory_, 1, 10 * kPage);
  Mapping file = mapping();
  file.inode = 1;
  int done[2];
  int quit[2];
  ASSERT_EQ(::pipe(done), 0);
  ASSERT_EQ(::pipe(quit), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(quit[1]);
    for (std::size_t page = 0; page < 4; ++page) memory_[page * kPage] = 2;
    const bool is_grandchild = ::fork() == 0;
    char byte = 0;
    if (is_grandchild && ::write(done[1], &byte, 1) != 1) ::_exit(1);
    const bool quits = ::read(quit[0], &byte, 1) == 0;
    ::_exit(quits && (is_grandchild || ::wait(nullptr) > 0) ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(done[0], &byte, 1), 1);
  auto own = PageMap::open(ProcFiles(), ::getpid());
  auto childs = PageMap::open(ProcFiles(), child);
  ASSERT_TRUE(own && childs);
  const auto inherited = own->anonymous_pages(file);
  ASSERT_EQ(inherited->bytes(), 10 * kPage);
  EXPECT_EQ(childs->copied_pages(file, *inherited, *inherited, nullptr)->bytes(), 0U);
  EXPECT_EQ(childs->copied_pages(file, *inherited, *inherited, &*own)->ranges(),
            (std::vector<PageRange>{{address(0), address(4)}}));
  for (const int fd : {quit[0], quit[1], done[0], done[1]}) ::close(fd);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(PageMapTest, AnEndedProcessHasNothing) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  auto pages = PageMap::open(ProcFiles(), child);
  if (pages) {
    const auto found = pages->anonymous_pages(mapping());
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_TRUE(found->empty());
    EXPECT_TRUE(pages->is_gone());
  }
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace cowshed::cow
