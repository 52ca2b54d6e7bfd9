#include <algorithm>
#include <utility>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/tracepoint_backend.h>

namespace cowshed::cow {
namespace {

constexpr std::chrono::milliseconds kShortestInterval{10};
constexpr std::uint64_t kCostShare = 20;  // collect at most a twentieth of the time

std::uint64_t total_bytes(const std::vector<ArenaCopies>& arenas) {
  std::uint64_t total = 0;
  for (const ArenaCopies& arena : arenas) total += arena.bytes.value_or(0);
  return total;
}

ArenaCopies& arena_named(std::vector<ArenaCopies>& arenas, const std::string& name) {
  const auto known = std::find_if(arenas.begin(), arenas.end(),
                                  [&](const ArenaCopies& arena) { return arena.name == name; });
  if (known != arenas.end()) return *known;
  return arenas.emplace_back(ArenaCopies{name, std::nullopt, 0});
}

}  // namespace

TracepointBackend::TracepointBackend(Probe probe, ProcFiles proc)
    : probe_(std::move(probe)), proc_(std::move(proc)), started_ns_(monotonic_ns()) {}

Expected<std::unique_ptr<Backend>> TracepointBackend::open(ProcFiles proc) {
  auto probe = Probe::load();
  if (!probe) return tl::make_unexpected(probe.error());
  return std::unique_ptr<Backend>(new TracepointBackend(std::move(*probe), std::move(proc)));
}

Expected<void> TracepointBackend::track_command(pid_t child) { return probe_.track_command(child); }

Expected<int> TracepointBackend::attach(pid_t root) { return probe_.attach_tree(root); }

std::chrono::milliseconds TracepointBackend::interval() const {
  const std::chrono::milliseconds affordable(last_sample_cost_ns_ * kCostShare / 1'000'000);
  return std::max(kShortestInterval, affordable);
}

bool TracepointBackend::any_alive() const {
  return std::any_of(processes_.begin(), processes_.end(),
                     [](const auto& entry) { return entry.second.alive; });
}

void TracepointBackend::read_arenas(ProcessCopies& process) const {
  const auto mappings = proc_.maps(process.pid);
  if (!mappings) return;
  for (const Mapping& mapping : *mappings) {
    const auto name = arena_name(mapping);
    if (!mapping.is_private || name.empty()) continue;
    arena_named(process.arenas, std::string(name)).bytes = mapping.bytes();
  }
}

void TracepointBackend::inherit(ProcessCopies& child, const ProcessCounts& counts) {
  const auto parent = processes_.find(counts.parent_id);
  if (parent != processes_.end()) {
    if (parent->second.alive) read_arenas(parent->second);
    if (counts.execs == 0) {
      for (const ArenaCopies& arena : parent->second.arenas) {
        child.arenas.push_back({arena.name, arena.bytes, 0});
      }
    }
  } else if (counts.alive) {
    read_arenas(child);
  }
  if (!counts.shared_at_fork_anon_bytes) return;
  child.shared_at_fork_bytes = *counts.shared_at_fork_anon_bytes;
  if (parent != processes_.end()) *child.shared_at_fork_bytes += total_bytes(parent->second.arenas);
}

void TracepointBackend::update(const ProcessCounts& counts) {
  const auto [entry, is_new] = processes_.try_emplace(counts.id);
  ProcessCopies& copies = entry->second;
  copies.pid = counts.pid;
  copies.ppid = counts.ppid;
  copies.comm = counts.comm;
  copies.role = counts.role == ProcessRole::root ? Role::root : Role::child;
  copies.alive = counts.alive;
  copies.start_ns = counts.start_ns;
  copies.end_ns = counts.end_ns;
  copies.exit_status = counts.exit_status;
  copies.signal = counts.signal;
  copies.shares_memory = counts.shares_memory;
  copies.copied_anon_pages = counts.copied_anon_pages;
  copies.copied_file_pages = counts.copied_file_pages;
  copies.reused_pages = counts.reused_pages;
  copies.zero_page_writes = counts.zero_page_writes;
  copies.zero_filled_pages = counts.zero_filled_pages;
  copies.huge_splits = counts.huge_splits;
  copies.write_notify_faults = counts.write_notify_faults;
  copies.failed_faults = counts.failed_faults;
  copies.other_faults = counts.other_faults;
  copies.execs = counts.execs;
  copies.copied_pages_before_exec = counts.copied_pages_before_exec;
  if (is_new) inherit(copies, counts);
  for (const ArenaCount& counted : counts.arenas) {
    arena_named(copies.arenas, counted.name).copied_pages = counted.copied_pages;
  }
}

Expected<void> TracepointBackend::sample() {
  const std::uint64_t begin = monotonic_ns();
  const auto snapshot = probe_.snapshot();
  if (!snapshot) return tl::make_unexpected(snapshot.error());
  for (const ProcessCounts& counts : snapshot->processes) update(counts);
  lost_ = snapshot->losses.lost();
  overhead_ = {snapshot->overhead.events, snapshot->overhead.ns_per_event};
  last_sample_cost_ns_ = monotonic_ns() - begin;
  return {};
}

Measurement TracepointBackend::measurement() const {
  Measurement result;
  result.backend = name();
  result.exact = exact();
  result.duration_s = static_cast<double>(monotonic_ns() - started_ns_) / 1e9;
  result.lost_events = lost_;
  result.overhead = overhead_;
  for (const auto& [id, copies] : processes_) result.processes.push_back(copies);
  return result;
}

}  // namespace cowshed::cow
