#include <cowshed/cow/backends/alike_meter.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/scale.h>

namespace cowshed::cow {
namespace {

// Three processes: the test, and two children that fork shared `memory` with.
class AlikeMeterTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kPages = 4096;  // more than a sample has
  static constexpr std::size_t kOthers = 100;  // of the children's stacks and libraries, at most

  AlikeMeterTest() {
    memory_ = static_cast<char*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::madvise(memory_, kPages * kPageSize, MADV_NOHUGEPAGE);
    fill(0, kPages, 1);
  }
  void SetUp() override {
    if (cowshed::test::kSanitized) GTEST_SKIP() << "a sanitizer's own memory is private, too";
  }
  ~AlikeMeterTest() override { ::munmap(memory_, kPages * kPageSize); }

  // Makes pages that differ from each other, and from those of another `seed`.
  void fill(std::size_t begin, std::size_t end, std::size_t seed) const {
    for (std::size_t page = begin; page < end; ++page) {
      const std::size_t value = page << 8U | seed;
      std::memcpy(memory_ + page * kPageSize, &value, sizeof value);
    }
  }

  // Of the second child, when each has done its work.
  AlikeMemory compared(const std::function<void()>& first, const std::function<void()>& second,
                       bool is_whole = true,
                       std::optional<std::uint64_t> copied_bytes = std::nullopt) const {
    test::PausedChild one(first);
    test::PausedChild two(second);
    one.work();
    two.work();
    std::array<std::optional<AlikeMemory>, 3> results;
    const std::vector<AlikeProcess> running = {
        {.id = 1, .pid = ::getpid(), .alike = &results[0]},
        {.id = 2, .parent_id = 1, .pid = one.pid(), .alike = &results[1]},
        {.id = 3,
         .parent_id = 1,
         .pid = two.pid(),
         .copied_bytes = copied_bytes,
         .alike = &results[2]}};
    AlikeMeter meter{ProcFiles()};
    if (is_whole) meter.make_due();
    while (!results[2]) meter.sample(running);
    EXPECT_EQ(results[0]->unchanged_bytes, std::nullopt) << "it has no parent";
    return *results[2];
  }

  static auto pages(double number) {
    return ::testing::AllOf(::testing::Ge(number * kPageSize),
                            ::testing::Le((number + kOthers) * kPageSize));
  }

  char* memory_;
};

TEST_F(AlikeMeterTest, CountsWhatOneCopyForAllWouldSave) {
  const auto work = [&] {
    fill(0, 600, 2);
    fill(600, 1200, 1);  // as it was
  };
  const AlikeMemory alike = compared(work, [&] {
    work();
    fill(1200, 1800, 3);  // like no other
  });
  EXPECT_THAT(alike.private_bytes, pages(1800));
  EXPECT_THAT(alike.same_address_bytes, pages(600 * (1 - 1.0 / 2) + 600 * (1 - 1.0 / 3)));
  EXPECT_THAT(alike.unchanged_bytes, ::testing::Optional(pages(600)));
  EXPECT_EQ(alike.sampled_part, 1);
}

TEST_F(AlikeMeterTest, FindsPagesThatOnlyTheOtherChildAndTheParentShare) {
  const AlikeMemory alike = compared([] {}, [&] { fill(0, 600, 1); });
  EXPECT_THAT(alike.unchanged_bytes, ::testing::Optional(pages(600)));
  EXPECT_THAT(alike.same_address_bytes, pages(0));
}

TEST_F(AlikeMeterTest, NewMemoryAsInTheParentIsNoCopy) {
  const AlikeMemory alike = compared([] {},
                                     [&] {
                                       ::madvise(memory_, 600 * kPageSize, MADV_DONTNEED);
                                       fill(0, 600, 1);
                                     },
                                     true, 2 * kPageSize);
  EXPECT_EQ(alike.unchanged_bytes, 2 * kPageSize);
}

TEST_F(AlikeMeterTest, FindsThemAtOtherAddresses) {
  const AlikeMemory alike = compared([&] { fill(0, 600, 2); },
                                     [&] {
                                       fill(0, 600, 2);
                                       void* moved =
                                           ::mremap(memory_, 600 * kPageSize, 600 * kPageSize,
                                                    MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
                                       if (moved == MAP_FAILED) throw std::runtime_error("mremap");
                                     });
  EXPECT_THAT(alike.same_address_bytes, pages(0));
  EXPECT_THAT(alike.any_address_bytes, ::testing::Optional(pages(300)));
}

TEST_F(AlikeMeterTest, KeepsZerosApart) {
  const auto work = [&] { std::memset(memory_, 0, 600 * kPageSize); };
  const AlikeMemory alike = compared(work, work);
  EXPECT_THAT(alike.zero_bytes, pages(600));
  EXPECT_THAT(alike.same_address_bytes, pages(0));
  EXPECT_THAT(alike.any_address_bytes, ::testing::Optional(pages(0)));
}

TEST_F(AlikeMeterTest, TellsMuchByASample) {
  const auto work = [&] { fill(0, kPages, 2); };
  const AlikeMemory alike = compared(
      work,
      [&] {
        work();
        fill(0, kPages / 2, 3);
      },
      false);
  EXPECT_THAT(alike.private_bytes, pages(kPages));
  EXPECT_EQ(alike.any_address_bytes, std::nullopt);
  EXPECT_LT(alike.sampled_part, 0.9);
  const double part =
      static_cast<double>(alike.same_address_bytes) / static_cast<double>(alike.private_bytes);
  EXPECT_NEAR(part, 0.25, 0.03);
}

TEST_F(AlikeMeterTest, ComparesNothingOfAProcessAlone) {
  std::optional<AlikeMemory> result;
  AlikeMeter meter{ProcFiles()};
  meter.make_due();
  meter.sample({{.id = 1, .pid = ::getpid(), .alike = &result}});
  EXPECT_EQ(result, std::nullopt);
}

}  // namespace
}  // namespace cowshed::cow
