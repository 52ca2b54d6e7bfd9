#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/page_diff.h>
#include <cowshed/cow/page_map.h>

namespace cowshed::cow {
namespace {

using Page = std::array<std::byte, kPageSize>;

TEST(PageComparison, OfNothing) {
  const CopyDiff diff = PageComparison().result();
  EXPECT_EQ(diff.compared_pages, 0U);
  EXPECT_EQ(diff.changed_ratio(), std::nullopt);
}

TEST(PageComparison, CopiedAndUnchanged) {
  PageComparison comparison;
  comparison.add(Page{}, Page{});
  const CopyDiff diff = comparison.result();
  EXPECT_EQ(diff.compared_pages, 1U);
  EXPECT_EQ(diff.unchanged_pages, 1U);
  EXPECT_EQ(diff.changed_bytes, 0U);
  EXPECT_EQ(diff.changed_ratio(), 0.0);
}

// As counts of references change: the lowest byte of a word, one in each object.
TEST(PageComparison, ByteOfAWordInEveryObject) {
  PageComparison comparison;
  Page changed{};
  for (std::size_t at = 48; at < kPageSize; at += 64) changed.at(at) = std::byte{1};
  comparison.add(changed, Page{});
  const CopyDiff diff = comparison.result();
  EXPECT_EQ(diff.changed_bytes, 64U);
  EXPECT_EQ(diff.changes, 64U);
  EXPECT_EQ(diff.width_bytes, 8U);
  EXPECT_EQ(diff.changes_of_width, 64U);
  EXPECT_EQ(diff.stride_bytes, 64U);
  EXPECT_EQ(diff.changes_at_stride, 63U);
  EXPECT_EQ(diff.unchanged_pages, 0U);
}

TEST(PageComparison, AdjacentWordsAreOneChange) {
  PageComparison comparison;
  Page changed{};
  for (std::size_t i = 0; i < 24; ++i) changed.at(i) = std::byte{1};
  for (std::size_t i = kPageSize - 16; i < kPageSize; ++i) changed.at(i) = std::byte{1};
  comparison.add(changed, Page{});
  const CopyDiff diff = comparison.result();
  EXPECT_EQ(diff.changes, 2U);
  EXPECT_EQ(diff.changed_bytes, 40U);
  EXPECT_EQ(diff.width_bytes, 16U);
  EXPECT_EQ(diff.stride_bytes, kPageSize - 16);
}

TEST(PageComparison, AWholePage) {
  PageComparison comparison;
  Page changed;
  changed.fill(std::byte{7});
  comparison.add(changed, Page{});
  EXPECT_EQ(comparison.result().changed_ratio(), 1.0);
  EXPECT_EQ(comparison.result().width_bytes, kPageSize);
  EXPECT_EQ(comparison.result().stride_bytes, 0U);
}

// A child that has run `act` and waits to be killed.
class Child {
 public:
  explicit Child(const std::function<void()>& act) {
    std::array<int, 2> done{};
    if (::pipe(done.data()) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      act();
      if (::write(done[1], "", 1) == 1) ::pause();
      ::_exit(0);
    }
    char byte = 0;
    EXPECT_EQ(::read(done[0], &byte, 1), 1);
    ::close(done[0]);
    ::close(done[1]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// What comparing says.
Expected<CopyDiff> compared(const ProcFiles& proc, pid_t pid, const PageRanges& copied,
                            const std::vector<pid_t>& others, const PageFrames& originals = {}) {
  return compare_copied_pages(proc, pid, copied, others, originals)
      .map([](const PageComparison& comparison) { return comparison.result(); });
}

class CompareCopiedPages : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 200;

  CompareCopiedPages()
      : memory_(static_cast<char*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    ::madvise(memory_, kPages * kPageSize, MADV_NOHUGEPAGE);
    std::memset(memory_, 1, kPages * kPageSize);
  }
  ~CompareCopiedPages() override { ::munmap(memory_, kPages * kPageSize); }

  void write(std::size_t pages, char value) {
    for (std::size_t page = 0; page < pages; ++page) {
      *static_cast<volatile char*>(memory_ + page * kPageSize + 16) = value;
    }
  }
  PageRanges pages(std::size_t count) const {
    PageRanges ranges;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory_);
    ranges.append({begin, begin + count * kPageSize});
    return ranges;
  }
  std::size_t exclusive(pid_t pid) const {
    auto map = PageMap::open(ProcFiles(), pid);
    const auto found = map->exclusive_pages(pages(kPages));
    return found ? found->bytes() / kPageSize : kPages + 1;
  }

  char* memory_;
};

TEST_F(CompareCopiedPages, WithTheParentWhoIsLeftAloneWithTheOriginals) {
  const Child child([&] { write(100, 2); });
  const auto diff = compared(ProcFiles(), child.pid(), pages(100), {::getpid()});
  ASSERT_TRUE(diff) << diff.error().message;
  EXPECT_EQ(diff->compared_pages, 100U);
  EXPECT_EQ(diff->alone_pages, 100U);
  EXPECT_EQ(diff->changed_bytes, 100U);
  EXPECT_EQ(diff->changes, 100U);
  EXPECT_EQ(diff->width_bytes, 8U);
  EXPECT_EQ(diff->unchanged_pages, 0U);
  EXPECT_GT(diff->cost_ns, 0U);
}

TEST_F(CompareCopiedPages, ASiblingThatSharesTheOriginalIsBelievedBeforeAParentThatHasWritten) {
  const Child sharer([] {});
  const Child witness([] {});
  const Child child([&] { write(100, 2); });
  write(100, 3);  // the parent's own copies
  const auto diff = compared(ProcFiles(), child.pid(), pages(100), {::getpid(), sharer.pid()});
  ASSERT_TRUE(diff) << diff.error().message;
  EXPECT_EQ(diff->compared_pages, 100U);
  EXPECT_EQ(diff->alone_pages, 0U);
  EXPECT_EQ(diff->changed_bytes, 100U);
}

TEST_F(CompareCopiedPages, WhatWasWrittenBackIsCopiedAndUnchanged) {
  const Child child([&] {
    write(100, 2);
    write(60, 1);
  });
  const auto diff = compared(ProcFiles(), child.pid(), pages(100), {::getpid()});
  ASSERT_TRUE(diff) << diff.error().message;
  EXPECT_EQ(diff->unchanged_pages, 60U);
  EXPECT_EQ(diff->changed_bytes, 40U);
}

TEST_F(CompareCopiedPages, WhatNobodyHasAnyMoreIsNotCompared) {
  const Child child([&] { write(100, 2); });
  ::madvise(memory_, 30 * kPageSize, MADV_DONTNEED);
  auto diff = compared(ProcFiles(), child.pid(), pages(100), {::getpid()});
  ASSERT_TRUE(diff) << diff.error().message;
  EXPECT_EQ(diff->not_compared_pages, 30U);
  EXPECT_EQ(diff->compared_pages, 70U);
  diff = compared(ProcFiles(), child.pid(), pages(100), {});
  ASSERT_TRUE(diff) << diff.error().message;
  EXPECT_EQ(diff->not_compared_pages, 100U);
}

// Neither what is shared, nor what is not there, is other than before.
TEST_F(CompareCopiedPages, ComparingCopiesNothingAndFaultsNothingIn) {
  const Child sharer([] {});
  const Child child([&] {
    write(50, 2);
    ::madvise(memory_ + 150 * kPageSize, 50 * kPageSize, MADV_DONTNEED);
  });
  const auto resident = [&](pid_t pid) {
    auto map = PageMap::open(ProcFiles(), pid);
    Mapping mapping;
    mapping.begin = pages(kPages).ranges()[0].begin;
    mapping.end = pages(kPages).ranges()[0].end;
    return map->anonymous_pages(mapping)->bytes() / kPageSize;
  };
  for (int i = 0; i < 3; ++i) {
    const auto diff = compared(ProcFiles(), child.pid(), pages(kPages), {sharer.pid(), ::getpid()});
    ASSERT_TRUE(diff) << diff.error().message;
    EXPECT_EQ(diff->compared_pages, 150U);
    EXPECT_EQ(diff->not_compared_pages, 50U);
    EXPECT_EQ(diff->changed_bytes, 50U);
  }
  EXPECT_EQ(exclusive(child.pid()), 50U);
  EXPECT_EQ(exclusive(sharer.pid()), 0U);
  EXPECT_EQ(exclusive(::getpid()), 0U);
  EXPECT_EQ(resident(child.pid()), 150U);
  EXPECT_EQ(resident(sharer.pid()), kPages);
}

TEST_F(CompareCopiedPages, AnEndedProcessIsAnError) {
  pid_t pid = 0;
  {
    const Child child([] {});
    pid = child.pid();
  }
  const auto diff = compared(ProcFiles(), pid, pages(1), {::getpid()});
  ASSERT_FALSE(diff);
  EXPECT_EQ(diff.error().code, ErrorCode::no_such_process);
}

}  // namespace
}  // namespace cowshed::cow
