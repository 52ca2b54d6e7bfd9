#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/cow/page_frames.h>
#include <cowshed/cow/process_copies.h>
#include <cowshed/tests/cow/paused_child.h>
#include <cowshed/tests/support/conditions.h>

namespace cowshed::cow {
namespace {

class PageFramesTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 1000;  // two chunks or three

  PageFramesTest()
      : memory_(static_cast<char*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    ::madvise(memory_, kPages * kPageSize, MADV_NOHUGEPAGE);
    std::memset(memory_, 1, kPages / 2 * kPageSize);
  }
  ~PageFramesTest() override { ::munmap(memory_, kPages * kPageSize); }

  std::uint64_t address(std::size_t page) const {
    return reinterpret_cast<std::uintptr_t>(memory_) + page * kPageSize;
  }
  // Pages of the first half that are in the same frame in both.
  std::size_t same(const PageFrames& left, const PageFrames& right) const {
    std::size_t count = 0;
    for (std::size_t page = 0; page < kPages / 2; ++page) {
      count += left.frame(address(page)) == right.frame(address(page)) ? 1U : 0U;
    }
    return count;
  }

  char* memory_;
};

TEST_F(PageFramesTest, KnowsWhatIsThere) {
  (void)*const_cast<volatile char*>(memory_ + (kPages - 1) * kPageSize);  // the zero page
  const auto frames = PageFrames::read(ProcFiles(), ::getpid(), {});
  EXPECT_FALSE(frames.empty());
  EXPECT_TRUE(frames.has(address(0)));
  EXPECT_TRUE(frames.has(address(kPages / 2 - 1)));
  EXPECT_FALSE(frames.has(address(kPages / 2)));
  if (cowshed::test::has_sys_admin()) {
    EXPECT_TRUE(frames.are_known());
    EXPECT_NE(frames.has(address(kPages - 1)), cowshed::test::kernel_maps_zero_page());
    EXPECT_NE(frames.frame(address(0)), frames.frame(address(1)));
  }
}

TEST_F(PageFramesTest, ACopyGoesToAnotherFrame) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to see frames of memory";
  constexpr std::size_t kCopied = 100;
  test::PausedChild child([this] {
    for (std::size_t page = 0; page < kCopied; ++page) {
      static_cast<volatile char*>(memory_)[page * kPageSize] = 2;
    }
  });
  const auto own = PageFrames::read(ProcFiles(), ::getpid(), {});
  const auto before = PageFrames::read(ProcFiles(), child.pid(), own);
  EXPECT_EQ(same(own, before), kPages / 2);
  child.work();
  const auto after = PageFrames::read(ProcFiles(), child.pid(), before);
  EXPECT_EQ(same(before, after), kPages / 2 - kCopied);
  EXPECT_EQ(same(own, PageFrames::read(ProcFiles(), ::getpid(), after)), kPages / 2);
}

TEST(PageFrames, OfNoProcessAreNone) { EXPECT_TRUE(PageFrames::read(ProcFiles(), -1, {}).empty()); }

}  // namespace
}  // namespace cowshed::cow
