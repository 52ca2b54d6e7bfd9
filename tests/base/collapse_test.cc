#include <fstream>

#include <cowshed/base/collapse.h>
#include <cowshed/share/settle.h>
#include <cowshed/tests/share/settle/settling.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/memory_map.h>

static int page_size = 4096;
extern "C" int getpagesize() noexcept { return page_size; }

namespace cowshed {
namespace {

using internal::Collapser;
using test::Pages;

constexpr std::size_t kSize = 16_MiB;
constexpr std::size_t kPage = 4_KiB;

// Whether this machine has what a collapse takes.  If not, the calls say so, and move nothing.
bool can_collapse() {
  const auto opened = Collapser::open(0, {});
  if (!opened) EXPECT_EQ(opened.error().code, ErrorCode::unsupported) << opened.error().message;
  return opened.has_value();
}

bool lacks_memory(const Collapsed& collapsed) {
  return collapsed.left_as(SmallPages::no_memory) + collapsed.left_as(SmallPages::busy) > 0;
}

std::size_t huge_bytes(const Pages& pages) {
  return test::smaps_kib("AnonHugePages", pages.data(), pages.span().size()) * 1_KiB;
}

// Whether the kernel makes huge pages of any memory, sooner or later.
bool always_makes_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string modes;
  std::getline(file, modes);
  return modes.starts_with("[always]");
}

class SmallPagesOf7 : public Pages {
 public:
  explicit SmallPagesOf7(std::size_t size) : Pages(size) {
    const bool is_kept_small = always_makes_huge_pages();
    if (is_kept_small) madvise(data(), size, MADV_NOHUGEPAGE);
    if (is_kept_small) madvise(data(), size, MADV_DONTNEED);
    std::memset(data(), 7, size);
    if (is_kept_small) madvise(data(), size, MADV_HUGEPAGE);
  }
};

void expect_small(const Pages& pages) {
  if (!always_makes_huge_pages()) EXPECT_EQ(huge_bytes(pages), 0U);
}

void give_back(const Pages& pages, std::size_t page, std::size_t count) {
  madvise(pages.data() + page * kPage, count * kPage, MADV_DONTNEED);
}

TEST(Collapse, KeepsBytesAndMakesHugePages) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const SmallPagesOf7 pages(kSize);
  const Collapsed collapsed = value_of(collapse_heap());
  EXPECT_TRUE(pages.is_all(7));
  EXPECT_GE(collapsed.private_bytes, kSize);
  if (lacks_memory(collapsed)) return;
  EXPECT_GE(huge_bytes(pages), kSize - 2_MiB);
  EXPECT_GE(collapsed.huge_bytes_after, collapsed.huge_bytes_before + kSize - 2_MiB);
  EXPECT_LE(collapsed.page_tables_after + (kSize - 2_MiB) / 512, collapsed.page_tables_before);
}

// The n-th range of 2 MiB lacks 4 n pages.
TEST(Collapse, FillsTheFewestHolesUpToTheBound) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const SmallPagesOf7 pages(kSize);
  const std::size_t first = 512 - reinterpret_cast<std::uintptr_t>(pages.data()) / kPage % 512;
  for (std::size_t i = 1; i < 7; ++i) give_back(pages, first + i * 512, 4 * i);
  const std::size_t before = test::own_pages(pages.data(), kSize);
  constexpr double kPart = 0.004;
  Collapser collapser = value_of(Collapser::open(0, {.most_added = kPart}));
  std::size_t added = 0;
  // A bound for both rounds.
  for (int round = 0; round < 2; ++round) {
    const Collapsed collapsed = value_of(collapser.collapse());
    added += collapsed.added_bytes;
    EXPECT_LE(static_cast<double>(added), kPart * static_cast<double>(collapsed.private_bytes));
    EXPECT_LE(test::own_pages(pages.data(), kSize), before + added / kPage);
    EXPECT_GT(collapsed.left_as(SmallPages::sparse) + collapsed.left_as(SmallPages::no_memory), 0U);
  }
}

TEST(Collapse, LeavesWhatAChildShares) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const SmallPagesOf7 pages(kSize);
  const test::Child child([] { return pause(); });
  const Collapsed collapsed = value_of(collapse_heap());
  EXPECT_GE(collapsed.left_as(SmallPages::shared), kSize - 4_MiB);
  expect_small(pages);
}

TEST(Collapse, LeavesWhatTheProcessKeepsFromIt) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const SmallPagesOf7 locked(kSize);
  const SmallPagesOf7 small(kSize);
  const SmallPagesOf7 own(kSize);
  madvise(locked.data(), kSize, MADV_NOHUGEPAGE);
  ASSERT_EQ(mlock(locked.data(), 4_MiB), 0) << errno;
  madvise(small.data(), kSize, MADV_NOHUGEPAGE);
  madvise(own.data(), kSize, MADV_DONTFORK);
  const Collapsed collapsed = value_of(collapse_heap());
  EXPECT_GE(collapsed.left_as(SmallPages::locked), 4_MiB);
  EXPECT_GE(collapsed.left_as(SmallPages::forbidden), 2 * kSize);
  EXPECT_EQ(huge_bytes(small), 0U);
  expect_small(own);
}

TEST(Collapse, EndsWhenTheCallerSaysSo) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const SmallPagesOf7 pages(kSize);
  const Collapsed collapsed =
      value_of(value_of(Collapser::open(0, {})).collapse([](auto, auto) { return false; }));
  EXPECT_GE(collapsed.left_as(SmallPages::stopped), kSize - 4_MiB);
  expect_small(pages);
}

std::string refusal(pid_t pid) {
  const auto opened = Collapser::open(pid, {});
  return opened ? "none" : std::string(to_string(opened.error().code)) + opened.error().message;
}

TEST(Collapse, SaysWhyItRefuses) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  const pid_t ended = fork();
  if (ended == 0) _exit(0);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(ended), &info, WEXITED | WNOWAIT);
  EXPECT_THAT(refusal(ended), HasSubstr("no_such_process"));  // a zombie
  waitpid(ended, nullptr, 0);
  EXPECT_THAT(refusal(ended), HasSubstr("no_such_process"));
  EXPECT_THAT(test::run_in_child([] {
                prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
                return refusal(0);
              }).said,
              HasSubstr("PR_SET_THP_DISABLE"));
  page_size = 65536;
  EXPECT_THAT(refusal(0), HasSubstr("pages of 65536 bytes"));
  page_size = 4096;
  if (geteuid() != 0) return;
  const pid_t other = getpid();
  EXPECT_THAT(test::run_in_child([&] {
                test::become_nobody();
                return refusal(other);
              }).said,
              testing::AllOf(HasSubstr("permission_denied"), HasSubstr("CAP_SYS_")));
}

// Blocks of malloc come and go, move and are written, in a parent and its children.
int change_blocks(const std::atomic<bool>& is_over, const test::Line& parent) {
  test::Blocks blocks;
  std::minstd_rand random(test::seed());
  for (int i = 0; i < 40; ++i) blocks.add(300'000);
  parent.say();
  for (int step = 0; !is_over; ++step) {
    const std::size_t which = random() % blocks.count();
    switch (random() % 4) {
      case 0: blocks.add(100'000 + random() % 1'000'000); break;
      case 1: blocks.resize(which, 100'000 + random() % 1'000'000); break;
      case 2: blocks.rewrite(which); break;
      default: blocks.remove(which);
    }
    if (blocks.count() < 30) blocks.add(300'000);
    if (blocks.count() > 50) blocks.remove(which);
    if (step % 500 != 0) continue;
    const auto damage = [&] {
      blocks.rewrite(0);
      return std::to_string(blocks.damage());
    };
    if (test::run_in_child(damage).said != "0") return 2;
  }
  return blocks.damage() == 0 ? 0 : 1;
}

TEST(Collapse, KeepsEachByteBesideMallocAndFork) {
  if (!can_collapse()) GTEST_SKIP() << "this kernel cannot collapse memory";
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  auto* const is_over = static_cast<std::atomic<bool>*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  test::Child child([&](const test::Line& parent) { return change_blocks(*is_over, parent); });
  child.hear();
  Collapser collapser = value_of(Collapser::open(child.pid(), {.most_added = 1}));
  int moved = 0;
  for (int round = 0; round < 10'000 && moved < 100; ++round) {
    const Collapsed collapsed = value_of(collapser.collapse());
    moved += collapsed.huge_bytes_after > collapsed.huge_bytes_before ? 1 : 0;
  }
  *is_over = true;
  EXPECT_EQ(child.wait(), 0);
  munmap(is_over, kPage);
}

}  // namespace
}  // namespace cowshed
