#include <fmt/format.h>

#include <cowshed/cow/backends/tree_memory.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/cow/proc/fake_proc.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kKiB = 1024;

class TreeMemoryTest : public FakeProc {
 protected:
  void write_process(pid_t pid, int pss_kib, int page_table_kib, int anonymous_kib = 0,
                     int shared_kib = 0, int most_kib = 0) const {
    const std::string folder = std::to_string(pid) + "/";
    write(folder + "smaps_rollup",
          fmt::format("0-1 ---p 0 00:00 0 [rollup]\nRss:  9 kB\nPss:  {0} kB\nPss_Anon:  {0} kB\n",
                      pss_kib));
    const int resident_kib = anonymous_kib + shared_kib;
    write(folder + "status",
          fmt::format("Name:\tx\nVmHWM:\t   {} kB\nVmRSS:\t   {} kB\nRssAnon:\t   {} kB\n"
                      "RssShmem:\t   {} kB\nVmPTE:\t   {} kB\nThreads:\t1\n",
                      std::max(most_kib, resident_kib), resident_kib, anonymous_kib, shared_kib,
                      page_table_kib));
  }
  static TreeProcess counted(pid_t pid, std::uint64_t copied_kib, std::uint64_t filled_kib = 0,
                             bool alive = true) {
    return {static_cast<std::uint64_t>(pid), pid, alive, copied_kib * kKiB, filled_kib * kKiB};
  }
  static TreeProcess not_counted(pid_t pid) {
    return {.id = static_cast<std::uint64_t>(pid), .pid = pid};
  }
  static TreeProcess ended(pid_t pid, std::uint64_t copied_kib) {
    return counted(pid, copied_kib, 0, false);
  }
  // Process 7 with 100 KiB, sampled once.
  void begin(std::uint64_t filled_kib = 0) {
    write_process(7, 100, 8, 100);
    meter.sample(proc(), {counted(7, 0, filled_kib)});
  }
  // Samples until it is as large, which takes 400 times as long as the last reading.
  void sample_until(std::uint64_t pss_kib, const std::vector<TreeProcess>& tree) {
    for (int i = 0; meter.memory()->pss_bytes != pss_kib * kKiB && i < 6000; ++i) {
      ::usleep(10'000);
      meter.sample(proc(), tree);
    }
    EXPECT_EQ(meter.memory()->pss_bytes, pss_kib * kKiB);
  }

  TreeMemoryMeter meter = [] {
    TreeMemoryMeter with_time;
    with_time.begin();
    return with_time;
  }();
};

TEST_F(TreeMemoryTest, IsTheSumOverTheProcesses) {
  write_process(7, 100, 8);
  write_process(8, 50, 4);
  meter.sample(proc(), {not_counted(7), not_counted(8), not_counted(9)});
  EXPECT_EQ(meter.memory(), (TreeMemory{150 << 10, 150 << 10, 12 << 10, 2, 0}));
}

// What the heap of a settled parent is: its copies have replaced a half, nobody has read the other
// yet, and a file is only open.
TEST_F(TreeMemoryTest, HoldsWhatMemfdsHoldThatNobodyMaps) {
  constexpr std::size_t kBytes = 16 << 20;
  meter.sample(ProcFiles(), {not_counted(::getpid())});
  const TreeMemory before = *meter.memory();
  const auto make = [&] {
    FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_EQ(::fallocate(file.get(), 0, 0, kBytes), 0);
    return file;
  };
  const FileDescriptor open = make();
  char* heap = static_cast<char*>(
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, make().get(), 0));
  ASSERT_NE(heap, MAP_FAILED);
  std::fill_n(heap, kBytes / 2, 'x');
  const test::PausedChild child([] {});
  for (const bool is_read : {false, true}) {
    if (is_read) (void)*static_cast<volatile char*>(heap + kBytes / 2);
    meter.make_due();
    meter.sample(ProcFiles(), {not_counted(::getpid()), not_counted(child.pid())});
    const TreeMemory& now = *meter.memory();
    EXPECT_GE(now.shared_memory_bytes, 2 * kBytes);  // in a guest the program itself lies in tmpfs
    EXPECT_LT(now.shared_memory_bytes, before.shared_memory_bytes + 3 * kBytes) << "each file once";
  }
  ::munmap(heap, kBytes);
}

TEST_F(TreeMemoryTest, WithoutTimeATreeIsReadInTurns) {
  constexpr pid_t kProcesses = 20;
  std::vector<TreeProcess> tree;
  for (pid_t pid = 1; pid <= kProcesses; ++pid) {
    write_process(pid, 100, 8);
    tree.push_back(not_counted(pid));
  }
  TreeMemoryMeter frugal;
  int samples = 0;
  for (; !frugal.memory() && samples < 60'000; ++samples) {
    frugal.sample(proc(), tree);
    ::usleep(1000);
  }
  EXPECT_EQ(frugal.memory(), (TreeMemory{2000 << 10, 2000 << 10, 160 << 10, kProcesses, 0}));
  EXPECT_GT(samples, 1);
  frugal = {};
  frugal.make_due();
  frugal.sample(proc(), tree);
  EXPECT_TRUE(frugal.memory()) << "it is wanted";
}

TEST_F(TreeMemoryTest, ANewProcessIsReadBeforeTheTreeIsDueAgain) {
  write_process(7, 100, 8);
  write_process(8, 50, 4);
  std::optional<PssSample> pss;
  TreeProcess next = counted(8, 0);
  next.pss = &pss;
  meter.sample(proc(), {counted(7, 0)});
  meter.sample(proc(), {counted(7, 0), next});
  ASSERT_TRUE(pss);
  EXPECT_EQ(pss->pss_bytes, 50 * kKiB);
  EXPECT_EQ(pss->page_table_bytes, 4 * kKiB);
  EXPECT_EQ(meter.memory()->pss_bytes, 100 * kKiB) << "the sum is of an earlier tree";
}

TEST_F(TreeMemoryTest, EachProcessHasItsOwnPeakAndItsLastPss) {
  std::optional<PssSample> last;
  std::optional<MemoryPeak> first;
  std::optional<MemoryPeak> second;
  const auto sample = [&](int first_kib, int second_kib) {
    write_process(7, first_kib, 8);
    write_process(8, second_kib, 8);
    TreeProcess one = not_counted(7);
    TreeProcess other = not_counted(8);
    one.peak = &first;
    one.pss = &last;
    other.peak = &second;
    meter.make_due();
    meter.sample(proc(), {one, other});
  };
  sample(100, 50);
  ASSERT_TRUE(first && second);
  const std::uint64_t then_ns = first->sampled_ns;
  sample(80, 70);
  EXPECT_EQ(*first, (MemoryPeak{100 * kKiB, then_ns}));
  ASSERT_TRUE(last);
  EXPECT_EQ(last->pss_bytes, 80 * kKiB);
  EXPECT_EQ(last->page_table_bytes, 8 * kKiB);
  EXPECT_GT(last->sampled_ns, then_ns);
  EXPECT_EQ(second->pss_bytes, 70 * kKiB);
  EXPECT_GT(second->sampled_ns, then_ns);
}

TEST_F(TreeMemoryTest, ThePeakStays) {
  write_process(7, 100, 8);
  meter.sample(proc(), {not_counted(7)});
  write_process(7, 40, 4);
  sample_until(40, {not_counted(7)});
  EXPECT_EQ(meter.memory(), (TreeMemory{40 << 10, 100 << 10, 8 << 10, 1, 0}));
}

TEST_F(TreeMemoryTest, IsReadAgainAtOnceWhenItMayExceedItsPeak) {
  begin();
  write_process(7, 200, 8, 100);
  meter.sample(proc(), {counted(7, 9)});
  EXPECT_EQ(meter.memory()->pss_bytes, 100 * kKiB);
  meter.sample(proc(), {counted(7, 11)});
  EXPECT_EQ(meter.memory()->pss_bytes, 200 * kKiB);
  write_process(7, 300, 8, 150);
  meter.sample(proc(), {counted(7, 11, 1)});
  EXPECT_EQ(meter.memory()->pss_bytes, 300 * kKiB);
}

TEST_F(TreeMemoryTest, WhatIsGivenBackAgainIsNoGrowth) {
  begin(100);
  write_process(7, 200, 8, 100);
  meter.sample(proc(), {counted(7, 0, 1000)});
  EXPECT_EQ(meter.memory()->pss_bytes, 100 * kKiB);
}

TEST_F(TreeMemoryTest, IsReadWhenItNoLongerGrows) {
  write_process(7, 1000, 8);
  meter.sample(proc(), {counted(7, 0)});
  write_process(7, 1020, 8);
  meter.sample(proc(), {counted(7, 20)});
  EXPECT_EQ(meter.memory()->pss_bytes, 1000 * kKiB);
  sample_until(1020, {counted(7, 20)});
}

TEST_F(TreeMemoryTest, OfWhatEndsUnreadThePeakIsARange) {
  write_process(7, 100, 8, 100);
  write_process(8, 100, 8, 100);
  meter.sample(proc(), {counted(7, 0), counted(8, 0)});
  meter.sample(proc(), {counted(7, 5), counted(8, 0)});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 205 * kKiB);
  meter.sample(proc(), {counted(7, 10), ended(8, 20)});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 230 * kKiB);
  meter.sample(proc(), {ended(7, 15), ended(8, 20)});
  EXPECT_EQ(meter.memory()->peak_pss_bytes, 200 * kKiB);
  EXPECT_EQ(meter.memory()->most_peak_bytes, 230 * kKiB);
}

TEST_F(TreeMemoryTest, WhatWasGivenBackUnreadMakesTheRange) {
  begin();
  write_process(7, 100, 8, 100, 0, 160);
  meter.sample(proc(), {counted(7, 0, 1)});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 160 * kKiB);
}

// The parent's memory is halved then, and the other half is in no sum.
TEST_F(TreeMemoryTest, AForkWhileItIsReadIsNoticed) {
  TreeProcess child = counted(8, 32);
  child.parent_id = 7;
  child.forked_ns = monotonic_ns();
  write_process(7, 64, 8, 128);
  meter.sample(proc(), {counted(7, 0)});
  child.got_at_fork_bytes = 128 * kKiB;
  write_process(8, 96, 8, 128);
  meter.sample(proc(), {counted(7, 0), child});
  EXPECT_EQ(meter.memory()->pss_bytes, 160 * kKiB) << "so it was due";
  EXPECT_EQ(meter.memory()->most_peak_bytes, 160 * kKiB);
  child.copied_bytes = 40 * kKiB;
  meter.sample(proc(), {counted(7, 0), child});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 168 * kKiB) << "the sum has it now";
}

TEST_F(TreeMemoryTest, SharedMemoryIsOfTheProcessThatTouchedItFirst) {
  write_process(7, 100, 8, 100);
  write_process(8, 100, 8, 100);
  meter.sample(proc(), {counted(7, 0), counted(8, 0)});
  write_process(7, 140, 8, 100, 80);
  write_process(8, 140, 8, 100, 80);
  meter.sample(proc(), {counted(7, 0, 80), counted(8, 0, 1)});
  EXPECT_EQ(meter.memory()->pss_bytes, 280 * kKiB) << "so it was due";
  EXPECT_EQ(meter.memory()->most_peak_bytes, 281 * kKiB);
}

TEST_F(TreeMemoryTest, OfShortLivesThoseAtTheSameTimeAdd) {
  begin();
  const auto lived = [](pid_t pid, std::uint64_t from, std::uint64_t to) {
    TreeProcess process = counted(pid, 10, 20, false);
    process.start_ns = from;
    process.end_ns = to;
    return process;
  };
  const std::vector<TreeProcess> tree = {counted(7, 0), lived(8, 1, 3), lived(9, 2, 5),
                                         lived(10, 4, 6)};
  meter.sample(proc(), tree);
  meter.sample(proc(), tree);
  EXPECT_EQ(meter.memory()->most_peak_bytes, 160 * kKiB);
}

TEST_F(TreeMemoryTest, NoneHeldMoreThanTheKernelSaysAtItsEnd) {
  begin();
  TreeProcess process = counted(7, 5, 900, false);
  process.most_resident_bytes = 130 * kKiB;
  meter.sample(proc(), {process});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 135 * kKiB);
}

TEST_F(TreeMemoryTest, WhatNoFaultMadeIsGrowth) {
  begin();
  TreeProcess child = counted(8, 0, 1, false);
  child.got_bytes = 90 * kKiB;
  child.most_resident_bytes = 250 * kKiB;
  meter.sample(proc(), {counted(7, 0), child});
  EXPECT_EQ(meter.memory()->most_peak_bytes, (100 + 250 - 90) * kKiB);
}

TEST_F(TreeMemoryTest, SharedMemoryThatIsReplacedIsGrowth) {
  begin();
  TreeProcess process = counted(7, 0, 90);
  process.risen_bytes = 20 * kKiB;
  write_process(7, 120, 8, 70);
  meter.sample(proc(), {process});
  EXPECT_EQ(meter.memory()->pss_bytes, 120 * kKiB) << "so it was due";
}

TEST_F(TreeMemoryTest, AnExecBeginsAnew) {
  write_process(7, 100, 8, 100, 0, 500);
  meter.sample(proc(), {counted(7, 0, 100)});
  TreeProcess process = counted(7, 0, 120);
  process.execs = 1;
  process.got_bytes = 0;
  write_process(7, 20, 8, 20, 0, 30);
  meter.sample(proc(), {process});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 130 * kKiB);
}

// Its PSS is read through a pipe here, which is written to once it has grown.
TEST_F(TreeMemoryTest, WhatItGetsWhileItIsReadIsInTheUpperBound) {
  write_process(7, 50, 0, 50);
  const std::string rollup = root_ / "7/smaps_rollup";
  std::filesystem::remove(rollup);
  ASSERT_EQ(::mkfifo(rollup.c_str(), 0600), 0);
  std::thread grows([&] {
    const FileDescriptor pipe(::open(rollup.c_str(), O_WRONLY | O_CLOEXEC));
    std::filesystem::rename(root_ / "7", root_ / "before");
    write_process(7, 90, 0, 90);
    const std::string_view then = "0-1 ---p 0 00:00 0 [rollup]\nRss:  9 kB\nPss:  50 kB\n";
    EXPECT_EQ(::write(pipe.get(), then.data(), then.size()), then.size());
  });
  meter.sample(proc(), {counted(7, 0)});
  grows.join();
  meter.sample(proc(), {counted(7, 0, 40)});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 90 * kKiB);
}

TEST_F(TreeMemoryTest, HeldWhatAChildGotAtItsFork) {
  begin();
  TreeProcess process = counted(7, 0);
  process.least_peak_bytes = 300 * kKiB;
  meter.sample(proc(), {process});
  EXPECT_EQ(meter.memory()->peak_pss_bytes, 300 * kKiB);
}

TEST_F(TreeMemoryTest, WithoutTimeToReadItsResidentMemoryOnlyCountsTell) {
  constexpr pid_t kProcesses = 40;
  std::vector<TreeProcess> tree;
  for (pid_t pid = 1; pid <= kProcesses; ++pid) {
    write_process(pid, 10, 8, 10'000);
    tree.push_back(counted(pid, 1, 2));
  }
  TreeMemoryMeter frugal;
  frugal.make_due();
  frugal.sample(proc(), tree);
  for (int i = 0; i < 100; ++i) {
    ::usleep(1000);
    frugal.sample(proc(), tree);
  }
  EXPECT_LE(frugal.memory()->most_peak_bytes, (10 + 3) * kProcesses * kKiB);
}

TEST_F(TreeMemoryTest, FaultsAreOfNewMemoryToo) {
  write_process(7, 100, 8, 100);
  TreeProcess process = counted(7, 100);
  process.are_all_faults = true;
  meter.sample(proc(), {process});
  write_process(7, 108, 8, 108);
  process.copied_bytes = 108 * kKiB;
  meter.sample(proc(), {process});
  process.alive = false;
  meter.sample(proc(), {process});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 108 * kKiB);
}

TEST_F(TreeMemoryTest, WhatAChildGotAtItsForkIsNoGrowth) {
  begin(100);
  write_process(8, 50, 8, 102);
  meter.sample(proc(), {counted(7, 0, 100), counted(8, 0, 2)});
  meter.sample(proc(), {counted(7, 0, 100), counted(8, 3, 2, false)});
  EXPECT_EQ(meter.memory()->most_peak_bytes, 105 * kKiB);
}

TEST_F(TreeMemoryTest, WithoutAProcessThatCanBeReadItIsNotKnown) {
  meter.sample(proc(), {});
  meter.sample(proc(), {not_counted(7)});
  EXPECT_FALSE(meter.memory());
}

}  // namespace
}  // namespace cowshed::cow
