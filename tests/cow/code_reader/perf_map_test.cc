#include <cowshed/cow/code_reader/perf_map.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

TEST(PerfMap, NamesWhatLiesInside) {
  const auto map = PerfMap::parse(
      "7f00 10 py::first:/a b.py\n"
      "0x7f10 0x20 py::second:/b.py\n"
      "8000 10 renamed\n"
      "8000 8 newer");
  EXPECT_EQ(map.function(0x7eff), "");
  EXPECT_EQ(map.function(0x7f00), "py::first:/a b.py");
  EXPECT_EQ(map.function(0x7f0f), "py::first:/a b.py");
  EXPECT_EQ(map.function(0x7f2f), "py::second:/b.py");
  EXPECT_EQ(map.function(0x7f30), "");
  EXPECT_EQ(map.function(0x8000), "newer");
  EXPECT_EQ(map.function(0x8008), "");
}

TEST(PerfMap, WhatIsNoLineIsLeftOut) {
  const auto map =
      PerfMap::parse("\nzzz 10 x\n7f00\n7f00 10\n7f00 10 \n 7f00 10 y\n9000 10 good\n9");
  EXPECT_EQ(map.function(0x7f00), "");
  EXPECT_EQ(map.function(0x9000), "good");
}

TEST(PerfMap, IsReadFromTheBeginning) {
  const int fd = ::memfd_create("perf-map", MFD_CLOEXEC);
  ASSERT_EQ(::write(fd, "7f00 10 x\n", 10), 10);
  EXPECT_EQ(PerfMap::read(fd).function(0x7f00), "x");
  ::close(fd);
  EXPECT_EQ(PerfMap::read(fd).function(0x7f00), "") << "no file, no names";
}

TEST(PerfMap, LongNamesAreCutOff) {
  EXPECT_EQ(PerfMap::parse("7f00 10 " + std::string(100'000, 'x')).function(0x7f00).size(), 1024U);
}

}  // namespace
}  // namespace cowshed::cow
