#include <bit>
#include <bpf/bpf.h>
#include <cerrno>
#include <cstddef>
#include <string>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/probes/bpf/record.h>
#include <cowshed/probes/loader/bpf_programs.h>
#include <cowshed/probes/loader/kernel_records.h>
#include <cowshed/probes/loader/run_stats.h>
#include <cowshed/probes/loader/sample_reader.h>
#include <cowshed/probes/loader/snapshot.h>
#include <cowshed/probes/probe.h>

namespace cowshed {
namespace {

constexpr int kMostAdoptionRounds = 1000;

}  // namespace

struct Probe::State {
  State(Programs loaded, SampleReader sample_reader)
      : programs(std::move(loaded)), reader(programs), samples(std::move(sample_reader)) {}

  Expected<Attached> attach(cowshed_adopt_mode mode, std::span<const pid_t> roots);
  Expected<int> adopt(cowshed_adopt_mode mode);

  Programs programs;
  SnapshotReader reader;
  SampleReader samples;
  RunStats stats;
};

// Returns the number of newly tracked processes.
Expected<int> Probe::State::adopt(cowshed_adopt_mode mode) {
  int processes = 0;
  // An untracked process may fork a child that the iterator has already passed: the next round
  // finds it.  Children of tracked processes are tracked at once, so this ends.
  for (int round = 0; round < kMostAdoptionRounds; ++round) {
    TRY(const auto adopted, programs.adopt(mode));
    processes += static_cast<int>(adopted.processes);
    if (adopted.threads == 0) break;
  }
  return processes;
}

Expected<Probe::Attached> Probe::State::attach(cowshed_adopt_mode mode,
                                               std::span<const pid_t> roots) {
  const auto put = put_roots(programs, roots);
  const auto adopted = put ? adopt(mode) : Expected<int>(tl::make_unexpected(put.error()));
  std::vector<pid_t> not_found = take_roots_not_found(programs, roots);
  if (!adopted) return tl::make_unexpected(adopted.error());
  return Attached{*adopted, std::move(not_found)};
}

Probe::Probe(std::unique_ptr<State> state) : state_(std::move(state)) {}
Probe::Probe(Probe&&) noexcept = default;
Probe& Probe::operator=(Probe&&) noexcept = default;
Probe::~Probe() = default;

Expected<Probe> Probe::load(const SamplingOptions& sampling) {
  TRY_VOID(probe_support());
  TRY(auto programs, Programs::load(sampling));
  TRY(auto samples, SampleReader::open(programs));
  return Probe(std::make_unique<State>(std::move(programs), std::move(samples)));
}

Expected<void> Probe::track_command(pid_t stopped_child) {
  TRY(const auto attached, state_->attach(COWSHED_ADOPT_COMMAND, {&stopped_child, 1}));
  if (attached.not_found.empty()) return {};
  return make_error(ErrorCode::no_such_process, "PID " + std::to_string(stopped_child) +
                                                    ": no such process, or it has no memory of its "
                                                    "own");
}

Expected<Probe::Attached> Probe::attach_trees(std::span<const pid_t> roots) {
  return state_->attach(COWSHED_ADOPT_TREES, roots);
}

Expected<Snapshot> Probe::snapshot() {
  Snapshot snapshot;
  snapshot.taken_ns = monotonic_ns();
  state_->stats.begin_window();
  auto read = state_->reader.read(snapshot);
  state_->stats.end_window(state_->programs.descriptors());
  if (!read) return tl::make_unexpected(std::move(read.error()));
  const cowshed_losses& losses = state_->programs.losses();
  snapshot.losses.threads = losses.threads;
  snapshot.losses.processes = losses.processes;
  snapshot.losses.arenas = losses.arenas;
  snapshot.losses.late = losses.late;
  snapshot.losses.missed += losses.missed + missed_runs(state_->programs.must_not_miss());
  snapshot.overhead.slow_lookups = state_->programs.slow_lookups();
  snapshot.overhead.ns_per_event = state_->stats.ns_per_run();
  return snapshot;
}

Expected<void> Probe::add_interpreter(std::uint64_t image, const PythonLayout& layout) {
  static_assert(offsetof(PythonLayout, wide_text) == offsetof(cowshed_python_layout, wide_text));
  const auto record = std::bit_cast<cowshed_python_layout>(layout);
  if (bpf_map_update_elem(state_->programs.interpreters_map(), &image, &record, BPF_ANY) != 0)
    return system_error("writing the BPF map interpreters", errno);
  return {};
}

int Probe::samples_fd() const { return state_->samples.fd(); }

Expected<std::vector<CopySample>> Probe::take_samples() { return state_->samples.take(); }

Expected<SampleCounts> Probe::sample_counts() const { return state_->samples.counts(); }

}  // namespace cowshed
