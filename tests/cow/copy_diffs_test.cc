#include <array>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/page_map.h>
#include <cowshed/cow/pagemap_backend.h>
#include <cowshed/tests/support/conditions.h>

namespace cowshed::cow {
namespace {

// Many against what the test program, its sanitizer and the C library write beside it.
constexpr std::size_t kPages = 4000;

// A child that writes to pages that it shares when it is told to, and waits again.
class Writer {
 public:
  Writer() {
    memory_ = static_cast<char*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(memory_, kPages * kPageSize, MADV_NOHUGEPAGE);
    std::memset(memory_, 1, kPages * kPageSize);
    if (::pipe(to_.data()) != 0 || ::pipe(from_.data()) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) run();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    end();
    for (const int fd : {to_[0], to_[1], from_[0], from_[1]}) ::close(fd);
    ::munmap(memory_, kPages * kPageSize);
  }

  pid_t pid() const { return pid_; }
  void write() {
    char byte = 0;
    EXPECT_EQ(::write(to_[1], &byte, 1), 1);
    EXPECT_EQ(::read(from_[0], &byte, 1), 1);
  }
  void write_here() const { write_all(); }
  // How many pages; a few stay that another CPU is about to put on its lists.
  std::uint64_t swap_out() const {
    Mapping mapping;
    mapping.begin = reinterpret_cast<std::uintptr_t>(memory_);
    mapping.end = mapping.begin + kPages * kPageSize;
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    const iovec all = {memory_, kPages * kPageSize};
    EXPECT_GE(::process_madvise(pidfd, &all, 1, MADV_PAGEOUT, 0), 0);
    ::close(pidfd);
    return PageMap::open(ProcFiles(), pid_)->swapped_pages(mapping)->bytes() / kPageSize;
  }
  void end() {
    if (has_ended_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    has_ended_ = true;
  }

 private:
  void write_all() const {
    for (std::size_t page = 0; page < kPages; ++page) memory_[page * kPageSize + 32] = 2;
  }
  [[noreturn]] void run() {
    char byte = 0;
    while (::read(to_[0], &byte, 1) == 1) {
      write_all();
      if (::write(from_[1], &byte, 1) != 1) break;
    }
    ::_exit(0);
  }

  char* memory_;
  std::array<int, 2> to_{};
  std::array<int, 2> from_{};
  pid_t pid_ = 0;
  bool has_ended_ = false;
};

std::optional<CopyDiff> diff_of(const CopyDiffs& diffs, pid_t pid, std::uint64_t start_ticks) {
  Measurement measurement;
  ProcessCopies& process = measurement.processes.emplace_back();
  process.pid = pid;
  process.start_ticks = start_ticks;
  diffs.add_to(measurement);
  return measurement.processes[0].diff;
}

std::uint64_t start_of(pid_t pid) { return ProcFiles().stat(pid)->start_ticks; }

TEST(CopyDiffs, ComparesWhatAChildCopiedSinceItWasFirstSeen) {
  Writer writer;
  const pid_t pid = writer.pid();
  const std::uint64_t start = start_of(pid);
  CopyDiffs diffs(::getpid());
  diffs.sample();
  // Its stack and what the C library keeps.
  const auto at_start = diff_of(diffs, pid, start);
  ASSERT_TRUE(at_start);
  writer.write();
  diffs.compare_alive();
  auto diff = diff_of(diffs, pid, start);
  ASSERT_TRUE(diff);
  EXPECT_GE(diff->compared_pages, at_start->compared_pages + kPages);
  EXPECT_LE(diff->compared_pages,
            at_start->compared_pages + 3 * kPages);  // a sanitizer has its own
  EXPECT_GE(diff->changes, kPages);
  EXPECT_EQ(diff->width_bytes, 8U);

  // What has ended keeps its last comparison; another process of the same number has none.
  writer.end();
  diffs.sample();
  diff = diff_of(diffs, pid, start);
  ASSERT_TRUE(diff);
  EXPECT_GE(diff->compared_pages, kPages);
  EXPECT_FALSE(diff_of(diffs, pid, start + 1'000'000'000));
}

TEST(CopyDiffs, TheRootHasNoneWithoutAChild) {
  CopyDiffs diffs(::getpid());
  diffs.sample();
  diffs.compare_alive();
  EXPECT_FALSE(diff_of(diffs, ::getpid(), start_of(::getpid())));
}

// Who wrote first is known by the frames, and they to root.
TEST(CopyDiffs, AParentsOwnCopiesAreItsOwn) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to see frames of memory";
  Writer first;
  Writer second;
  CopyDiffs diffs(::getpid());
  diffs.sample();
  first.write_here();
  diffs.compare_alive();
  const auto parents = [&] {
    return diff_of(diffs, ::getpid(), start_of(::getpid())).value_or(CopyDiff());
  };
  const auto childs = [&] { return diff_of(diffs, first.pid(), start_of(first.pid())); };
  EXPECT_GE(parents().compared_pages, kPages);
  EXPECT_LE(parents().compared_pages, 4 * kPages);  // a sanitizer has its own
  EXPECT_GE(parents().changes, kPages);
  EXPECT_LT(childs()->compared_pages, kPages / 2) << "it has the originals";

  // The last that has the originals exits: what is known of the parent stays.
  first.end();
  diffs.ended(first.pid());
  second.end();
  diffs.ended(second.pid());
  EXPECT_GE(parents().compared_pages, kPages);
}

TEST(CopyDiffs, AFollowedProcessIsComparedOnlyAtItsExit) {
  Writer writer;
  const pid_t pid = writer.pid();
  const std::uint64_t start = start_of(pid);
  CopyDiffs diffs(::getpid());
  diffs.started(pid, ::getpid());
  writer.write();
  diffs.sample();
  EXPECT_FALSE(diff_of(diffs, pid, start));
  diffs.exiting(pid, pid);
  const auto diff = diff_of(diffs, pid, start);
  ASSERT_TRUE(diff);
  EXPECT_EQ(diff->taken, CopyDiff::Taken::at_exit);
  EXPECT_GE(diff->compared_pages, kPages);
  EXPECT_GE(diff->changed_bytes, kPages);
}

TEST(CopyDiffs, WhoExecutesAnotherProgramSharesNothingAnyMore) {
  Writer writer;
  const pid_t pid = writer.pid();
  CopyDiffs diffs(::getpid());
  diffs.started(pid, ::getpid());
  writer.write();
  diffs.executed(pid);
  diffs.exiting(pid, pid);
  EXPECT_FALSE(diff_of(diffs, pid, start_of(pid)));
}

// Which copy it was nobody can say any more, but that it was one.
TEST(CopyDiffs, ACopyThatIsSwappedOutIsNotCompared) {
  if (!cowshed::test::has_sys_admin())
    GTEST_SKIP() << "needs CAP_SYS_ADMIN, to see frames of memory";
  const cowshed::test::Conditions swap(cowshed::test::Needs::swap, 0);
  if (!swap.missing().empty()) GTEST_SKIP() << swap.missing();
  Writer writer;
  CopyDiffs diffs(::getpid());
  diffs.sample();
  writer.write();
  const std::uint64_t swapped = writer.swap_out();
  EXPECT_GE(swapped, kPages / 2);
  diffs.compare_alive();
  const auto diff = diff_of(diffs, writer.pid(), start_of(writer.pid()));
  ASSERT_TRUE(diff);
  EXPECT_EQ(diff->not_compared_pages, swapped);
}

TEST(CopyDiffs, OfNoProcessIsNothing) {
  CopyDiffs diffs(-1);
  diffs.sample();
  diffs.compare_alive();
  Measurement measurement;
  diffs.add_to(measurement);
  EXPECT_TRUE(measurement.processes.empty());
  EXPECT_EQ(measurement.diffs, CopyDiff::Taken::at_interval);
}

}  // namespace
}  // namespace cowshed::cow
