#include <unistd.h>

#include <cowshed/cow/backends/tree_memory.h>
#include <cowshed/tests/cow/proc/fake_proc.h>

namespace cowshed::cow {
namespace {

class TreeMemoryTest : public FakeProc {
 protected:
  void write_process(pid_t pid, int pss_kib, int page_table_kib) const {
    const std::string folder = std::to_string(pid) + "/";
    write(folder + "smaps_rollup",
          "0-1 ---p 0 00:00 0 [rollup]\nRss:  9 kB\nPss:  " + std::to_string(pss_kib) + " kB\n");
    write(folder + "status",
          "Name:\tx\nVmPTE:\t   " + std::to_string(page_table_kib) + " kB\nThreads:\t1\n");
  }
};

TEST_F(TreeMemoryTest, IsTheSumOverTheProcesses) {
  write_process(7, 100, 8);
  write_process(8, 50, 4);
  TreeMemoryMeter meter;
  meter.sample(proc(), {7, 8, 9});
  EXPECT_EQ(meter.memory(), (TreeMemory{150 << 10, 150 << 10, 12 << 10, 2, 0}));
}

TEST_F(TreeMemoryTest, ThePeakStays) {
  write_process(7, 100, 8);
  TreeMemoryMeter meter;
  meter.sample(proc(), {7});
  write_process(7, 40, 4);
  for (int i = 0; meter.memory()->pss_bytes == 100 << 10 && i < 100; ++i) {
    ::usleep(10'000);
    meter.sample(proc(), {7});
  }
  EXPECT_EQ(meter.memory(), (TreeMemory{40 << 10, 100 << 10, 8 << 10, 1, 0}));
}

TEST_F(TreeMemoryTest, IsReadAgainAtOnceWhenItMayExceedItsPeak) {
  write_process(7, 100, 8);
  TreeMemoryMeter meter;
  meter.sample(proc(), {7}, 0);
  write_process(7, 200, 8);
  meter.sample(proc(), {7}, 9 << 10);
  EXPECT_EQ(meter.memory()->pss_bytes, 100U << 10);
  meter.sample(proc(), {7}, 11 << 10);
  EXPECT_EQ(meter.memory()->pss_bytes, 200U << 10);
}

TEST_F(TreeMemoryTest, IsReadWhenItNoLongerGrows) {
  write_process(7, 1000, 8);
  TreeMemoryMeter meter;
  meter.sample(proc(), {7}, 0);
  write_process(7, 1020, 8);
  meter.sample(proc(), {7}, 20 << 10);
  EXPECT_EQ(meter.memory()->pss_bytes, 1000U << 10);
  for (int i = 0; meter.memory()->pss_bytes == 1000 << 10 && i < 200; ++i) {
    ::usleep(10'000);
    meter.sample(proc(), {7}, 20 << 10);
  }
  EXPECT_EQ(meter.memory()->pss_bytes, 1020U << 10);
}

TEST_F(TreeMemoryTest, OfWhatEndsUnreadThePeakIsARange) {
  write_process(7, 100, 8);
  write_process(8, 100, 8);
  TreeMemoryMeter meter;
  meter.sample(proc(), {8, 7}, 0);
  meter.sample(proc(), {7, 8}, 5 << 10);
  EXPECT_EQ(meter.memory()->most_peak_bytes, 0U);
  meter.sample(proc(), {7}, 100 << 10);
  meter.sample(proc(), {}, 120 << 10);
  EXPECT_EQ(meter.memory()->peak_pss_bytes, 200U << 10);
  EXPECT_EQ(meter.memory()->most_peak_bytes, 300U << 10);
}

TEST_F(TreeMemoryTest, IsReadWhenWanted) {
  write_process(7, 100, 8);
  TreeMemoryMeter meter;
  meter.sample(proc(), {7}, 1);
  write_process(7, 50, 8);
  meter.make_due();
  meter.sample(proc(), {7}, 1);
  EXPECT_EQ(meter.memory()->pss_bytes, 50U << 10);
}

TEST_F(TreeMemoryTest, WithoutAProcessThatCanBeReadItIsNotKnown) {
  TreeMemoryMeter meter;
  meter.sample(proc(), {});
  meter.sample(proc(), {7});
  EXPECT_FALSE(meter.memory());
}

}  // namespace
}  // namespace cowshed::cow
