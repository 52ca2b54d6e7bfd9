#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <exceptions.skel.h>
#include <wp_faults.skel.h>

#include <cowshed/base/clock.h>
#include <cowshed/tests/support/setting.h>

#include "subject.h"
#include "truths.h"

// Every count is compared with what a known program did, less what the same program does for N = 0.

namespace cowshed::test {
namespace {

template <class Skeleton>
Expected<void> start(Skeleton* skeleton, const char* what, int (*load)(Skeleton*),
                     int (*attach)(Skeleton*)) {
  // Where it is refused, that is no news: libbpf need not print it.
  const auto before = libbpf_set_print(nullptr);
  int error = skeleton == nullptr ? -ENOMEM : load(skeleton);
  if (error == 0) error = attach(skeleton);
  libbpf_set_print(before);
  if (error != 0) return system_error(what, -error);
  return {};
}

// An oracle: how often something happened in the kernel, by process, from its start until this is
// destroyed.  Needs root.
class KernelCount {
 public:
  // Entries of do_wp_page, the kernel's own function for writes to pages that are there and may not
  // be written to: the sum of what it decides, be it a copy, a reuse or a notification.  By fentry,
  // which many locked-down kernels do not let in.
  static Expected<KernelCount> wp_faults() {
    const std::shared_ptr<wp_faults_bpf> programs(wp_faults_bpf__open(), wp_faults_bpf__destroy);
    return start(programs.get(), "fentry/do_wp_page", wp_faults_bpf__load, wp_faults_bpf__attach)
        .map([&] { return KernelCount(programs, programs->maps.counts); });
  }
  // Page-fault exceptions with the write bit, less those of the kernel in its own memory.
  static Expected<KernelCount> exceptions() {
    const std::shared_ptr<exceptions_bpf> programs(exceptions_bpf__open(), exceptions_bpf__destroy);
    return start(programs.get(), "raw_tp/page_fault", exceptions_bpf__load, exceptions_bpf__attach)
        .map([&] { return KernelCount(programs, programs->maps.counts); });
  }

  // Of a whole process, alive or not.  `process` is a PID of the machine's own PID namespace.
  std::uint64_t of(pid_t process) const {
    const auto key = static_cast<std::uint32_t>(process);
    std::uint64_t value = 0;  // of a process without any, which the map does not have
    bpf_map__lookup_elem(counts_, &key, sizeof key, &value, sizeof value, 0);
    return value;
  }

 private:
  KernelCount(std::shared_ptr<void> programs, const bpf_map* counts)
      : programs_(std::move(programs)), counts_(counts) {}

  std::shared_ptr<void> programs_;
  const bpf_map* counts_;
};

bool in_first_pid_namespace() {
  constexpr ino_t kFirst = 0xEFFFFFFC;  // PROC_PID_INIT_INO, include/linux/proc_ns.h
  struct stat status{};
  return stat("/proc/self/ns/pid", &status) == 0 && status.st_ino == kFirst;
}

class GroundTruth : public WithProbe {
 protected:
  static void SetUpTestSuite() {
    if (cannot_probe().empty()) {
      if (access(kDelayAccounting, F_OK) == 0)
        accounting = std::make_unique<Setting>(kDelayAccounting, "1");
      // In a PID namespace of our own nobody tells us the machine's PIDs, by which these count.
      if (!in_first_pid_namespace()) return;
      exceptions = std::make_unique<KernelCount>(KernelCount::exceptions().value());
      if (auto loaded = KernelCount::wp_faults())
        wp_faults = std::make_unique<KernelCount>(std::move(*loaded));
      else if (std::getenv("COWSHED_EXPECT_FENTRY") != nullptr) FAIL() << loaded.error().message;
    }
  }
  static void TearDownTestSuite() {
    wp_faults.reset();
    exceptions.reset();
    accounting.reset();
  }

  SubjectRun run(const std::string& kind, long n) {
    const std::uint64_t before = monotonic_ns();
    SubjectRun result = run_subject(*probe_, kind, n);
    EXPECT_GE(result.measured.start_ns, before);
    EXPECT_LE(result.measured.start_ns, monotonic_ns());
    EXPECT_EQ(result.losses.lost(), 0U);
    EXPECT_EQ(result.losses.vma_misses, 0U);
    EXPECT_EQ(result.overhead.slow_lookups, 0U);
    EXPECT_NE(result.measured.pid, 0) << "the measured process was not tracked";
    for (const ProcessCounts& process : result.processes) {
      EXPECT_FALSE(process.alive);
      EXPECT_EQ(process.pending_faults, 0U);
      EXPECT_EQ(sum_of_classes(process), process.write_faults) << process.comm;
      // A command's own start is not counted.
      if (exceptions && process.role == Role::child)
        EXPECT_EQ(process.write_faults, exceptions->of(process.pid)) << process.comm;
    }
    EXPECT_EQ(sum_of_classes(result.while_alive) + result.while_alive.pending_faults,
              result.while_alive.write_faults);
    return result;
  }

  static std::uint64_t sum_of_classes(const ProcessCounts& of) {
    std::uint64_t sum = of.zero_filled_faults;
    const auto add = [&](std::string_view kind, std::optional<std::uint64_t> faults) {
      if (!kind.empty() && kind != "zero_filled") sum += faults.value();
    };
#define COWSHED_ADD_CLASS(name, counter, column, kind, ...) add(kind, of.name);
    COWSHED_COUNTS(COWSHED_ADD_CLASS)
#undef COWSHED_ADD_CLASS
    return sum;
  }

  void check(const Truth& truth, long n) {
    const std::string kind = truth.kind;
    SCOPED_TRACE(kind + " " + std::to_string(n));
    const Conditions conditions(truth.needs, n);
    if (!conditions.missing().empty()) GTEST_SKIP() << conditions.missing();
    const SubjectRun idle = run(kind, 0);
    const SubjectRun busy = run(kind, n);
    compare(truth, n, idle.measured, busy.measured);
    compare(truth, n, idle.while_alive, busy.while_alive);
    if (truth.needs == Needs::memory_limit) EXPECT_TRUE(conditions.limit_was_reached());
    EXPECT_EQ(busy.while_alive.pending_faults, 0U);
    check_wp_faults(truth.per_unit, n, idle.measured.pid, busy.measured.pid);
    // Where the kernel keeps the independent count, a run without it proves less than it says.
    if (accounting != nullptr) {
      ASSERT_TRUE(idle.wpcopy && busy.wpcopy) << "taskstats did not answer";
      const auto instead = copied_instead(truth.per_unit, n, idle.measured, busy.measured);
      const auto expected = static_cast<std::int64_t>(truth.per_unit.wpcopy) * n + instead;
      const auto counted = delta(*idle.wpcopy, *busy.wpcopy);
      EXPECT_GE(counted, expected - most_unseen(*busy.wpcopy)) << "taskstats";
      EXPECT_LE(counted, expected + most_unseen(*idle.wpcopy)) << "taskstats";
    }
  }

  // By the kernel's function itself, where it may be watched.
  static void check_wp_faults(const PerUnit& unit, long n, pid_t idle, pid_t busy) {
    if (wp_faults == nullptr) return;
    EXPECT_EQ(delta(wp_faults->of(idle), wp_faults->of(busy)),
              static_cast<std::int64_t>(unit.wp_faults()) * n)
        << "do_wp_page";
  }

  static std::int64_t delta(std::optional<std::uint64_t> from, std::optional<std::uint64_t> to) {
    return static_cast<std::int64_t>(to.value() - from.value());
  }

  // The kernel copies a page for its last sharer, too, while something else refers to it: another
  // CPU's batch of the page lists, compaction.  No program can foresee that; taskstats confirms it.
  static std::int64_t copied_instead(const PerUnit& unit, long n, const ProcessCounts& from,
                                     const ProcessCounts& to) {
    return delta(from.copied_anon_pages, to.copied_anon_pages) -
           static_cast<std::int64_t>(unit.copied_anon) * n;
  }

  static void compare(const Truth& truth, long n, const ProcessCounts& from,
                      const ProcessCounts& to) {
    const PerUnit& unit = truth.per_unit;
    if (!truth.either) EXPECT_LE(std::abs(copied_instead(unit, n, from, to)), kMostCopiedInstead);
    const auto expect_class = [&](const char* name, auto pages_of, std::uint64_t per_unit) {
      EXPECT_EQ(delta(std::invoke(pages_of, from), std::invoke(pages_of, to)),
                static_cast<std::int64_t>(per_unit) * n)
          << name;
    };
    using Of = ProcessCounts;
    const auto broken = [](const Of& of) {
      return of.copied_anon_pages.value() + of.reused_pages.value();
    };
    const auto splits = [](const Of& of) { return of.huge_splits.value(); };
    const auto merged = [](const Of& of) { return of.copied_merged_pages.value(); };
    const auto collapsed = [](const Of& of) { return of.collapsed_pages.value(); };
    expect_class("copied_anon + reused", broken, unit.copied_anon + unit.reused);
    expect_class("copied_file", &Of::copied_file_pages, unit.copied_file);
    expect_class("zero_page", &Of::zero_page_writes, unit.zero_page_writes);
    expect_class("zero_filled", &Of::zero_filled_faults, unit.zero_filled);
    expect_class("zero_filled_pages", &Of::zero_filled_pages, unit.zero_filled_pages);
    expect_class("write_notify", &Of::write_notify_faults, unit.write_notify);
    expect_class("failed", &Of::failed_faults, unit.failed);
    expect_class("other", &Of::other_faults, unit.other);
    expect_class("huge_splits", splits, unit.huge_splits);
    expect_class("copied_merged_pages", merged, unit.copied_merged);
    expect_class("collapsed_pages", collapsed, unit.collapsed_pages);
    expect_class("copied_hugetlb_pages", &Of::copied_hugetlb_pages, unit.copied_hugetlb);
    expect_class("copied_hugetlb_file_pages", &Of::copied_hugetlb_file_pages,
                 std::min(unit.copied_hugetlb, unit.arena_pages.value_or(0)));
    if (unit.arena_pages) {
      expect_class("arenas", arena_pages, *unit.arena_pages);
    } else {
      constexpr std::int64_t kSmall = 256;
      const auto all = static_cast<std::int64_t>(unit.copied_file) * n;
      const std::int64_t kept = delta(arena_pages(from), arena_pages(to));
      EXPECT_LE(kept, all);
      EXPECT_GE(kept, all - kSmall * static_cast<std::int64_t>(unit.copied_file));
    }
    const auto at_fork = [](const Of& of) { return of.shared_at_fork_anon_bytes.value() / 4096; };
    if (unit.at_fork) expect_class("at fork", at_fork, *unit.at_fork);
  }

  static std::uint64_t arena_pages(const ProcessCounts& of) {
    std::uint64_t pages = 0;
    for (const ArenaCount& arena : of.arenas) pages += arena.copied_pages;
    return pages;
  }

  static constexpr std::int64_t kMostCopiedInstead = 32;
  static std::unique_ptr<Setting> accounting;

 private:
  static constexpr const char* kDelayAccounting = "/proc/sys/kernel/task_delayacct";
  static std::unique_ptr<KernelCount> exceptions;
  static std::unique_ptr<KernelCount> wp_faults;
};

std::unique_ptr<Setting> GroundTruth::accounting;
std::unique_ptr<KernelCount> GroundTruth::exceptions;
std::unique_ptr<KernelCount> GroundTruth::wp_faults;

// Which of them pays, and whether both do, is chance; what is copied is not.
TEST_F(GroundTruth, ThreadsThatWriteToTheSamePagesAtOnce) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) GTEST_SKIP() << "one CPU";
  constexpr long kPages = 5'000;
  const SubjectRun idle = run("threads_at_once", 0);
  const SubjectRun busy = run("threads_at_once", kPages);
  const std::int64_t copied =
      delta(idle.while_alive.copied_anon_pages, busy.while_alive.copied_anon_pages);
  EXPECT_GE(copied, kPages);
  EXPECT_LE(copied, 2 * kPages);
  const std::int64_t tried = delta(idle.while_alive.write_faults, busy.while_alive.write_faults);
  RecordProperty("copied_twice", std::to_string(copied - kPages));
  RecordProperty("too_late", std::to_string(tried - copied));
  if (accounting != nullptr) {
    // Whoever is too late may have a copy by then, which is thrown away; wp_page_copy() of
    // mm/memory.c has counted it.
    const std::int64_t begun = delta(*idle.wpcopy, *busy.wpcopy);
    EXPECT_GE(begun, copied - most_unseen(*busy.wpcopy));
    EXPECT_LE(begun, tried + most_unseen(*busy.wpcopy));
  }
}

// One million faults, or as many as COWSHED_FAULTS says.
TEST_F(GroundTruth, NoneOfAMillionFaultsOnTwoCpusIsLost) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) GTEST_SKIP() << "one CPU";
  constexpr long kFaultsOfRound = 20'000;
  const char* wanted = std::getenv("COWSHED_FAULTS");
  const long rounds = (wanted != nullptr ? std::atol(wanted) : 1'000'000) / kFaultsOfRound;
  struct Sums {
    std::uint64_t anonymous = 0;
    std::uint64_t arena = 0;
    std::uint64_t faults = 0;
  };
  const auto sums = [&](const SubjectRun& of) {
    EXPECT_EQ(of.processes.size(), static_cast<std::size_t>(3 + 2 * rounds));
    Sums all;
    for (const ProcessCounts& process : of.processes) {
      all.anonymous += process.copied_anon_pages.value() + process.reused_pages.value();
      all.arena += arena_pages(process);
      all.faults += process.write_faults;
    }
    return all;
  };
  const Sums idle = sums(run("idle_volume", rounds));
  const Sums busy = sums(run("volume", rounds));
  const auto half = static_cast<std::uint64_t>(rounds * kFaultsOfRound / 2);
  EXPECT_EQ(busy.arena, half);
  // Where a child and its parent run at the same time, it is chance who pays for a page of the
  // stack.
  const auto processes = static_cast<double>(3 + 2 * rounds);
  EXPECT_NEAR(static_cast<double>(busy.anonymous - idle.anonymous), static_cast<double>(half),
              processes);
  EXPECT_NEAR(static_cast<double>(busy.faults - idle.faults), static_cast<double>(2 * half),
              processes);
}

TEST_F(GroundTruth, ACopyIsACopyWhileAnotherThreadMapsAndUnmaps) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) GTEST_SKIP() << "one CPU";
  constexpr long kPages = 100'000;
  const ProcessCounts idle = run_subject(*probe_, "mapped_meanwhile", 0).measured;
  const ProcessCounts busy = run_subject(*probe_, "mapped_meanwhile", kPages).measured;
  EXPECT_EQ(delta(idle.copied_file_pages, busy.copied_file_pages), kPages);
  EXPECT_EQ(delta(idle.other_faults, busy.other_faults), 0);
}

// For each page of zram the kernel allocates another, inside the fault that had to wait for it.
TEST_F(GroundTruth, WhatReclaimAllocatesIsNotTheFaults) {
  constexpr long kPages = 20'000;
  const Conditions conditions(Needs::memory_limit_and_compressed_swap, kPages);
  if (!conditions.missing().empty()) GTEST_SKIP() << conditions.missing();
  const ProcessCounts idle = run("filled_under_pressure", 0).measured;
  const ProcessCounts busy = run("filled_under_pressure", kPages).measured;
  EXPECT_EQ(delta(idle.zero_filled_faults, busy.zero_filled_faults), kPages);
  EXPECT_EQ(delta(idle.copied_pages(), busy.copied_pages()), 0);
  EXPECT_TRUE(conditions.limit_was_reached());
}

// A row of the table, `n` times as far as that is worth it.
struct Row {
  Truth truth;
  long n;
};

// NOLINTNEXTLINE(readability-identifier-naming)
void PrintTo(const Row& row, std::ostream* out) { *out << row.truth.kind; }

constexpr std::array kCounts = {1L, 1'000L, 20'000L};

std::vector<Row> rows() {
  std::vector<Row> all;
  for (const Truth& truth : truths()) {
    for (const long n : kCounts) {
      all.push_back({truth, n});
      if (n >= truth.most) break;
    }
  }
  return all;
}

class EveryKind : public GroundTruth, public ::testing::WithParamInterface<Row> {};

TEST_P(EveryKind, IsCountedExactly) {
  const auto& [truth, n] = GetParam();
  check(truth, std::min(n, truth.most));
}

std::string name_of(const ::testing::TestParamInfo<Row>& info) {
  const Truth& truth = info.param.truth;
  const char* where = truth.needs == Needs::compressed_swap ? "_compressed_" : "_";
  return truth.kind + std::string(where) + std::to_string(info.param.n);
}

INSTANTIATE_TEST_SUITE_P(GroundTruth, EveryKind, ::testing::ValuesIn(rows()), name_of);

TEST_F(GroundTruth, RandomKindsAndCounts) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int left = 12; left != 0;) {
    const Truth& truth = truths()[random() % truths().size()];
    if (truth.needs == Needs::nothing) {
      check(truth,
            static_cast<long>(random() % static_cast<unsigned>(std::min(truth.most, 5'000L))));
      --left;
    }
  }
}

}  // namespace
}  // namespace cowshed::test
