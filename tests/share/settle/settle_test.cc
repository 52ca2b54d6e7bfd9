#include <cowshed/share/settle/mappings.h>
#include <cowshed/tests/share/settle/settling.h>
#include <cowshed/tests/support/refusals.h>
#include <cowshed/tests/support/subprocess.h>

static int page_size = 4096;
extern "C" int getpagesize() noexcept { return page_size; }

namespace cowshed {
namespace {

using test::Blocks;
using test::is_settled;
using test::Pages;
using test::reason_at;

// 4 MiB of small blocks, and some that have mappings of their own.
Blocks some_blocks() {
  Blocks blocks(1'000, 4'000);
  for (int i = 0; i < 4; ++i) blocks.add(1_MiB);
  return blocks;
}

TEST(Settle, KeepsEveryByteAtItsAddress) {
  const Blocks blocks = some_blocks();
  const Settled settled = value_of(settle());
  EXPECT_EQ(blocks.damage(), 0U);
  EXPECT_TRUE(is_settled(blocks[2'000]));
  EXPECT_TRUE(is_settled(blocks[4'001]));
  EXPECT_GT(settled.moved_bytes, 6_MiB);
  EXPECT_LE(settled.copied_bytes, settled.moved_bytes);
  EXPECT_GT(settled.time, 0ns);
  EXPECT_GT(settled.longest_pause, 0ns);
}

std::size_t page_tables_of_a_child() {
  return std::stoul(run_in_child([] {
                      return std::to_string(test::figure_of("/proc/self/status", "VmPTE"));
                    }).said);
}

TEST(Settle, AForkCopiesNoPageTablesAfterItAndFewAfterAWrite) {
  Blocks blocks(64_MiB);
  const std::size_t before = page_tables_of_a_child();
  const Settled settled = value_of(settle({.time_fork = true}));
  // The published layout's, and one more where the blocks' memory begins within 2 MiB.
  constexpr std::size_t kOthers = 4 * 4_KiB / 1_KiB;
  EXPECT_GE(before + kOthers, page_tables_of_a_child() + 64_MiB / 4_KiB * 8 / 1_KiB);
  EXPECT_GT(settled.page_tables_before, settled.page_tables_after + 64_KiB);
  EXPECT_GT(settled.fork_before, 0ns);
  EXPECT_GT(settled.fork_after, 0ns);
  EXPECT_EQ(blocks.damage(), 0U);  // read by the parent
  blocks[0][32_MiB] ^= 1U;
  EXPECT_GE(before, page_tables_of_a_child() + 40_MiB / 4_KiB * 8 / 1_KiB);
}

TEST(Settle, ChildrenAndTheirChildrenHaveTheirOwnCopies) {
  Blocks blocks = some_blocks();
  value_of(settle());
  const auto child = run_in_child([&]() -> std::string {
    for (std::size_t i = 0; i < blocks.count(); i += 3) blocks.rewrite(i);
    value_of(settle());
    const auto grandchild = run_in_child([&]() -> std::string {
      value_of(settle());
      for (std::size_t i = 0; i < blocks.count(); i += 2) blocks.rewrite(i);
      return blocks.damage() == 0 ? "fine" : "damaged";
    });
    return blocks.damage() == 0 ? grandchild.said : "damaged";
  });
  EXPECT_EQ(child.said, "fine");
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, AgainMovesWhatIsNew) {
  Blocks blocks = some_blocks();
  value_of(settle());
  blocks.add(2_MiB);
  const Settled again = value_of(settle());
  EXPECT_TRUE(test::holds(again.moved, blocks[blocks.count() - 1]));
  EXPECT_FALSE(test::holds(again.moved, blocks[4'001]));
  EXPECT_EQ(value_of(settle()).moved_bytes, 0U);
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, AgainMovesWhatWasWrittenSince) {
  Blocks blocks(4_MiB);
  value_of(settle());
  EXPECT_EQ(test::own_pages(blocks[0] + 1_MiB, 2_MiB), 0U);
  const pid_t reader = fork();  // has the first memfd
  if (reader == 0) {
    pause();
    _exit(0);
  }
  blocks.rewrite(0);
  EXPECT_EQ(test::own_pages(blocks[0] + 1_MiB, 2_MiB), 2_MiB / 4_KiB);
  const ino_t before = test::inode_at(blocks[0] + 1_MiB);
  value_of(settle());
  EXPECT_NE(test::inode_at(blocks[0] + 1_MiB), before);
  EXPECT_EQ(test::own_pages(blocks[0] + 1_MiB, 2_MiB), 0U);
  EXPECT_EQ(blocks.damage(), 0U);
  kill(reader, SIGKILL);
  waitpid(reader, nullptr, 0);
}

TEST(Settle, OfWhatHasFewWritesLeavesIt) {
  Blocks blocks(4_MiB);
  value_of(settle());
  blocks[0][1_MiB] ^= 1U;
  EXPECT_THAT(reason_at(value_of(settle()), blocks[0] + 1_MiB), HasSubstr("less than an eighth"));
}

TEST(Unsettle, MovesAllOfItBackAndLeavesNoDescriptor) {
  Blocks blocks = some_blocks();
  const std::size_t descriptors = test::open_descriptors();
  value_of(settle());
  blocks.rewrite(2'000);
  value_of(unsettle());
  EXPECT_FALSE(is_settled(blocks[2'000]));
  EXPECT_FALSE(is_settled(blocks[4'001]));
  EXPECT_EQ(blocks.damage(), 0U);
  EXPECT_EQ(test::open_descriptors(), descriptors);
  value_of(settle());
  EXPECT_TRUE(is_settled(blocks[4'001]));
  EXPECT_EQ(blocks.damage(), 0U);
}

// glibc trims by MADV_DONTNEED, after which settled pages are as they were when they were settled.
TEST(Settle, CallocOfTrimmedMemoryIsZero) {
  Blocks blocks = some_blocks();
  value_of(settle());
  for (int i = 0; i < 3'900; ++i) blocks.remove(0);
  malloc_trim(0);
  for (int i = 0; i < 3'000; ++i) blocks.add_zeroed(1'200);
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, ThreadHeapsShrinkAndGrow) {
  Blocks blocks;
  const auto in_thread = [](const auto& body) { std::jthread(body).join(); };
  in_thread([&] {
    for (int i = 0; i < 8'000; ++i) blocks.add(1'000);
  });
  const Settled settled = value_of(settle());
  ASSERT_TRUE(is_settled(blocks[4'000]));
  in_thread([&] {
    while (blocks.count() > 100) blocks.remove(blocks.count() - 1);
    malloc_trim(0);
    for (int i = 0; i < 4'000; ++i) blocks.add_zeroed(1'500);
  });
  EXPECT_EQ(blocks.damage(), 0U);
  value_of(settle());
  in_thread([&] {
    while (blocks.count() > 100) blocks.remove(blocks.count() / 2);
    for (int i = 0; i < 12'000; ++i) blocks.add_zeroed(700);
  });
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, LargeBlocksGrowAndShrinkInPlaceOrNot) {
  Blocks blocks(2_MiB, 4);
  value_of(settle());
  blocks.resize(0, 40_MiB);
  blocks.resize(1, 256_KiB);
  blocks.resize(2, 3_MiB);
  EXPECT_EQ(blocks.damage(), 0U);
  value_of(settle());
  blocks.resize(0, 10_MiB);
  blocks.resize(0, 30_MiB);
  blocks.resize(0, 1_MiB);
  blocks.resize(1, 8_MiB);
  EXPECT_EQ(blocks.damage(), 0U);
}

// The first MiB of the pages, extended to `size`.
void expect_extends_into_zeros(const Pages& pages, std::size_t size) {
  auto* extended = static_cast<unsigned char*>(mremap(pages.data(), 1_MiB, size, MREMAP_MAYMOVE));
  ASSERT_NE(extended, MAP_FAILED);
  for (std::size_t at = 0; at < size; at += 4_KiB) ASSERT_EQ(extended[at], at < 1_MiB ? 7 : 0);
  munmap(extended, size);
}

TEST(Settle, NamedMemoryExtendedByMremapReadsZeros) {
  const Pages pages(1_MiB);
  const Settled settled = value_of(settle({.also = {pages.span()}, .heap = false}));
  ASSERT_EQ(settled.moved.size(), 1U);
  EXPECT_EQ(settled.moved[0].kind, SettledKind::named);
  expect_extends_into_zeros(pages, 64_MiB);
}

TEST(Settle, NamedMemoryThatTouchesOtherExtendsIntoZerosToo) {
  const Pages pages(2_MiB);
  value_of(settle({.also = {pages.span().first(1_MiB), pages.span().last(1_MiB)}, .heap = false}));
  EXPECT_NE(test::inode_at(pages.data()), test::inode_at(pages.data() + 1_MiB));
  expect_extends_into_zeros(pages, 4_MiB);
}

TEST(Settle, NamedMemoryIsMovedByWholePages) {
  const Pages pages(1_MiB);
  const auto inner = pages.span().subspan(100, 1_MiB - 200);
  const Settled settled = value_of(settle({.also = {inner}, .heap = false}));
  ASSERT_EQ(settled.moved.size(), 1U);
  EXPECT_EQ(settled.moved[0].memory.data(), pages.span().data() + 4_KiB);
  EXPECT_EQ(settled.moved[0].memory.size(), 1_MiB - 8_KiB);
  EXPECT_TRUE(pages.is_all(7));
}

TEST(Settle, WhatIsToBeLeftIsLeft) {
  Blocks blocks(4_MiB);
  const std::span<const unsigned char> buffer(blocks[0] + 1_MiB, 1'000);
  const Settled settled = value_of(settle({.leave = {std::as_bytes(buffer)}}));
  EXPECT_FALSE(is_settled(buffer.data()));
  EXPECT_EQ(reason_at(settled, buffer.data()), "is in .leave");
  EXPECT_TRUE(is_settled(blocks[0]));
  EXPECT_TRUE(is_settled(blocks[0] + 2_MiB));
  EXPECT_EQ(blocks.damage(), 0U);
  blocks.resize(0, 8_MiB);  // over three mappings
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, UnknownMemoryIsLeftWithTheReason) {
  const Pages pages(1_MiB);
  const Settled settled = value_of(settle());
  EXPECT_FALSE(is_settled(pages.data()));
  EXPECT_THAT(reason_at(settled, pages.data()), HasSubstr("neither glibc's heap nor named"));
  const int local = 0;
  EXPECT_EQ(reason_at(settled, &local), "is a stack");
}

// Wherever in their pages they lie.
TEST(Settle, LeavesWhatTheCLibraryKnowsOfThisThread) {
  const Pages stack(256_KiB);
  const auto settle_own = [](void*) -> void* {
    const std::array own = {static_cast<const void*>(&errno),
                            reinterpret_cast<const void*>(pthread_self())};
    for (const void* variable : own) {
      const auto begin = reinterpret_cast<std::uintptr_t>(variable) / 4_KiB * 4_KiB;
      const std::span page(reinterpret_cast<const std::byte*>(begin), 4_KiB);
      const auto settled = settle({.also = {page}, .heap = false, .threads = OtherThreads::stop});
      EXPECT_EQ(reason_at(*settled, variable), "holds this thread's stack or variables");
    }
    return nullptr;
  };
  for (std::size_t size = 252_KiB; size < 256_KiB; size += 1_KiB) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack.data(), size);
    pthread_t thread{};
    ASSERT_EQ(pthread_create(&thread, &attributes, settle_own, nullptr), 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
  }
}

struct Obstacle {
  const char* name;
  std::function<bool(Pages&)> prepare;
  const char* reason;
};
class SettleObstacle : public testing::TestWithParam<Obstacle> {};

bool advise(Pages& pages, int advice) { return madvise(pages.data(), 1_MiB, advice) == 0; }

INSTANTIATE_TEST_SUITE_P(
    Each, SettleObstacle,
    testing::Values(Obstacle{"mlock", [](Pages& p) { return mlock(p.data(), 1_MiB) == 0; },
                             "is locked (mlock)"},
                    Obstacle{"DontFork", [](Pages& p) { return advise(p, MADV_DONTFORK); },
                             "is not inherited by children (MADV_DONTFORK)"},
                    Obstacle{"WipeOnFork", [](Pages& p) { return advise(p, MADV_WIPEONFORK); },
                             "is cleared in children (MADV_WIPEONFORK)"},
                    Obstacle{"DontDump", [](Pages& p) { return advise(p, MADV_DONTDUMP); },
                             "is left out of core dumps (MADV_DONTDUMP)"}),
    [](const auto& test) { return test.param.name; });

TEST_P(SettleObstacle, LeavesTheMemory) {
  Pages pages(1_MiB);
  ASSERT_TRUE(GetParam().prepare(pages));
  EXPECT_EQ(test::reason_to_leave(pages), GetParam().reason);
}

// Blocks of which a part is locked are over two mappings.
TEST(Settle, ABlockThatIsLockedInPartKeepsItsLock) {
  Blocks blocks(4_MiB);
  ASSERT_EQ(mlock(blocks[0] + 2_MiB, 64_KiB), 0);
  const std::size_t locked = test::figure_of("/proc/self/status", "VmLck");
  value_of(settle());
  EXPECT_EQ(test::figure_of("/proc/self/status", "VmLck"), locked);
  EXPECT_EQ(blocks.damage(), 0U);
}

TEST(Settle, UnderAFileSizeLimitLeavesWhatMayGrow) {
  const auto child = run_in_child([]() -> std::string {
    const Blocks blocks = some_blocks();
    const rlimit limit = {64_MiB, 64_MiB};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return "setrlimit";
    const Settled settled = value_of(settle());
    if (blocks.damage() != 0) return "damaged";
    if (!is_settled(blocks[2'000])) return "the main heap stayed";
    return reason_at(settled, blocks[4'001]);
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, HasSubstr("RLIMIT_FSIZE"));
}

TEST(Settle, WithoutAddressSpaceForAPlanIsAnError) {
  const auto child = run_in_child([]() -> std::string {
    const Blocks blocks = some_blocks();
    const rlimit limit = {1_MiB, 1_MiB};  // less than there is
    if (setrlimit(RLIMIT_AS, &limit) != 0) return "setrlimit";
    const auto settled = settle();
    if (blocks.damage() != 0) return "damaged";
    return settled ? "moved" : settled.error().message;
  });
  EXPECT_EQ(child.signal, 0);
  EXPECT_THAT(child.said, HasSubstr("RLIMIT_AS"));
}

TEST(Settle, CoreDumpsKeepTheMemory) {
  const auto filter = [] {
    unsigned value = 0;
    std::ifstream("/proc/self/coredump_filter") >> std::hex >> value;
    return value;
  };
  const auto child = run_in_child([&]() -> std::string {
    const Blocks blocks = some_blocks();
    std::ofstream("/proc/self/coredump_filter") << "0x33";
    value_of(settle({.keep_in_core_dumps = false}));
    if (filter() != 0x33) return "changed";
    value_of(unsettle());
    value_of(settle());
    return filter() == 0x37 ? "fine" : "not set";
  });
  EXPECT_EQ(child.said, "fine");
}

// Each write of a handler is in the memory afterwards, whichever instruction it interrupts.
TEST(Settle, SignalsInTheMiddleLoseNoWrite) {
  Blocks blocks(16_MiB);
  const test::Flips flips(blocks[0] + 8_MiB);
  for (int i = 0; i < 5; ++i) {
    value_of(settle());
    value_of(unsettle());
  }
  EXPECT_FALSE(flips.are_lost());
}

TEST(Settle, ProgressReachesTheEnd) {
  Blocks blocks(80_MiB);
  std::vector<std::pair<std::size_t, std::size_t>> calls;
  calls.reserve(100);
  value_of(settle(
      {.progress = [&](std::size_t done, std::size_t total) { calls.emplace_back(done, total); }}));
  ASSERT_GE(calls.size(), 2U);
  EXPECT_EQ(calls.back().first, calls.back().second);
  EXPECT_TRUE(std::ranges::is_sorted(calls));
}

// The caller may free blocks that are still to be moved.
TEST(Settle, WhatProgressFreesIsLeft) {
  Blocks blocks(36_MiB, 3);
  std::size_t victim = 0;  // the highest is moved last
  for (std::size_t i = 1; i < 3; ++i)
    if (blocks[i] > blocks[victim]) victim = i;
  unsigned char* const freed = blocks[victim];
  std::optional<Pages> other;
  const Settled settled = value_of(settle({.progress = [&](std::size_t, std::size_t) {
    if (other) return;
    blocks.remove(victim);
    other.emplace(36_MiB + 4_KiB);  // probably there
  }}));
  EXPECT_EQ(blocks.damage(), 0U);
  EXPECT_TRUE(other->is_all(7));
  EXPECT_FALSE(test::holds(settled.moved, freed + 1_MiB));
}

// What a program that is executed in the middle prints: its descriptors and settled mappings.
TEST(Settle, ProgramsExecutedMeanwhileHaveNothingOfIt) {
  Blocks blocks(80_MiB);
  std::string said;
  value_of(settle({.progress = [&](std::size_t, std::size_t) {
    FILE* const pipe =
        popen("ls -l /proc/self/fd; cat /proc/self/maps; grep SigBlk /proc/self/status", "re");
    std::array<char, 4096> text = {};
    while (fgets(text.data(), text.size(), pipe) != nullptr) said += text.data();
    pclose(pipe);
  }}));
  EXPECT_THAT(said, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(said, testing::Not(HasSubstr("cowshed-settled")));
  EXPECT_EQ(blocks.damage(), 0U);
}

struct Refused {
  const char* name;
  long number;
  std::optional<test::Argument> where;
  int error;
};
class SettleRefused : public testing::TestWithParam<Refused> {};

INSTANTIATE_TEST_SUITE_P(Each, SettleRefused,
                         testing::Values(Refused{"memfd_create", SYS_memfd_create, {}, EMFILE},
                                         Refused{"ftruncate", SYS_ftruncate, {}, ENOMEM},
                                         Refused{"pwrite", SYS_pwrite64, {}, ENOSPC},
                                         Refused{"mmap", SYS_mmap, test::Argument{3, MAP_PRIVATE},
                                                 ENOMEM},
                                         Refused{"mremap", SYS_mremap, {}, ENOMEM}),
                         [](const auto& test) { return std::string(test.param.name); });

// From the beginning, or after a part has moved.  Too little memory looks like this, too.
TEST_P(SettleRefused, CallsLeaveNothingHalfMoved) {
  for (const bool at_once : {true, false}) {
    const auto child = run_in_child([&]() -> std::string {
      Blocks blocks(30_MiB, 5);
      const auto refuse = [] {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        test::refuse_call(GetParam().number, GetParam().where, GetParam().error);
      };
      bool has_begun = at_once;
      if (at_once) refuse();
      const std::size_t descriptors = test::open_descriptors();
      const auto settled = settle({.progress = [&](std::size_t, std::size_t) {
        if (!std::exchange(has_begun, true)) refuse();
      }});
      if (blocks.damage() != 0) return "damaged";
      if (test::open_descriptors() != descriptors) return "a descriptor is left";
      std::size_t moved = 0;
      for (std::size_t i = 0; i < 5; ++i)
        for (std::size_t at = 0; at < 30_MiB; at += 1_MiB) moved += is_settled(blocks[i] + at);
      if (at_once)
        return settled || moved > 0 ? "moved" : std::to_string(settled.error().system_errno);
      if (!settled) return settled.error().message;
      if (moved < 30 || moved > 120) return "moved " + std::to_string(moved) + " MiB";
      for (std::size_t i = 0; i < 5; ++i) {
        for (std::size_t at = 0; at < 30_MiB; at += 1_MiB)
          if (is_settled(blocks[i] + at) != test::holds(settled->moved, blocks[i] + at) ||
              is_settled(blocks[i] + at) != reason_at(*settled, blocks[i] + at).empty())
            return "says what is not so";
      }
      const auto continues = [](const LeftMemory& one, const LeftMemory& next) {
        return one.reason == next.reason && one.memory.end() == next.memory.begin();
      };
      if (std::ranges::adjacent_find(settled->left, continues) != settled->left.end())
        return "says it in pieces";
      return std::to_string(GetParam().error);
    });
    EXPECT_EQ(child.signal, 0);
    EXPECT_EQ(child.said, std::to_string(GetParam().error)) << (at_once ? "at once" : "later");
  }
}

TEST(Settle, TakesAMappingThatGrowsWhileItIsListedOnce) {
  std::istringstream smaps(
      "1000-5000 rw-p 00000000 00:00 0 \nAnonymous: 16 kB\n"
      "1000-9000 rw-p 00000000 00:00 0 \nAnonymous: 32 kB\n"
      "1000-9000 rw-p 00000000 00:00 0 \nAnonymous: 32 kB\n"
      "8000-b000 ---p 00000000 00:00 0 \n"
      "a000-c000 rw-p 00000000 00:00 0 \nAnonymous: 8 kB\n");
  std::vector<settling::Range> ranges;
  for (const auto& mapping : settling::parse_smaps(smaps, std::pmr::get_default_resource()))
    ranges.push_back(mapping.range);
  EXPECT_THAT(ranges,
              testing::ElementsAre(settling::Range{0x1000, 0x5000}, settling::Range{0x5000, 0x9000},
                                   settling::Range{0xb000, 0xc000}));
}

TEST(Settle, NeedsPagesOf4KiB) {
  page_size = 65536;
  const auto settled = settle();
  const auto reshared = reshare();
  page_size = 4096;
  EXPECT_THAT(settled, Fails(ErrorCode::unsupported, "pages of 65536 bytes"));
  EXPECT_THAT(reshared, Fails(ErrorCode::unsupported, "pages of 65536 bytes"));
}

TEST(Settle, InACallOfItsOwnIsRefused) {
  const Blocks blocks = some_blocks();
  std::optional<ErrorCode> code;
  value_of(settle({.progress = [&](std::size_t, std::size_t) { code = code_of(settle()); }}));
  EXPECT_EQ(code, ErrorCode::in_use);
}

}  // namespace
}  // namespace cowshed
