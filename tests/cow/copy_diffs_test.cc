#include <array>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/pagemap_backend.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kPages = 100;

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
  void end() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }

 private:
  [[noreturn]] void run() {
    char byte = 0;
    while (::read(to_[0], &byte, 1) == 1) {
      for (std::size_t page = 0; page < kPages; ++page) memory_[page * kPageSize + 32] = 2;
      if (::write(from_[1], &byte, 1) != 1) break;
    }
    ::_exit(0);
  }

  char* memory_;
  std::array<int, 2> to_{};
  std::array<int, 2> from_{};
  pid_t pid_ = 0;
};

std::optional<CopyDiff> diff_of(const CopyDiffs& diffs, pid_t pid, std::uint64_t start_ns) {
  Measurement measurement;
  ProcessCopies& process = measurement.processes.emplace_back();
  process.pid = pid;
  process.start_ns = start_ns;
  diffs.add_to(measurement);
  return measurement.processes[0].diff;
}

std::uint64_t start_ns_of(pid_t pid) {
  constexpr std::uint64_t kTickNs = 10'000'000;
  return ProcFiles().stat(pid)->start_ticks * kTickNs;
}

TEST(CopyDiffs, ComparesWhatAChildCopiedSinceItWasFirstSeen) {
  Writer writer;
  const pid_t pid = writer.pid();
  const std::uint64_t start = start_ns_of(pid);
  CopyDiffs diffs(::getpid());
  diffs.sample();
  // Its stack and what the C library keeps.
  const auto at_start = diff_of(diffs, pid, start);
  ASSERT_TRUE(at_start);
  writer.write();
  diffs.compare(pid);
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

TEST(CopyDiffs, TheRootHasNone) {
  Writer writer;
  CopyDiffs diffs(::getpid());
  diffs.sample();
  diffs.compare(::getpid());
  EXPECT_FALSE(diff_of(diffs, ::getpid(), start_ns_of(::getpid())));
}

TEST(CopyDiffs, OfNoProcessIsNothing) {
  CopyDiffs diffs(-1);
  diffs.sample();
  diffs.compare(-1);
  Measurement measurement;
  diffs.add_to(measurement);
  EXPECT_TRUE(measurement.processes.empty());
}

}  // namespace
}  // namespace cowshed::cow
