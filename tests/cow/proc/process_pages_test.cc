#include <sys/ioctl.h>

#include <cowshed/cow/proc/process_pages.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/conditions.h>
#include <cowshed/tests/support/refusals.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kPage = arch::kPage;

class ProcessPagesTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 64;

  ProcessPagesTest() {
    memory_ = static_cast<char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(memory_, kPages * kPage, MADV_NOHUGEPAGE);
  }
  ~ProcessPagesTest() override { ::munmap(memory_, kPages * kPage); }

  std::uint64_t address(std::size_t page) const {
    return reinterpret_cast<std::uintptr_t>(memory_) + page * kPage;
  }
  Mapping mapping() const { return {.begin = address(0), .end = address(kPages), .path = {}}; }

  char* memory_;
};

TEST_F(ProcessPagesTest, FindsWrittenPagesButNotZeroPagesNorHoles) {
  for (const std::size_t page : {3U, 4U, 9U}) memory_[page * kPage] = 1;
  volatile char sink = memory_[20 * kPage];  // the shared zero page
  (void)sink;
  ProcessPages pages = ProcessPages::open(ProcFiles(), ::getpid()).value();
  PageRanges filled;
  filled.append({address(3), address(5)});
  filled.append({address(9), address(10)});
  if (!cowshed::test::kernel_maps_zero_page()) filled.append({address(20), address(21)});
  EXPECT_EQ(pages.anonymous_pages(mapping()).value().ranges(), filled.ranges());
  EXPECT_EQ(pages.anonymous_pages_by_owner(mapping())->own.bytes(), filled.bytes());
}

TEST_F(ProcessPagesTest, SharedWithAChildIsNotItsOwnUntilOneOfThemWrites) {
  std::memset(memory_, 1, kPages * kPage);
  test::PausedChild child([&] {
    for (std::size_t page = 0; page < 10; ++page) memory_[page * kPage] = 2;
  });
  child.work();
  ProcessPages pages = ProcessPages::open(ProcFiles(), child.pid()).value();
  const auto found = pages.anonymous_pages_by_owner(mapping()).value();
  EXPECT_EQ(found.own.bytes(), 10 * kPage);
  EXPECT_EQ(found.shared.bytes(), (kPages - 10) * kPage);
}

// The child's own copies are its own also while a grandchild shares them.
TEST_F(ProcessPagesTest, ACopyThatAGrandchildSharesIsTheChilds) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to see which page is where";
  std::memset(memory_, 1, 10 * kPage);
  Mapping file = mapping();
  file.inode = 1;
  test::PausedChild child([&] {
    for (std::size_t page = 0; page < 4; ++page) memory_[page * kPage] = 2;
    const pid_t parent = ::getpid();
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (::getppid() == parent) ::pause();
      ::_exit(0);
    }
  });
  child.work();
  ProcessPages own = ProcessPages::open(ProcFiles(), ::getpid()).value();
  ProcessPages childs = ProcessPages::open(ProcFiles(), child.pid()).value();
  const auto inherited = own.anonymous_pages(file).value();
  ASSERT_EQ(inherited.bytes(), 10 * kPage);
  const auto here = childs.anonymous_pages_by_owner(file).value();
  EXPECT_EQ(childs.copied_pages(file, here, inherited, inherited, nullptr)->bytes(), 0U);
  EXPECT_EQ(childs.copied_pages(file, here, inherited, inherited, &own)->ranges(),
            (std::vector<PageRange>{{address(0), address(4)}}));
}

TEST_F(ProcessPagesTest, WithAndWithoutScansTheAnswerIsTheSame) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to tell the zero page without a scan";
  for (const std::size_t page : {0U, 1U, 2U, 5U, 8U, 9U, 20U, 21U, 40U, 63U})
    memory_[page * kPage] = 1;
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
    std::ostringstream text;
    auto pages = ProcessPages::open(ProcFiles(), pid);
    Mapping mappings[] = {mapping(), mapping()};
    mappings[1].begin = reinterpret_cast<std::uintptr_t>(huge);
    mappings[1].end = mappings[1].begin + 3 * kHuge;
    for (const Mapping& each : mappings) {
      const auto all = pages->anonymous_pages_by_owner(each);
      const auto resident = pages->anonymous_pages(each);
      if (!(unite(all->own, all->shared) == *resident)) text << "not the sum\n";
      for (const PageRanges* ranges : {&all->own, &all->shared, &*resident}) {
        text << "ranges:\n";
        for (const PageRange& range : ranges->ranges())
          text << range.begin << '-' << range.end << '\n';
      }
    }
    return text.str();
  };
  const std::string here = ranges_of(child.pid());
  EXPECT_THAT(here, Not(HasSubstr("not the sum")));
  EXPECT_GE(std::ranges::count(here, '-'), 10);
  const auto there = cowshed::test::run_in_child([&] {
    constexpr std::size_t kBytes = 96;  // of struct pm_scan_arg, which Debian 12's headers lack
    cowshed::test::refuse_request(_IOC(_IOC_READ | _IOC_WRITE, 'f', 16, kBytes));
    return ranges_of(child.pid());
  });
  EXPECT_EQ(there.said, here);
  ::munmap(huge, 3 * kHuge);
}

TEST_F(ProcessPagesTest, AnEndedProcessHasNothing) {
  const cowshed::test::Child child([] { return 0; });
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT), 0);
  auto pages = ProcessPages::open(ProcFiles(), child.pid());
  if (pages) {
    EXPECT_TRUE(pages->anonymous_pages(mapping()).value().empty());
    EXPECT_TRUE(pages->is_gone());
  }
}

}  // namespace
}  // namespace cowshed::cow
