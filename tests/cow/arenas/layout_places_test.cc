#include <cowshed/base/published_layout.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/open_backend.h>
#include <cowshed/probes/probe.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/arena.h>
#include <cowshed/tests/cow/children.h>
#include <cowshed/tests/support/needs_probes.h>

// Programs that have taken addresses where the layout usually lies.
namespace cowshed::cow {
namespace {

using Places = std::vector<std::uint64_t>;
using Work = std::function<void()>;

constexpr std::size_t kBytes = 1_MiB;
const Places all_places(std::begin(cowshed_layout_places), std::end(cowshed_layout_places));

void take(const Places& places) {
  for (const std::uint64_t place : places) {
    void* const at = reinterpret_cast<void*>(place);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    if (::mmap(at, kPageSize, PROT_READ, flags, -1, 0) != at) ::_exit(1);
  }
}

void freeze_arena() {
  static Arena arena = Arena::create({.name = "frozen", .capacity = 64_MiB}).value();
  (void)arena.resource()->allocate(kBytes);
  if (!arena.freeze()) ::_exit(1);
}

void fork_child() {
  cowshed::test::run_in_child([] { return ""; });
}

TEST(LayoutPlaces, AReaderFindsTheLayoutAtAny) {
  for (const Places& taken : {Places(), Places{all_places[0]}, Places{all_places[1]}, all_places}) {
    test::PausedChild sender([&] {
      take(taken);
      internal::TransferCounter("freeze", "").add("int", TransferKind::inherited, 1, 4);
    });
    const auto before = read_sent_objects(ProcFiles(), sender.pid());
    EXPECT_FALSE(before);
    sender.work();
    const auto sent = read_sent_objects(ProcFiles(), sender.pid());
    ASSERT_TRUE(sent) << sent.error().message;
    EXPECT_THAT(*sent, SizeIs(1));
    EXPECT_TRUE(inherited_freeze(ProcFiles(), sender.pid()));
  }
}

class ArenasAtFork : public cowshed::test::NeedsProbes {
 protected:
  // Bytes of the child that a process forks at the end of `work`.
  static std::optional<std::uint64_t> after(const Work& work) {
    auto probe = Probe::load().value();
    test::PausedChild parent([&] {
      work();
      fork_child();
    });
    EXPECT_EQ(probe.attach_trees(std::array{parent.pid()}).value().processes, 1);
    parent.work();
    for (const ProcessCounts& process : probe.snapshot().value().processes)
      if (process.ppid == parent.pid()) return process.shared_at_fork_arena_bytes;
    throw std::runtime_error("no child was seen");
  }
  static std::optional<std::uint64_t> with_taken(const Places& places) {
    return after([&] {
      take(places);
      freeze_arena();
    });
  }
};

TEST_F(ArenasAtFork, AreFoundWhereAProgramTookTheUsualPlace) {
  const auto usual = with_taken({});
  ASSERT_TRUE(usual);
  EXPECT_GE(*usual, kBytes);
  EXPECT_EQ(with_taken({all_places[0]}), usual);
}

// A second copy of the library has a second layout.
TEST_F(ArenasAtFork, OfTwoLayoutsAreAddedUp) {
  const auto usual = with_taken({});
  ASSERT_TRUE(usual);
  EXPECT_EQ(
      after([] {
        freeze_arena();
        const auto* first = reinterpret_cast<const layout::Header*>(all_places[0]);
        const FileDescriptor file(::memfd_create(COWSHED_LAYOUT_MEMFD, MFD_CLOEXEC));
        void* const second = std::bit_cast<void*>(all_places[1]);
        constexpr int kFlags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        if (::ftruncate(file.get(), static_cast<off_t>(first->bytes)) != 0 ||
            ::mmap(second, first->bytes, PROT_READ | PROT_WRITE, kFlags, file.get(), 0) != second)
          std::abort();
        std::memcpy(second, first, first->arenas.offset + first->arenas.entry_bytes);
      }),
      2 * *usual);
}

TEST_F(ArenasAtFork, AreUnknownWhereAProgramTookEveryPlace) {
  EXPECT_EQ(with_taken(all_places), std::nullopt);
}

TEST_F(ArenasAtFork, AreUnknownInALayoutOfAnotherVersion) {
  EXPECT_EQ(after([] {
              freeze_arena();
              reinterpret_cast<layout::Header*>(all_places[0])->major = 9;
            }),
            std::nullopt);
}

TEST_F(ArenasAtFork, AreNoneInAProgramWithoutALayout) {
  EXPECT_EQ(after([] { take({all_places[0]}); }), 0U);
}

TEST_F(ArenasAtFork, AreThoseThatALivingChildHasIfTheyWereUnknown) {
  const auto backend = open_backend(BackendChoice::tracepoint).value().backend;
  test::PausedChild parent([&] {
    take(all_places);
    freeze_arena();
    fork_child();
    static cowshed::test::Child living([](const cowshed::test::Line& line) {
      line.hear();
      return 0;
    });
  });
  ASSERT_TRUE(backend->attach({parent.pid()}));
  parent.work();
  ASSERT_TRUE(backend->sample());
  const auto processes = backend->measurement().processes;
  ASSERT_EQ(processes.size(), 3U);
  EXPECT_FALSE(processes[1].alive);
  EXPECT_EQ(processes[1].shared_at_fork_bytes, std::nullopt);
  EXPECT_THAT(processes[1].not_measured.value_or(""), HasSubstr("could not be found"));
  EXPECT_GE(processes[2].shared_at_fork_bytes.value_or(0), kBytes);
  EXPECT_EQ(processes[2].not_measured, std::nullopt);
}

}  // namespace
}  // namespace cowshed::cow
