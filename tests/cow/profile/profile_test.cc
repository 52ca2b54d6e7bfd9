#include <cmath>

#include <cowshed/cow/open_backend.h>
#include <cowshed/cow/proc/process_pages.h>
#include <cowshed/tests/cow/backends/measure_command.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/needs_probes.h>

// Who copied, by the lines of programs whose copies are known.

namespace cowshed::cow {
namespace {

using cowshed::test::NeedsProbes;

class CodeSitesOf : public NeedsProbes, public ::testing::WithParamInterface<const char*> {
 protected:
  Measurement run(const std::string& kind, int pages, std::uint32_t period,
                  std::uint32_t buffer_bytes = 64 << 20,  // a busy machine loses none
                  std::uint32_t samples_of_period = 0) {
    const OpenedBackend opened =
        open_backend(BackendChoice::tracepoint, {.period = period,
                                                 .samples_of_period = samples_of_period,
                                                 .buffer_bytes = buffer_bytes})
            .value();
    Measurement measured =
        test::measure_command(*opened.backend, {GetParam(), kind, std::to_string(pages), "stop"});
    EXPECT_TRUE(measured.sampling);
    EXPECT_EQ(measured.sampling->emitted, measured.sampling->received + measured.sampling->lost);
    return measured;
  }

  static const CodeSite& find(const SampledCopies& sampled, const std::string& function) {
    for (const CodeSite& site : sampled.sites)
      if (site.frames.back().function.find(function) != std::string::npos) return site;
    std::string sites;
    for (const CodeSite& site : sampled.sites) sites += "; " + site.frames.back().function;
    throw std::runtime_error("no site " + function + sites);
  }
};

// Exactly so many, but for those that are counted as lost: from Linux 7.0 on, BPF skips programs.
void expect_samples(std::uint64_t samples, std::uint64_t expected, const Measurement& measured,
                    double others = 0) {
  const auto most = static_cast<double>(expected);
  EXPECT_LE(static_cast<double>(samples), most + others);
  EXPECT_GE(static_cast<double>(samples + measured.sampling->lost), most - others);
}

void expect_share(const CodeSite& site, std::uint64_t samples, double share) {
  constexpr double kDeviations = 5;
  const auto all = static_cast<double>(samples);
  EXPECT_NEAR(static_cast<double>(site.samples), all * share,
              kDeviations * std::sqrt(all * share * (1 - share)));
}

// The process's exact number of copies, spread over its samples.
template <class T>
void expect_estimate(const T& of, const ProcessCopies& process) {
  EXPECT_EQ(of.estimated_copies,
            std::llround(static_cast<double>(of.samples * *process.all_copied_pages()) /
                         static_cast<double>(process.sampled->samples)));
}

TEST_P(CodeSitesOf, SharesLinesAndInlinedFrames) {
  constexpr int kPages = 20'000;
  constexpr std::uint32_t kPeriod = 10;  // in step with the subject's loop
  const Measurement measured = run("shares", kPages, kPeriod);
  ASSERT_THAT(measured.processes, SizeIs(2));
  EXPECT_EQ(measured.sampling->period, kPeriod);
  const SampledCopies& child = *measured.processes[1].sampled;
  EXPECT_NEAR(static_cast<double>(child.samples), double{kPages} / kPeriod, 10);
  const CodeSite& often = find(child, "copy_often");
  const CodeSite& sometimes = find(child, "store_inlined");
  const CodeSite& seldom = find(child, "copy_seldom");
  expect_share(often, child.samples, 0.7);
  expect_share(sometimes, child.samples, 0.2);
  expect_share(seldom, child.samples, 0.1);
  expect_estimate(often, measured.processes[1]);
  std::uint64_t copies = 0;
  for (const FoldedStack& stack : child.stacks) copies += stack.estimated_copies;
  EXPECT_EQ(copies, measured.processes[1].all_copied_pages()) << "of all stacks";
  EXPECT_EQ(&child.sites[0], &often) << "most first";

  EXPECT_THAT(often.frames, SizeIs(1));
  EXPECT_EQ(often.frames[0].function, "site_subject::copy_often(char volatile*)");
  EXPECT_THAT(often.frames[0].file, HasSubstr("site_subject.cc"));
  EXPECT_EQ(often.frames[0].line, test::line_of(SITE_SUBJECT, "copy_often"));
  EXPECT_EQ(often.frames[0].module, GetParam());
  EXPECT_THAT(seldom.frames[0].file, HasSubstr("/c++/")) << "the line of a header's template";
  EXPECT_EQ(seldom.frames.back().line, test::line_of(SITE_SUBJECT, "copy_seldom"));
  ASSERT_THAT(sometimes.frames, SizeIs(1));
  EXPECT_TRUE(sometimes.frames[0].inlined);
  EXPECT_EQ(sometimes.frames[0].line, test::line_of(SITE_SUBJECT, "store_inlined"));
  EXPECT_EQ(sometimes.stack[1].line, test::line_of(SITE_SUBJECT, "copy_sometimes"));
  EXPECT_FALSE(sometimes.stack[1].inlined);

  // All the way up.
  const auto has_main = [](const CodeSite& site) {
    return std::ranges::find(site.stack, "main", &Frame::function) != site.stack.end();
  };
  EXPECT_TRUE(has_main(often));
  EXPECT_TRUE(has_main(sometimes));
}

TEST_P(CodeSitesOf, TheKernelsCopyIsTheSystemCalls) {
  const Measurement measured = run("kernel", 500, 1);
  const SampledCopies& child = *measured.processes[1].sampled;
  const CodeSite& site = find(child, "copy_by_kernel");
  expect_samples(site.samples, 500, measured);
  EXPECT_EQ(site.frames.front().function, "[pread64(2)]");
  EXPECT_EQ(site.frames.back().line, test::line_of(SITE_SUBJECT, "copy_by_kernel"));
}

TEST_P(CodeSitesOf, AStackThatIsTooDeepIsStillOneOfItsPlace) {
  const Measurement measured = run("deep", 500, 1);
  const CodeSite& site = find(*measured.processes[1].sampled, "copy_deeply");
  EXPECT_GE(site.samples + measured.sampling->lost, 500U);
  EXPECT_GT(site.stack.size(), 3U);
}

// Gone before anybody has looked at them.
TEST_P(CodeSitesOf, ShortLivedChildrenHaveTheirParentsMappings) {
  const Measurement measured = run("short_lived", 200, 1);
  ASSERT_THAT(measured.processes, SizeIs(201));
  const CodeSite& site = find(*measured.sampled, "copy_often");
  expect_samples(site.samples, 2000, measured);
}

TEST_P(CodeSitesOf, ManyProcessesHaveOneBudgetOfSamples) {
  constexpr std::uint32_t kSamplesOfPeriod = 100;
  const Measurement measured = run("short_lived", 200, 1, 64 << 20, kSamplesOfPeriod);
  const CodeSite& site = find(*measured.sampled, "copy_often");
  EXPECT_LE(measured.sampled->samples, 1000U) << "of 2,000 copies and those of forks";
  EXPECT_NEAR(static_cast<double>(site.estimated_copies), 2000, 400);
}

TEST_P(CodeSitesOf, MappingsByName) {
  constexpr std::uint64_t kPages = 1000;
  const Measurement measured = run("mappings", kPages, 1);
  const SampledCopies& child = *measured.processes[1].sampled;
  const std::string program = GetParam();
  for (const std::string& name : {std::string("anonymous"), std::string("[heap]"),
                                  std::string("[stack]"), program, program + " .bss"}) {
    const auto found = std::ranges::find(child.mappings, name, &MappingCopies::name);
    ASSERT_NE(found, child.mappings.end()) << name;
    expect_samples(found->samples, kPages, measured, 20);
    expect_estimate(*found, measured.processes[1]);
  }
}

TEST_P(CodeSitesOf, RangesHottestFirst) {
  const Measurement measured = run("hot", 0, 1);
  const SampledCopies& child = *measured.processes[1].sampled;
  ASSERT_FALSE(child.ranges.empty());
  constexpr std::uint64_t kPlace = 0x10000000000;
  constexpr std::uint64_t kBlock = 2 << 20;
  EXPECT_EQ(child.ranges[0].begin, kPlace + 2 * kBlock);
  EXPECT_EQ(child.ranges[0].end, kPlace + 4 * kBlock);
  expect_samples(child.ranges[0].samples, 1024, measured);
  EXPECT_EQ(child.ranges[0].mapping, "anonymous");
}

TEST_P(CodeSitesOf, GeneratedCodeIsNamedByThePerfMap) {
  for (const char* kind : {"generated", "generated_shared"}) {
    SCOPED_TRACE(kind);
    const Measurement measured = run(kind, 300, 1);
    const CodeSite& site = find(*measured.processes[1].sampled, "py::generated:/app.py");
    std::remove(("/tmp/perf-" + std::to_string(measured.processes[0].pid) + ".map").c_str());
    expect_samples(site.samples, 300, measured);
    ASSERT_GT(site.stack.size(), 1U) << kind;
    EXPECT_THAT(site.stack[1].module, HasSubstr("site_subject")) << "unwound by its frame pointer";
  }
}

TEST_P(CodeSitesOf, GeneratedCodeThatNothingNamesIsOneSite) {
  constexpr std::uint64_t kPages = 300;
  for (const char* kind : {"generated_unnamed", "generated_behind"}) {
    SCOPED_TRACE(kind);
    const Measurement measured = run(kind, kPages, 1);
    const ProcessCopies& child = measured.processes[1];
    const CodeSite& site = find(*child.sampled, "generated code");
    expect_samples(site.samples, kPages, measured);
    expect_estimate(site, child);
    std::uint64_t samples = 0;
    for (const CodeSite& each : child.sampled->sites) samples += each.samples;
    EXPECT_EQ(samples, child.sampled->samples) << "none is left out: " << kind;
  }
}

TEST_P(CodeSitesOf, LostSamplesAreCountedAndTheCountsStayExact) {
  const Measurement measured = run("shares", 20'000, 1, 64 << 10);
  EXPECT_GT(measured.sampling->lost, 0U);
  EXPECT_EQ(measured.sampled->samples, measured.sampling->received);
  std::uint64_t estimated = 0;
  for (const MappingCopies& mapping : measured.processes[1].sampled->mappings)
    estimated += mapping.estimated_copies;
  EXPECT_NEAR(static_cast<double>(estimated),
              static_cast<double>(measured.processes[1].all_copied_pages().value_or(0)), 5);
  EXPECT_NEAR(static_cast<double>(measured.processes[1].copied_anon_pages.value_or(0)), 20'000, 20);
}

INSTANTIATE_TEST_SUITE_P(Each, CodeSitesOf,
                         ::testing::Values(SITE_SUBJECT, SITE_SUBJECT_FRAME_POINTERS),
                         [](const auto& instance) {
                           return std::string(instance.param).ends_with("pointers")
                                      ? "frame_pointers"
                                      : "none";
                         });

// Without symbols a site is a place in its file.
class CodeSitesOfStripped : public CodeSitesOf {};

TEST_P(CodeSitesOfStripped, ModuleAndAddress) {
  const Measurement measured = run("shares", 5000, 1);
  const SampledCopies& child = *measured.processes[1].sampled;
  ASSERT_GE(child.sites.size(), 3U);
  constexpr std::array<std::uint64_t, 3> kCopies = {3500, 1000, 500};
  for (std::size_t i = 0; i < kCopies.size(); ++i) {
    const CodeSite& site = child.sites[i];
    expect_samples(site.samples, kCopies[i], measured);
    EXPECT_EQ(site.frames[0].function, "");
    EXPECT_EQ(site.frames[0].module, GetParam());
    EXPECT_NE(site.frames[0].address, 0U);
    EXPECT_THAT(site.stack.back().module, GetParam()) << "_start";
  }
}

INSTANTIATE_TEST_SUITE_P(Each, CodeSitesOfStripped, ::testing::Values(SITE_SUBJECT_STRIPPED));

// Why, of programs of which it is known: what pattern_subject.cc does is measured and named.
struct Known {
  const char* kind;
  int bytes;  // of a block
  const char* pattern;
  const char* place;      // function in pattern_subject.cc
  const char* innermost;  // of the frames of the place
};

// As GoogleTest names it.  NOLINTNEXTLINE(readability-identifier-naming)
void PrintTo(const Known& known, std::ostream* out) { *out << known.kind << known.bytes; }

class NamedPatterns : public NeedsProbes, public ::testing::WithParamInterface<Known> {};

TEST_P(NamedPatterns, AreFoundAtTheirPlace) {
  constexpr std::uint64_t kPagesOfSubject = 500;
  const Known& known = GetParam();
  const OpenedBackend opened = open_backend(BackendChoice::tracepoint, {.period = 1}).value();
  const Measurement measured = test::measure_command(
      *opened.backend,
      {PATTERN_SUBJECT, known.kind, std::to_string(kPagesOfSubject), std::to_string(known.bytes)});
  ASSERT_THAT(measured.processes, SizeIs(2));
  const ProcessCopies& child = measured.processes[1];

  ASSERT_TRUE(child.patterns && child.sampled);
  ASSERT_FALSE(child.patterns->empty() || child.sampled->sites.empty());
  const Frame& innermost = child.sampled->sites.front().frames.front();
  const CopyPattern& most = child.patterns->front();
  if (known.bytes > 0 && innermost.function.empty()) {
    // The C library's symbols are not installed.  What is told by instructions alone is right.
    for (const CopyPattern& pattern : *child.patterns) {
      EXPECT_TRUE(!pattern.pattern.starts_with("bulk") || pattern.pattern == known.pattern)
          << pattern.evidence;
    }
  } else {
    EXPECT_EQ(most.pattern, known.pattern) << most.evidence;
    // Some pages have been copied by what a fork does, or hold what it writes.
    expect_samples(most.samples, kPagesOfSubject, measured, kPagesOfSubject * 0.02);
    EXPECT_THAT(most.evidence, HasSubstr(known.innermost));
    EXPECT_THAT(innermost.function, HasSubstr(known.innermost));
    EXPECT_EQ(innermost.inlined, known.bytes == 0) << "of libstdc++, not of libc";
  }

  // The stacks of each cause have its samples.
  std::map<std::string, std::uint64_t> by_cause;
  for (const FoldedStack& stack : child.sampled->stacks) by_cause[stack.cause] += stack.samples;
  std::map<std::string, std::uint64_t> expected;
  for (const CopyPattern& pattern : *child.patterns) expected[pattern.pattern] = pattern.samples;
  EXPECT_EQ(by_cause, expected);

  std::uint64_t samples = 0;
  for (const CodeSite& site : child.sampled->sites) {
    const Frame& place = site.frames.back();
    const std::string name = std::string("pattern_subject::") + known.place + "(";
    if (!place.function.starts_with(name)) continue;
    samples += site.samples;
    EXPECT_EQ(place.line, test::line_of(PATTERN_SUBJECT, known.place));
    EXPECT_THAT(place.file, EndsWith("pattern_subject.cc"));
    EXPECT_FALSE(place.inlined);
  }
  expect_samples(samples, kPagesOfSubject, measured, kPagesOfSubject * 0.02);
}

// Blocks below a page, of about a page, and beyond; of each, memcpy does it by other instructions.
INSTANTIATE_TEST_SUITE_P(
    Each, NamedPatterns,
    ::testing::Values(Known{"blocks", 100, "bulk copy", "copy_block", "mem"},
                      Known{"blocks", 300, "bulk copy", "copy_block", "mem"},
                      Known{"blocks", 1000, "bulk copy", "copy_block", "mem"},
                      Known{"blocks", 3000, "bulk copy", "copy_block", "mem"},
                      Known{"blocks", 65536, "bulk copy", "copy_block", "mem"},
                      Known{"fills", 300, "bulk fill", "fill_block", "memset"},
                      Known{"fills", 65536, "bulk fill", "fill_block", "memset"},
                      Known{"shared", 0, "reference count", "share", "__atomic_add"},
                      Known{"shared_by_threads", 0, "reference count", "share", "__atomic_add"},
                      Known{"dropped", 0, "reference count", "drop", "__exchange_and_add"},
                      Known{"dropped_by_threads", 0, "reference count", "drop",
                            "__exchange_and_add"},
                      Known{"locked", 0, "reference count", "lock", "_M_add_ref_lock"}),
    [](const auto& instance) {
      return std::string(instance.param.kind) +
             (instance.param.bytes > 0 ? std::to_string(instance.param.bytes) : "");
    });

// As deep as anything here goes.
[[gnu::noinline]] void write_to_the_stack() {
  std::array<volatile char, 256 << 10> deep;
  for (std::size_t at = 0; at < deep.size(); at += kPageSize) deep.at(at) = 1;
}

// Sampling, unwinding and reading maps leave each page of the target as shared as it was.
TEST(Profile, MeasuringCopiesNothing) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the process that is measured is this one's child: the sanitizer's own pages";
#endif
  constexpr std::uint64_t kPages = 1000;
  constexpr std::uint64_t kCopied = 100;
  auto opened = open_backend(BackendChoice::tracepoint, {.period = 1});
  if (!opened) GTEST_SKIP() << opened.error().message;
  void* mapped = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ::madvise(mapped, kPages * kPageSize, MADV_NOHUGEPAGE);
  // Its parent shares with it and does nothing; this process goes on, and copies.
  cowshed::test::Child parent([&](const cowshed::test::Line& test) {
    if (::fork() != 0) {
      ::wait(nullptr);
      return 0;
    }
    test.hear();
    for (std::uint64_t i = 0; i < kCopied; ++i)
      static_cast<volatile char*>(mapped)[i * kPageSize] = 1;
    test.say();
    test.hear();
    return 0;
  });
  // What the parent has written of its stack, the child may share with us alone: until we write.
  write_to_the_stack();
  const ProcFiles proc;
  std::vector<pid_t> children;
  while (children.empty()) children = proc.children(parent.pid()).value_or(children);
  const pid_t child = children.front();
  const auto exclusive_bytes = [&] {
    std::uint64_t bytes = 0;
    const auto mappings = proc.maps(child);
    auto pages = ProcessPages::open(proc, child);
    EXPECT_TRUE(mappings && pages);
    for (const Mapping& mapping : *mappings)
      if (const auto all = pages->anonymous_pages_by_owner(mapping)) bytes += all->own.bytes();
    return bytes;
  };
  ASSERT_TRUE(opened->backend->attach({child}));
  parent.say();
  ASSERT_TRUE(parent.hear());
  // A page that the parent still writes is the child's alone from then on.
  const auto is_asleep = [&](pid_t pid) {
    const auto stat = proc.stat(pid);
    return stat && stat->state == 'S';
  };
  while (!is_asleep(parent.pid()) || !is_asleep(child)) ::sched_yield();
  const std::uint64_t before = exclusive_bytes();
  ASSERT_TRUE(opened->backend->sample());
  const Measurement measured = opened->backend->measurement();
  EXPECT_EQ(exclusive_bytes(), before);
  EXPECT_GE(measured.sampled->samples, kCopied);
  EXPECT_LE(measured.sampled->samples, kCopied + 40);
  EXPECT_LE(before, (kCopied + 100) * kPageSize);
  EXPECT_EQ(measured.processes[0].all_copied_pages(), measured.sampled->samples);
  parent.say();
  EXPECT_EQ(parent.wait(), 0);
  ::munmap(mapped, kPages * kPageSize);
}

}  // namespace
}  // namespace cowshed::cow
