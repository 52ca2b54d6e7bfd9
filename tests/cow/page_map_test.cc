#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/page_map.h>
#include <cowshed/tests/cow/paused_child.h>
#include <cowshed/tests/support/conditions.h>

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
  PageRanges filled;
  filled.append({address(3), address(5)});
  filled.append({address(9), address(10)});
  if (!cowshed::test::kernel_maps_zero_page()) filled.append({address(20), address(21)});
  EXPECT_EQ(found->ranges(), filled.ranges());
  EXPECT_EQ(pages->exclusive_pages(*found)->bytes(), filled.bytes());
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
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to see which page is where";
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

// So that PAGEMAP_SCAN is not there, as before Linux 6.7.
void refuse_scans() {
  constexpr auto kNumber = static_cast<std::uint32_t>(offsetof(seccomp_data, nr));
  constexpr auto kRequest = static_cast<std::uint32_t>(offsetof(seccomp_data, args[1]));
  std::array<sock_filter, 6> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kRequest),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, _IOWR('f', 16, char[96]), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program{code.size(), code.data()};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) ::_exit(1);
}

TEST_F(PageMapTest, WithAndWithoutScansTheAnswerIsTheSame) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to tell the zero page without a scan";
  for (const std::size_t page : {0U, 1U, 2U, 5U, 8U, 9U, 20U, 21U, 40U, 63U}) {
    memory_[page * kPage] = 1;
  }
  for (const std::size_t page : {3U, 10U, 11U, 22U, 62U}) {  // the shared zero page
    volatile char sink = memory_[page * kPage];
    (void)sink;
  }
  constexpr std::size_t kHuge = 2UL << 20;
  auto* huge = static_cast<char*>(
      ::mmap(nullptr, 3 * kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ::madvise(huge, 3 * kHuge, MADV_HUGEPAGE);
  std::memset(huge, 1, 3 * kHuge);
  test::PausedChild child([&] {
    for (const std::size_t page : {1U, 8U, 40U}) memory_[page * kPage] = 2;
    memory_[50 * kPage] = 1;
    huge[kHuge] = 2;
  });
  child.work();
  const auto ranges_of = [&](pid_t pid) {
    std::vector<std::array<std::uint64_t, 3>> result;
    auto pages = PageMap::open(ProcFiles(), pid);
    Mapping mappings[] = {mapping(), mapping()};
    mappings[1].begin = reinterpret_cast<std::uintptr_t>(huge);
    mappings[1].end = mappings[1].begin + 3 * kHuge;
    for (const Mapping& each : mappings) {
      const auto all = pages->anonymous_pages_by_owner(each);
      const auto resident = pages->anonymous_pages(each);
      for (const PageRange& range : all->own.ranges())
        result.push_back({0, range.begin, range.end});
      for (const PageRange& range : all->shared.ranges()) {
        result.push_back({1, range.begin, range.end});
      }
      for (const PageRange& range : resident->ranges()) {
        result.push_back({2, range.begin, range.end});
      }
      if (!(unite(all->own, all->shared) == *resident)) result.push_back({3, 0, 0});
    }
    return result;
  };
  const auto here = ranges_of(child.pid());
  EXPECT_GE(here.size(), 10U);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t other = ::fork();
  if (other == 0) {
    refuse_scans();
    const auto there = ranges_of(child.pid());
    const std::size_t bytes = there.size() * sizeof there[0];
    ::_exit(::write(pipe[1], there.data(), bytes) == static_cast<ssize_t>(bytes) ? 0 : 1);
  }
  ::close(pipe[1]);
  std::vector<std::array<std::uint64_t, 3>> there;
  for (std::array<std::uint64_t, 3> range; ::read(pipe[0], &range, sizeof range) > 0;) {
    there.push_back(range);
  }
  ::close(pipe[0]);
  int status = 0;
  ASSERT_EQ(::waitpid(other, &status, 0), other);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(here, there);
  ::munmap(huge, 3 * kHuge);
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
