#include <cowshed/tests/support/conditions.h>

#include "subject.h"

// Which copies are sampled, with what, and that nothing else changes by it.

namespace cowshed::test {
namespace {

constexpr std::uint64_t kPageBytes = arch::kPage;

struct SampledRun {
  SubjectRun subject;
  std::vector<CopySample> samples;  // of the measured process
  std::vector<CopySample> fresh;    // new memory, of it and of the others
  SampleCounts counts;
};

class Samples : public NeedsProbes {
 protected:
  static SampledRun run(const SamplingOptions& sampling, const std::string& kind, long n) {
    Probe probe = Probe::load(sampling).value();
    SampledRun run;
    std::vector<CopySample> all;
    const auto take = [&] {
      const auto some = probe.take_samples().value();
      all.insert(all.end(), some.begin(), some.end());
    };
    run.subject = run_subject(probe, kind, n, [&](const Snapshot&) { take(); });
    take();
    const auto is_fresh = [](const CopySample& s) { return s.copy_class == CopyClass::fresh; };
    std::ranges::copy_if(all, std::back_inserter(run.fresh), is_fresh);
    std::erase_if(all, is_fresh);
    run.counts = probe.sample_counts().value();
    std::copy_if(all.begin(), all.end(), std::back_inserter(run.samples),
                 [&](const CopySample& s) { return s.process_id == run.subject.measured.id; });
    EXPECT_EQ(run.counts.received, all.size());
    EXPECT_EQ(run.counts.received + run.counts.lost, run.counts.emitted);
    return run;
  }

  static std::uint64_t copies(const SampledRun& run) {
    std::uint64_t pages = 0;
    for (const ProcessCounts& process : run.subject.processes) pages += process.copied_pages();
    return pages;
  }
};

// Those before the command's exec are not its own.
TEST_F(Samples, WithPeriod1EveryCopyIsASample) {
  const SampledRun all = run({.period = 1}, "anon_copied", 1000);
  EXPECT_EQ(all.counts.emitted, copies(all));
  EXPECT_EQ(all.counts.lost, 0U);
  const ProcessCounts& measured = all.subject.measured;
  ASSERT_THAT(all.samples, SizeIs(measured.copied_pages()));
  EXPECT_GT(measured.first_copy_ns, measured.start_ns);
  EXPECT_LT(measured.first_copy_ns, measured.end_ns);
  // The subject writes to its pages in order, in one loop.
  const auto at = std::ranges::find_if(all.samples, [&](const CopySample& s) {
    return std::ranges::count_if(all.samples, [&](const CopySample& other) {
             return other[Register::rip] == s[Register::rip];
           }) >= 1000;
  });
  ASSERT_NE(at, all.samples.end());
  ASSERT_GE(all.samples.end() - at, 1000);
  for (int i = 0; i < 1000; ++i) {
    const CopySample& sample = *(at + i);
    EXPECT_EQ(sample.address, at->address + static_cast<std::uint64_t>(i) * kPageBytes);
    EXPECT_EQ(sample[Register::rip], (*at)[Register::rip]);
    EXPECT_EQ(sample[Register::rsp], (*at)[Register::rsp]);
    EXPECT_EQ(sample.pid, all.subject.measured.pid);
    EXPECT_EQ(sample.execs, 0U);
    EXPECT_TRUE(sample.user_mode);
    EXPECT_FALSE(sample.system_call);
    EXPECT_EQ(sample.copy_class, CopyClass::anonymous);
    EXPECT_EQ(sample.instruction_bytes, 16U);
    EXPECT_EQ(sample.instruction[0], 0xc6) << "movb $1, (...)";
    EXPECT_FALSE(sample.stack.empty());
    EXPECT_EQ(sample.around.word(sample.address), 1) << "as the parent left it";
    EXPECT_TRUE(sample.around.word(sample.address + 64));
    EXPECT_FALSE(sample.around.word(sample.address - 64)) << "of the page before";
  }
}

// The subject is a child of the command, forked and not executed.
TEST_F(Samples, NewMemoryIsSampledBesideCopies) {
  for (const char* kind : {"first_touch", "zero_page_write", "huge_first_touch"}) {
    const SampledRun run = Samples::run({.period = 1}, kind, 2);
    const ProcessCounts& measured = run.subject.measured;
    std::uint64_t pages = 0;
    for (const CopySample& each : run.fresh)
      if (each.process_id == measured.id) pages += each.copies;
    EXPECT_EQ(pages, measured.zero_filled_pages.value() + measured.zero_page_writes.value())
        << kind;
    EXPECT_EQ(run.counts.emitted, copies(run)) << kind;
  }
}

TEST_F(Samples, AnAccessThatFailsHasItsReason) {
  const std::vector<std::pair<std::string, AccessFailure>> reasons = {
      {"not_inherited", AccessFailure::not_inherited},
      {"closed_to_writes", AccessFailure::read_only},
      {"closed_to_all", AccessFailure::no_access},
      {"beyond_memory_file", AccessFailure::no_page},
      {"guarded", AccessFailure::no_access},
  };
  for (const auto& [kind, reason] : reasons) {
    if (kind == "guarded" && kernel_is_before(6, 13)) continue;  // it has no guard pages
    SCOPED_TRACE(kind);
    const SampledRun failed = run({.period = 64}, kind, 1);
    const auto found =
        std::ranges::find(failed.samples, CopyClass::failed, &CopySample::copy_class);
    ASSERT_NE(found, failed.samples.end());
    EXPECT_EQ(found->failure, reason);
  }
}

TEST_F(Samples, OneOfEachBlockOfAPeriod) {
  constexpr std::uint32_t kPeriod = 10;
  const SampledRun some = run({.period = kPeriod}, "anon_copied", 5000);
  const std::uint64_t pages = some.subject.measured.copied_pages();
  EXPECT_GE(some.samples.size(), pages / kPeriod);
  EXPECT_LE(some.samples.size(), pages / kPeriod + 1);
  // Not always the same one of ten.
  std::set<std::uint64_t> places;
  for (const CopySample& sample : some.samples)
    places.insert(sample.address / kPageBytes % kPeriod);
  EXPECT_THAT(places, SizeIs(kPeriod));
}

std::uint64_t stand_for(const std::vector<CopySample>& samples) {
  std::uint64_t copies = 0;
  for (const CopySample& sample : samples) copies += sample.copies;
  return copies;
}

TEST_F(Samples, MuchIsSampledLessAndNoLessCounted) {
  // 8 samples each of blocks of 4, 8, 16, 32, 64 and 128 copies are 2016; then come blocks of 256.
  const SampledRun some =
      run({.period = 4, .samples_of_period = 8, .samples_per_second = 1}, "anon_copied", 8000);
  const std::uint64_t pages = some.subject.measured.copied_pages();
  const auto cpus = static_cast<std::uint64_t>(::sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_LE(some.samples.size(), 48 + (pages - 2016) / 256 + cpus);
  EXPECT_NEAR(static_cast<double>(stand_for(some.samples)), static_cast<double>(pages),
              static_cast<double>(cpus * 256));
}

// A burst keeps the reader from the CPU, or lasts less than it waits.
TEST_F(Samples, ABufferThatNobodyEmptiesLosesNone) {
  Probe probe =
      Probe::load({.period = 1, .samples_of_period = 1 << 20, .buffer_bytes = 1 << 20}).value();
  const SubjectRun subject = run_subject(probe, "anon_copied", 20'000);
  const auto samples = probe.take_samples().value();
  EXPECT_EQ(probe.sample_counts()->lost, 0U);
  EXPECT_GE(stand_for(samples), subject.measured.copied_pages() * 9 / 10);
}

TEST_F(Samples, TheStackIsCutAtItsEndOrAtTheLimit) {
  const SampledRun cut = run({.period = 1, .stack_bytes = 256}, "anon_copied", 10);
  for (const CopySample& sample : cut.samples) EXPECT_THAT(sample.stack, SizeIs(256));
  const SampledRun whole = run({.period = 1, .stack_bytes = 1 << 20}, "anon_copied", 10);
  for (const CopySample& sample : whole.samples) {
    EXPECT_GT(sample.stack.size(), 256U);
    EXPECT_LE(sample.stack.size(), 16384U);
    // The subject's stack is small: its end is what cut it.
    if (sample.stack.size() < 16384U)
      EXPECT_EQ((sample[Register::rsp] + sample.stack.size()) % kPageBytes, 0U);
  }
}

TEST_F(Samples, NewMemoryOfAReadNamesTheDescriptor) {
  const SampledRun all = run({.period = 1}, "read_anew", 8);
  std::map<std::pair<std::uint64_t, Descriptor>, std::uint64_t> pages;
  for (const CopySample& each : all.fresh)
    if (each.process_id == all.subject.measured.id && each.descriptor != Descriptor::none)
      pages[{each.system_call.value(), each.descriptor}] += each.copies;
  EXPECT_EQ(pages, (decltype(pages){{{SYS_read, Descriptor::stream}, 8},
                                    {{SYS_readv, Descriptor::stream}, 8},
                                    {{SYS_pread64, Descriptor::file}, 8},
                                    {{SYS_preadv, Descriptor::other}, 8}}));
}

// The probe reads what is at the address, which faults within the program's own fault.
TEST_F(Samples, AFaultOfTheProbeItselfIsNotTheProcesss) {
  const Conditions conditions(Needs::reserved_pages, 20);
  if (!conditions.missing().empty()) GTEST_SKIP() << conditions.missing();
  const SampledRun all = run({.period = 1}, "reserved_kernel_copied", 20);
  EXPECT_EQ(all.subject.measured.copied_hugetlb_pages, 20U * 512);
  EXPECT_EQ(all.subject.losses.lost(), 0U);
}

TEST_F(Samples, ACopyOfAnArenaNamesIt) {
  const SampledRun all = run({.period = 1}, "arena_copied", 300);
  EXPECT_EQ(std::ranges::count_if(all.samples,
                                  [](const CopySample& sample) {
                                    return sample.arena == "truth" &&
                                           sample.copy_class == CopyClass::file;
                                  }),
            300);
}

}  // namespace
}  // namespace cowshed::test
