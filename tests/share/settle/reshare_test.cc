#include <linux/aio_abi.h>

#include <cowshed/share/settle/resharer.h>
#include <cowshed/tests/share/settle/settling.h>
#include <cowshed/tests/support/refusals.h>

namespace cowshed {
namespace {

using settling::Resharer;
using test::own_pages;

// Memory whose pages differ, settled as a memfd of its own.
class SettledPages : public testing::Test {
 protected:
  static constexpr std::size_t kPages = 256;
  static constexpr std::size_t kPage = 4_KiB;

  SettledPages() {
    for (std::size_t i = 0; i < kPages; ++i) std::memset(page(i), letter(i), kPage);
    value_of(settle({.also = {std::as_bytes(pages_)}, .heap = false}));
  }

  static unsigned char letter(std::size_t i) { return static_cast<unsigned char>(i % 251 + 1); }
  unsigned char* page(std::size_t i) const { return pages_.data() + i * kPage; }
  // As a reference count goes up and down.
  static void touch(unsigned char* page) {
    volatile unsigned char* const byte = page + 100;
    *byte = *byte + 1;
    *byte = *byte - 1;
  }
  void touch(std::size_t first, std::size_t count) const {
    for (std::size_t i = first; i < first + count; ++i) touch(page(i));
  }
  // How many pages of [first, first + count) have wrong bytes.
  std::size_t damage(std::size_t first = 0, std::size_t count = kPages) const {
    std::size_t wrong = 0;
    for (std::size_t i = first; i < first + count; ++i)
      wrong += std::count(page(i), page(i) + kPage, letter(i)) != kPage ? 1 : 0;
    return wrong;
  }
  std::size_t own() const { return own_pages(pages_.data(), kSize); }
  // Of this memory alone: settle() has moved no heap.
  static Reshared reshare_all(const ReshareOptions& options = {}) {
    return value_of(reshare(options));
  }
  std::string reason(const Reshared& reshared) const {
    return test::reason_at(reshared, pages_.data());
  }

  // Within one of the steps of 16 MiB that settle() and reshare() take.
  static constexpr std::size_t kSize = kPages * kPage;
  const test::Pages room_{2 * kSize};
  const std::span<unsigned char> pages_{
      room_.data() + kSize - reinterpret_cast<std::uintptr_t>(room_.data()) % kSize, kSize};
};
using Reshare = SettledPages;

TEST_F(Reshare, GivesBackTheCopiesThatChangedNothing) {
  touch(0, 100);
  page(3)[7] ^= 1U;
  const Reshared reshared = reshare_all();
  EXPECT_EQ(reshared.compared_bytes, 100 * kPage);
  EXPECT_EQ(reshared.given_back_bytes, 99 * kPage);
  EXPECT_EQ(own(), 1U);
  page(3)[7] ^= 1U;
  EXPECT_EQ(damage(), 0U);
  EXPECT_GT(reshared.longest_pause, 0ns);
  EXPECT_GT(reshared.cpu, 0ns);
  EXPECT_GE(reshared.time, reshared.longest_pause);
}

TEST_F(Reshare, LeavesNoMappingAndNoDescriptor) {
  touch(0, kPages);
  const std::size_t descriptors = test::open_descriptors();
  const std::size_t mappings = test::all_mappings().size();
  for (int i = 0; i < 3; ++i) reshare_all({.cold_for = 1ms});
  EXPECT_EQ(test::open_descriptors(), descriptors);
  EXPECT_EQ(test::all_mappings().size(), mappings);
}

TEST_F(Reshare, WorksInChildrenAndTheirChildrenOnceTheParentHasSettledAnew) {
  const Child child([&](const test::Line& test) {
    test.hear();
    touch(0, 50);
    const auto grandchild = run_in_child([&] {
      touch(50, 50);
      const Reshared reshared = reshare_all();
      return damage() == 0 ? std::to_string(reshared.given_back_bytes / kPage) : "damaged";
    });
    test.say(grandchild.said);
    const Reshared reshared = reshare_all();
    test.say(damage() == 0 ? std::to_string(reshared.given_back_bytes / kPage) : "damaged");
    return 0;
  });
  for (std::size_t i = 0; i < kPages; ++i) std::memset(page(i), letter(i) ^ 0x80U, kPage);
  const ino_t before = test::inode_at(page(0));
  value_of(settle({.heap = false}));
  EXPECT_NE(test::inode_at(page(0)), before);
  touch(0, 10);
  EXPECT_EQ(reshare_all().given_back_bytes, 10 * kPage);
  EXPECT_EQ(page(9)[0], letter(9) ^ 0x80U);
  child.say();
  EXPECT_EQ(child.hear(), "100");
  EXPECT_EQ(child.hear(), "50");
}

// Such a page has the memfd's bytes, and is no copy.
TEST_F(Reshare, LeavesPagesThatTheProgramGaveBackItself) {
  touch(0, 10);
  page(2)[0] = 0;
  ASSERT_EQ(madvise(page(2), 2 * kPage, MADV_DONTNEED), 0);
  const Reshared reshared = reshare_all();
  EXPECT_EQ(reshared.given_back_bytes, 8 * kPage);
  EXPECT_EQ(damage(), 0U);
}

TEST_F(Reshare, LeavesMemoryThatIsNotWritableOrNotReadable) {
  touch(0, kPages);
  ASSERT_EQ(mprotect(page(0), 10 * kPage, PROT_READ), 0);
  ASSERT_EQ(mprotect(page(10), 10 * kPage, PROT_NONE), 0);
  EXPECT_EQ(reshare_all().given_back_bytes, (kPages - 20) * kPage);
  ASSERT_EQ(mprotect(page(0), 20 * kPage, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(own(), 20U);
  EXPECT_EQ(damage(), 0U);
}

TEST_F(Reshare, LeavesLockedMemoryLocked) {
  touch(0, 1);
  ASSERT_EQ(mlock(page(0), kPages * kPage), 0);
  const std::size_t locked = test::figure_of("/proc/self/status", "VmLck");
  EXPECT_EQ(reason(reshare_all()), "is locked (mlock)");
  EXPECT_EQ(test::figure_of("/proc/self/status", "VmLck"), locked);
  EXPECT_EQ(own(), kPages);
  munlock(page(0), kPages * kPage);
}

TEST_F(Reshare, LeavesWhatKsmMerges) {
  if (madvise(page(0), kPages * kPage, MADV_MERGEABLE) != 0)
    GTEST_SKIP() << "MADV_MERGEABLE: " << std::strerror(errno);
  touch(0, 10);
  EXPECT_EQ(reason(reshare_all()), "is merged by KSM (MADV_MERGEABLE)");
  EXPECT_EQ(damage(), 0U);
}

TEST_F(Reshare, LeavesWhatIsToBeLeft) {
  touch(0, kPages);
  const auto left = std::span<const unsigned char>(page(20) + 5, kPage);
  EXPECT_EQ(reshare_all({.leave = {std::as_bytes(left)}}).given_back_bytes, (kPages - 2) * kPage);
  EXPECT_EQ(own_pages(page(20), 2 * kPage), 2U);
}

TEST_F(Reshare, KeepsEveryByteWhereMremapIsRefused) {
  for (const int error : {EPERM, ENOMEM}) {
    const auto child = run_in_child([&]() -> std::string {
      touch(0, kPages);
      page(0)[7] ^= 1U;
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      test::refuse_call(SYS_mremap, {}, error);
      const auto reshared = reshare();
      page(0)[7] ^= 1U;
      if (damage() != 0 || own() != kPages) return "damaged";
      return reshared ? reason(*reshared) : std::to_string(reshared.error().system_errno);
    });
    EXPECT_EQ(child.said, error == EPERM ? "is sealed (mseal), or a sandbox refuses mremap"
                                         : std::to_string(error));
  }
}

// The kernel knows which page of the memfd belongs there.
TEST_F(Reshare, ComparesMovedMappingsWithTheirOwnPages) {
  touch(0, kPages);
  const test::Pages room(32 * kPage);
  ASSERT_NE(mremap(page(64), 16 * kPage, 16 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room.data()),
            MAP_FAILED);
  ASSERT_NE(mremap(page(100), 16 * kPage, 16 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED,
                   room.data() + 16 * kPage),
            MAP_FAILED);
  ASSERT_NE(mmap(page(200), 8 * kPage, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
            MAP_FAILED);
  std::memset(page(200), 9, 8 * kPage);
  EXPECT_EQ(reshare_all().given_back_bytes, (kPages - 8) * kPage);
  EXPECT_EQ(own_pages(room.data(), 32 * kPage), 0U);
  for (std::size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(room.data()[i * kPage], letter(64 + i));
    EXPECT_EQ(room.data()[(16 + i) * kPage], letter(100 + i));
  }
  EXPECT_EQ(std::count(page(200), page(208), 9), 8 * kPage);
  EXPECT_EQ(damage(0, 64) + damage(80, 20) + damage(116, 84) + damage(208, 48), 0U);
}

TEST_F(Reshare, RefusesAProcessWithAsynchronousIo) {
  aio_context_t context = 0;
  ASSERT_EQ(syscall(SYS_io_setup, 1, &context), 0) << std::strerror(errno);
  touch(0, 1);
  EXPECT_THAT(reshare(), Fails(ErrorCode::unsupported, "io_setup"));
  EXPECT_EQ(reshare_all({.io_is_at_rest = true}).given_back_bytes, kPage);
  syscall(SYS_io_destroy, context);
}

TEST_F(Reshare, EndsWhereIoBeginsMeanwhileAndWhereItsPauseSaysSo) {
  aio_context_t context = 0;
  touch(0, 1);
  const auto begin_io = [&](auto) { return syscall(SYS_io_setup, 1, &context) == 0; };
  EXPECT_THAT(reshare({.pause = begin_io}), Fails(ErrorCode::unsupported, "io_setup"));
  syscall(SYS_io_destroy, context);
  EXPECT_THAT(reshare({.pause = [](auto) { return false; }}),
              Fails(ErrorCode::interrupted, ".pause"));

  test::Pages more(40_MiB);
  std::memset(more.data(), 1, 40_MiB);
  context = 0;
  const auto settled = value_of(settle({.also = {more.span()},
                                        .heap = false,
                                        .threads = OtherThreads::stop,
                                        .progress = [&](auto, auto) { begin_io(0); }}));
  EXPECT_LT(settled.moved_bytes, 40_MiB);
  EXPECT_THAT(test::reason_at(settled, more.data() + 36_MiB), testing::HasSubstr("io_setup"));
  syscall(SYS_io_destroy, context);
  EXPECT_EQ(damage(), 0U);
}

TEST_F(Reshare, RefusesAProcessThatUsesItsParentsMemory) {
  touch(0, 1);
  struct Asked {
    std::optional<Expected<Reshared>> reshared;
    std::optional<Expected<Settled>> settled;
  } asked;
  std::vector<char> stack(1_MiB);
  const auto ask = [](void* argument) {
    auto& answers = *static_cast<Asked*>(argument);
    answers.reshared = reshare();
    answers.settled = settle();
    return 0;
  };
  const pid_t child =
      clone(ask, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD, &asked);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_THAT(*asked.reshared,
              Fails(ErrorCode::unsupported, "another process has the same memory"));
  EXPECT_THAT(*asked.settled, Fails(ErrorCode::unsupported, "another process has the same memory"));
  EXPECT_EQ(own(), 1U);
}

TEST_F(Reshare, RefusesOtherThreadsUnlessItMayStopThem) {
  touch(0, 10);
  std::atomic<bool> over = false;
  const std::jthread other([&] { over.wait(false); });
  EXPECT_THAT(reshare(), Fails(ErrorCode::threads_running));
  EXPECT_EQ(reshare_all({.threads = OtherThreads::stop, .stop_timeout = 60s}).given_back_bytes,
            10 * kPage);
  over = true;
  over.notify_all();
}

TEST_F(Reshare, LeavesPagesThatWereWrittenBetweenTwoLooks) {
  touch(0, 10);
  settling::PlanMemory memory;
  Resharer resharer = value_of(Resharer::create({}, &memory));
  ASSERT_THAT(resharer.look(), Succeeds());
  page(3)[7] ^= 1U;
  touch(20, 5);
  Reshared reshared;
  ASSERT_THAT(resharer.give_back(reshared), Succeeds());
  EXPECT_EQ(reshared.given_back_bytes, 9 * kPage);
  EXPECT_EQ(own_pages(page(3), kPage) + own_pages(page(20), 5 * kPage), 6U);
}

std::span<unsigned char> untouched;

TEST_F(Reshare, LeavesPagesThatAreCopiedWhileItWaits) {
  untouched = {page(0), kPages * kPage};
  struct sigaction action = {};
  action.sa_handler = [](int) {
    if (untouched.empty()) return;
    touch(untouched.data());
    untouched = untouched.subspan(kPage);
  };
  sigaction(SIGALRM, &action, nullptr);
  test::ring_every(1'000);
  const Reshared reshared = reshare_all({.cold_for = 100ms});
  test::ring_every(0);
  EXPECT_GE(reshared.time, 100ms);
  EXPECT_GE(own(), 3U);
  EXPECT_EQ(damage(), 0U);
}

// As other threads may change them.
TEST_F(Reshare, DropsNothingOfMappingsThatChangedBetweenTwoLooks) {
  using Change = std::function<bool()>;
  for (const Change& change : std::initializer_list<Change>{
           [&] { return munmap(page(8), kPage) == 0; },
           [&] { return mprotect(page(8), kPage, PROT_READ) == 0; },
           [&] { return mprotect(page(8), kPage, PROT_NONE) == 0; },
           [&] {
             return mremap(page(0), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, page(8)) ==
                    page(8);
           }}) {
    const auto child = run_in_child([&]() -> std::string {
      touch(0, kPages);
      settling::PlanMemory memory;
      Resharer resharer = value_of(Resharer::create({}, &memory));
      if (!resharer.look() || !change()) return "failed";
      Reshared reshared;
      if (!resharer.give_back(reshared)) return "failed";
      return own() < kPages - 1 || damage(9, kPages - 9) > 0 ? "dropped" : reason(reshared);
    });
    EXPECT_EQ(child.said, "was changed meanwhile");
  }
}

TEST_F(Reshare, LosesNoWriteOfSignalHandlers) {
  const test::Flips flips(page(kPages - 1));
  for (int i = 0; i < test::little_or(100, 1'000); ++i) {
    touch(0, kPages - 1);
    reshare_all();
  }
  EXPECT_FALSE(flips.are_lost());
  EXPECT_EQ(damage(0, kPages - 1), 0U);
}

// Each of them counts up and down in every page, and expects to read what it wrote.
TEST_F(Reshare, LosesNoWriteOfThreadsThatItStops) {
  std::atomic<bool> over = false;
  std::atomic<std::size_t> lost = 0;
  std::size_t given_back = 0;
  {
    const auto threads = begin_threads(std::size_t{2}, [&](std::size_t self) {
      for (std::size_t i = 0; !over; i = (i + 1) % kPages) {
        volatile unsigned char* const byte = page(i) + self;
        for (const int change : {1, -1}) {
          const auto written = static_cast<unsigned char>(*byte + change);
          *byte = written;
          for (int reads = 0; reads < 20; ++reads) lost += *byte != written ? 1 : 0;
        }
      }
    });
    for (int i = 0; i < test::little_or(30, 1'000) && !HasFailure(); ++i) {
      const auto reshared = reshare({.threads = OtherThreads::stop, .stop_timeout = 60s});
      EXPECT_THAT(reshared, Succeeds());
      given_back += reshared ? reshared->given_back_bytes : 0;
    }
    over = true;
  }
  EXPECT_GT(given_back, 0U);
  EXPECT_EQ(lost, 0U);
  EXPECT_EQ(damage(), 0U);
}

TEST_F(Reshare, ChildrenThatAreForkedMeanwhileHaveNoMappingOfIt) {
  touch(0, kPages);
  std::atomic<bool> over = false;
  std::atomic<std::size_t> most = 0;
  {
    const std::jthread other([&] {
      while (!over) {
        const auto child = run_in_child([] {
          std::array<char, 8192> buffer;
          std::size_t settled = 0;
          settling::visit_maps(buffer, [&](const auto& line) { settled += line.is_settled(); });
          return std::to_string(settled);
        });
        most = std::max<std::size_t>(most, std::stoul(child.said));
      }
    });
    for (int i = 0; i < test::little_or(30, 1'000); ++i) {
      page(0)[0] ^= 1U;
      (void)reshare({.threads = OtherThreads::stop, .stop_timeout = 60s});
    }
    over = true;
  }
  EXPECT_EQ(most, 1U);
}

TEST_F(Reshare, TakesNoMoreThanItsPartOfACpu) {
  touch(0, kPages);
  const Reshared reshared = reshare_all({.cpu_share = 0.05});
  EXPECT_EQ(reshared.given_back_bytes, kPages * kPage);
  EXPECT_GE(reshared.time, 10 * reshared.cpu);
}

}  // namespace
}  // namespace cowshed
