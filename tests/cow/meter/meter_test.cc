#include <cowshed/base/size_literals.h>
#include <cowshed/cow/gtest_matchers.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/failure.h>
#include <cowshed/tests/support/scale.h>

namespace cowshed::cow {
namespace {

using cowshed::test::kSanitized;
using test::measured_child;
using test::PausedChild;

class MeterTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 64;
  static constexpr std::size_t kBytes = kPages * kPageSize;

  MeterTest() {
    memory_ = map(kBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    ::madvise(memory_, kBytes, MADV_NOHUGEPAGE);
    std::memset(memory_, 1, kBytes);
  }
  ~MeterTest() override { ::munmap(memory_, kBytes); }

  static char* map(std::size_t bytes, int flags, int fd) {
    return static_cast<char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0));
  }
  static void write_to(char* memory, std::size_t from, std::size_t to) {
    for (std::size_t page = from; page < to; ++page) memory[page * kPageSize] += 1;
  }
  // What was copied of the test's own memory, which nothing but the test writes to.
  MeterResult here(const Meter& meter) const {
    return meter.copied().value().within(memory_, kBytes);
  }
  PageRange pages(std::size_t from, std::size_t to) const {
    const auto begin = reinterpret_cast<std::uintptr_t>(memory_);
    return {begin + from * kPageSize, begin + to * kPageSize};
  }

  char* memory_;
};

void expect_sums(const MeterResult& copied) {
  std::uint64_t shared_then = 0;
  for (const CopiedMapping& mapping : copied.mappings)
    if (!mapping.has_file || !mapping.arena.empty()) shared_then += mapping.pages.bytes();
  // Of files that are no arena's, some copied pages were shared by fork: the heads of libraries.
  EXPECT_LE(
      shared_then + copied.left_alone.bytes() + copied.still_shared_bytes + copied.dropped_bytes,
      copied.shared_at_begin_bytes);
  EXPECT_GE(
      copied.bytes() + copied.left_alone.bytes() + copied.still_shared_bytes + copied.dropped_bytes,
      copied.shared_at_begin_bytes);
}

TEST_F(MeterTest, AChildsCopiesToThePage) {
  const Meter meter = measured_child([&] {
    write_to(memory_, 3, 10);
    write_to(memory_, 20, 23);
  });
  const MeterResult copied = here(meter);
  ASSERT_EQ(copied.mappings.size(), 1U) << to_text(copied);
  EXPECT_EQ(copied.mappings[0].pages.ranges(),
            (std::vector<PageRange>{pages(3, 10), pages(20, 23)}));
  EXPECT_EQ(copied.bytes(), 40_KiB);
  EXPECT_EQ(copied.at_most_bytes(), 40_KiB);
  EXPECT_THAT(copied, AtMost(40_KiB));
  EXPECT_THAT(copied, Not(AtMost(36_KiB)));
  EXPECT_GE(meter.copied()->still_shared_bytes, 54 * kPageSize);
  EXPECT_THAT(meter.copied()->unknown, IsEmpty());
  expect_sums(*meter.copied());
}

TEST_F(MeterTest, AnotherProcessIsOnlyLookedAt) {
  PausedChild child([] {});
  Meter meter = Meter::begin(child.pid()).value();
  ASSERT_TRUE(meter.end());
  ASSERT_TRUE(meter.end());
  EXPECT_EQ(here(meter).bytes(), 0U);
  EXPECT_EQ(meter.copied()->own_faults, 0U);
}

// In a forked worker that shares everything, whose heap malloc would copy.
TEST_F(MeterTest, MeasuringOneselfCopiesNothing) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own memory is shared, too";
  const auto result = map(kPageSize, MAP_SHARED | MAP_ANONYMOUS, -1);
  std::vector<std::unique_ptr<std::string>> small(5000);  // a heap to be copied
  for (auto& each : small) each = std::make_unique<std::string>(40, 'x');
  PausedChild child([&] {
    auto meter = Meter::begin();
    if (meter && meter->end())
      std::snprintf(result, kPageSize, "%s", to_text(*meter->copied()).c_str());
  });
  child.work();
  EXPECT_THAT(std::string(result), StartsWith("0 KiB copied by PID"));
  ::munmap(result, kPageSize);
}

TEST_F(MeterTest, OnesOwnCopies) {
  auto* const bytes =
      reinterpret_cast<std::uint64_t*>(map(kPageSize, MAP_SHARED | MAP_ANONYMOUS, -1));
  PausedChild child([&] {
    auto meter = Meter::begin();
    write_to(memory_, 5, 12);
    if (!meter->end()) return;
    bytes[0] = here(*meter).bytes();
    bytes[1] = meter->copied()->bytes();
  });
  child.work();
  EXPECT_EQ(bytes[0], 28_KiB);
  if (!kSanitized) EXPECT_LE(bytes[1], 36_KiB);  // and of the stack
  ::munmap(bytes, kPageSize);
}

TEST_F(MeterTest, TheParentsCopiesWhileAChildShares) {
  PausedChild child([] {});
  Meter meter = Meter::begin().value();
  write_to(memory_, 0, 5);
  ASSERT_TRUE(meter.end());
  EXPECT_EQ(here(meter).bytes(), 20_KiB);
  EXPECT_EQ(here(meter).at_least_bytes(), 20_KiB);  // the child has not run
  expect_sums(*meter.copied());
}

TEST_F(MeterTest, WhoOfTheTwoHasCopiedIsGivenAsBounds) {
  PausedChild child([&] { write_to(memory_, 0, 5); });
  Meter meter = Meter::begin().value();
  child.work();
  ASSERT_TRUE(meter.end());
  EXPECT_EQ(here(meter).bytes(), 20_KiB);
  EXPECT_EQ(here(meter).at_least_bytes(), 0U);
  EXPECT_THAT(to_text(here(meter)), HasSubstr("who shared the rest may have copied it"));
}

TEST_F(MeterTest, APrivateFileThatWasNeverReadIsExact) {
  std::FILE* file = std::tmpfile();
  ASSERT_EQ(::ftruncate(::fileno(file), static_cast<off_t>(kBytes)), 0);
  char* mapped = map(kBytes, MAP_PRIVATE, ::fileno(file));
  mapped[0] = 1;
  const Meter meter = measured_child([&] { write_to(mapped, 0, 9); });
  const MeterResult copied = meter.copied()->within(mapped, kBytes);
  EXPECT_EQ(copied.bytes(), 36_KiB);
  ASSERT_EQ(copied.mappings.size(), 1U);
  EXPECT_TRUE(copied.mappings[0].has_file);
  EXPECT_THAT(copied.mappings[0].name, HasSubstr("(deleted)"));
  ::munmap(mapped, kBytes);
  std::fclose(file);
}

TEST_F(MeterTest, FirstTouchIsNoCopy) {
  char* fresh = map(kBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  const Meter meter = measured_child([&] { std::memset(fresh, 1, kBytes); });
  EXPECT_EQ(meter.copied()->within(fresh, kBytes).bytes(), 0U);
  ::munmap(fresh, kBytes);
}

TEST_F(MeterTest, AnEndedChildIsAnErrorAndMatchesNothing) {
  PausedChild child([] {});
  Meter meter = Meter::begin(child.pid()).value();
  const pid_t pid = child.pid();
  child.end();
  const Error error = failure_of(meter.end());
  EXPECT_EQ(error.code, ErrorCode::no_such_process);
  EXPECT_THAT(error.message, HasSubstr("PID " + std::to_string(pid) + ": has ended"));
  ::testing::StringMatchResultListener listener;
  EXPECT_FALSE(::testing::ExplainMatchResult(AtMost(1_GiB), meter.copied(), &listener));
  EXPECT_THAT(listener.str(), HasSubstr("could not be measured: PID"));
  EXPECT_FALSE(Meter::begin(pid));
}

TEST_F(MeterTest, AChildThatExecutesIsAnError) {
  const cowshed::test::Child child([](const cowshed::test::Line& test) {
    test.hear();
    return ::execl("/bin/sleep", "sleep", "60", nullptr);
  });
  Meter meter = Meter::begin(child.pid()).value();
  child.say();
  while (ProcFiles().stat(child.pid())->comm != "sleep") ::usleep(1000);
  EXPECT_FALSE(meter.end());
}

TEST_F(MeterTest, BeforeItsEndThereIsNothing) {
  const Meter meter = Meter::begin().value();
  EXPECT_EQ(meter.copied().error().code, ErrorCode::invalid_argument);
}

TEST_F(MeterTest, AChildNeedsItsOwn) {
  Meter meter = Meter::begin().value();
  cowshed::test::Child child(
      [&] { return failure_of(meter.end()).code == ErrorCode::invalid_argument ? 0 : 1; });
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(MeterTest, AForkInTheRegionIsShown) {
  Meter meter = Meter::begin().value();
  PausedChild child([] {});
  ASSERT_TRUE(meter.end());
  EXPECT_EQ(here(meter).bytes(), 0U);
  EXPECT_GE(meter.copied()->newly_shared_bytes, kBytes);
}

TEST_F(MeterTest, CopiesBeforeAForkInTheRegionAreWithinTheBounds) {
  PausedChild sharer([] {});
  Meter meter = Meter::begin().value();
  write_to(memory_, 0, 5);
  PausedChild child([] {});
  ASSERT_TRUE(meter.end());
  const MeterResult copied = here(meter);
  EXPECT_EQ(copied.bytes(), 0U) << "the child shares the copies";
  EXPECT_GE(copied.at_most_bytes(), 20_KiB);
  EXPECT_THAT(to_text(copied), HasSubstr("a fork may have shared"));
}

TEST_F(MeterTest, WhatIsUnmappedOrMovedIsDropped) {
  char* to = map(kBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  const Meter meter = measured_child([&] {
    ::munmap(memory_, 8 * kPageSize);
    ::madvise(memory_ + 8 * kPageSize, 8 * kPageSize, MADV_DONTNEED);
    (void)::mremap(memory_ + 16 * kPageSize, 8 * kPageSize, 8 * kPageSize,
                   MREMAP_MAYMOVE | MREMAP_FIXED, to);
    write_to(to, 0, 8);
  });
  EXPECT_EQ(here(meter).bytes(), 0U);
  EXPECT_EQ(meter.copied()->within(to, kBytes).bytes(), 0U);
  EXPECT_GE(meter.copied()->dropped_bytes, 24 * kPageSize);
  expect_sums(*meter.copied());
  ::munmap(to, kBytes);
}

// Another mapping at the same address is not the one that was shared.
TEST_F(MeterTest, AFileInTheirPlaceIsNoCopy) {
  std::FILE* file = std::tmpfile();
  ASSERT_EQ(::ftruncate(::fileno(file), static_cast<off_t>(kBytes)), 0);
  const Meter meter = measured_child([&] {
    (void)::mmap(memory_, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, ::fileno(file),
                 0);
    write_to(memory_, 0, kPages);
  });
  EXPECT_EQ(here(meter).bytes(), 0U);
  EXPECT_GE(meter.copied()->dropped_bytes, kBytes);
  std::fclose(file);
}

// Alone with a page is not a copy; but one may have been made before the other ended.
TEST_F(MeterTest, WhatTheOthersLeaveIsBoundedByItsOwnFaults) {
  auto other = std::make_unique<PausedChild>([] {});
  Meter meter = Meter::begin().value();
  write_to(memory_, 0, 5);
  other.reset();
  ASSERT_TRUE(meter.end());
  const MeterResult copied = here(meter);
  EXPECT_EQ(copied.bytes(), 0U);
  EXPECT_EQ(copied.left_alone.bytes(), kBytes);
  EXPECT_GE(copied.at_most_bytes(), 20_KiB);
  EXPECT_THAT(copied, Not(AtMost(16_KiB)));
  EXPECT_THAT(copied.unknown, Contains(HasSubstr("1 of the 1 processes")));
}

TEST_F(MeterTest, OfASharedHugePageOnlyWhatTheKernelCopies) {
  constexpr std::size_t kHuge = 2_MiB;
  char* raw = map(2 * kHuge, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  char* huge = raw + (kHuge - reinterpret_cast<std::uintptr_t>(raw) % kHuge) % kHuge;
  ::madvise(huge, kHuge, MADV_HUGEPAGE);
  std::memset(huge, 1, kHuge);
  const Meter meter = measured_child([&] { huge[kPageSize] = 2; });
  EXPECT_EQ(meter.copied()->within(huge, kHuge).bytes(), kPageSize);
  ::munmap(raw, 2 * kHuge);
}

TEST_F(MeterTest, SomebodyElsesProcessIsAnError) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const pid_t parent = ::getpid();
  EXPECT_EQ(test::as_nobody(
                [parent] { return std::string(to_string(failure_of(Meter::begin(parent)).code)); }),
            "permission_denied");
}

}  // namespace
}  // namespace cowshed::cow
