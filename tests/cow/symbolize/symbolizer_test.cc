#include <malloc.h>

#include <cowshed/cow/code_reader/local_code_reader.h>
#include <cowshed/cow/symbolize/symbolizer.h>
#include <cowshed/cow/symbolize/syscall_names.h>
#include <cowshed/probes/samples.h>
#include <cowshed/tests/support/memory_map.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

std::vector<Frame> stack_of(const std::string& function) {
  return {{function, "/src/" + function + ".cc", 12, "/bin/program", 0x1234, false}};
}

TEST(SystemCallName, OfA32BitProgramIsThatOfItsOwnNumbers) {
  EXPECT_EQ(system_call_name(SYS_close), "close");
#ifdef __x86_64__
  EXPECT_EQ(system_call_name(kSystemCallsOf32Bits + 3), "read");
#endif
}

TEST(Symbolizer, TheSameFramesAreShared) {
  Symbolizer symbols;
  const Frames first = symbols.shared(stack_of("fill"));
  const Frames second = symbols.shared(stack_of("fill"));
  EXPECT_EQ(&first.all(), &second.all());
  EXPECT_EQ(first.all(), stack_of("fill"));
  const Frames other = symbols.shared(stack_of("drain"));
  EXPECT_NE(&first.all(), &other.all());
  EXPECT_TRUE(first != other);
}

TEST(Symbolizer, SharedFramesAreKeptForAsLongAsSomebodyHasThem) {
  constexpr int kStacks = 1000;
  Symbolizer symbols;
  const Frames kept = symbols.shared(stack_of("kept"));
  std::vector<Frames> all;
  for (int i = 0; i < kStacks; ++i) all.push_back(symbols.shared(stack_of(std::to_string(i))));
  const Frames last = all.back();
  EXPECT_FALSE(last.is_only());
  all.clear();
  for (int i = 0; i < kStacks; ++i) symbols.shared(stack_of("passing " + std::to_string(i)));
  EXPECT_EQ(&symbols.shared(stack_of("kept")).all(), &kept.all());
  EXPECT_EQ(&symbols.shared(stack_of(std::to_string(kStacks - 1))).all(), &last.all());
}

// The sanitizers' allocators count nothing here.
TEST(Symbolizer, SharedFramesThatNobodyHasAreForgotten) {
  constexpr int kStacks = 10'000;
  constexpr std::size_t kMostBytes = 1 << 20;  // all of them would be three times as much
  Symbolizer symbols;
  const std::size_t before = ::mallinfo2().uordblks;
  for (int i = 0; i < kStacks; ++i) symbols.shared(stack_of(std::to_string(i)));
  EXPECT_LT(::mallinfo2().uordblks, before + kMostBytes);
}

// Of a file that this process maps, in KiB.
std::size_t resident_of(const std::string& path) {
  std::size_t sum = 0;
  for (const auto& [begin, end, permissions, inode, name] : cowshed::test::all_mappings())
    if (name.ends_with(path))
      sum += cowshed::test::smaps_kib("Rss", reinterpret_cast<const void*>(begin), end - begin);
  return sum;
}

TEST(Symbolizer, DebugInformationThatHasBeenReadIsNotKeptInMemory) {
  LocalCodeReader reader([](auto, auto, const auto&) {
    return FileDescriptor(::open(SITE_SUBJECT, O_RDONLY | O_CLOEXEC));
  });
  const auto extent = reader.add_binary(1, SITE_SUBJECT);
  ASSERT_TRUE(extent);
  reader.frames(1, extent->begin + 0x1000);
  EXPECT_GT(resident_of(SITE_SUBJECT), 0U);
  reader.forget_names(1);
  EXPECT_EQ(resident_of(SITE_SUBJECT), 0U);
}

}  // namespace
}  // namespace cowshed::cow
