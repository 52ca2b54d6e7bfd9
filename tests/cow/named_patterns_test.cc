#include <cowshed/cow/backend.h>
#include <cowshed/probes/support.h>
#include <cowshed/tests/cow/measure_command.h>
#include <cowshed/tests/support/test.h>

// Why, of programs of which it is known: what pattern_subject.cc does is measured and named.

namespace cowshed::cow {
namespace {

struct Known {
  const char* kind;
  int bytes;  // of a block
  const char* pattern;
  const char* place;      // function in pattern_subject.cc
  const char* innermost;  // of the frames of the place
};

// As GoogleTest names it.  NOLINTNEXTLINE(readability-identifier-naming)
void PrintTo(const Known& known, std::ostream* out) { *out << known.kind << known.bytes; }

class NamedPatterns : public ::testing::TestWithParam<Known> {
 protected:
  void SetUp() override {
    if (const auto supported = probe_support(); !supported)
      GTEST_SKIP() << supported.error().message;
  }
};

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
    EXPECT_NEAR(static_cast<double>(most.samples), kPagesOfSubject, kPagesOfSubject * 0.02)
        << most.evidence;
    EXPECT_THAT(most.evidence, HasSubstr(known.innermost));
    EXPECT_THAT(innermost.function, HasSubstr(known.innermost));
    EXPECT_EQ(innermost.inlined, known.bytes == 0) << "of libstdc++, not of libc";
  }

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
  EXPECT_NEAR(static_cast<double>(samples), kPagesOfSubject, kPagesOfSubject * 0.02);
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

}  // namespace
}  // namespace cowshed::cow
