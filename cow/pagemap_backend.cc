#include <algorithm>
#include <linux/kcmp.h>
#include <optional>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/frozen_arenas.h>
#include <cowshed/cow/memory_sample.h>
#include <cowshed/cow/object_copies.h>
#include <cowshed/cow/page_map.h>
#include <cowshed/cow/pagemap_backend.h>

namespace cowshed::cow {
namespace {

constexpr std::chrono::milliseconds kShortestInterval{10};
// Looking at a process costs in proportion to its memory.  It is looked at again after this many
// times what it cost, so that small ones are seen often and large ones do not take a whole CPU.
constexpr std::uint64_t kCostFactor = 5;

bool has_memory(const ProcStat& stat) { return stat.state != 'Z' && stat.state != 'X'; }

// A vfork child that has not exec'd yet: every page would seem to be its own.
bool shares_memory(pid_t a, pid_t b) { return ::syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0; }

std::uint64_t start_ns(const ProcStat& stat) {
  static const auto ticks_per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return stat.start_ticks * (1'000'000'000 / ticks_per_second);
}

}  // namespace

struct PagemapBackend::Tracked {
  ProcessCopies copies;
  std::uint64_t start_ticks = 0;
  std::uint64_t start_stack = 0;
  std::uint64_t next_look_ns = 0;
  bool awaits_exec = false;  // still the launcher's own image
  bool is_child = false;     // forked by a process that is tracked too
  pid_t parent = 0;
  PageRanges shared;  // anonymous pages that the parent had when this process was first seen
  // Copies made in earlier images, and the most seen in this one: what was freed again stays
  // counted.
  std::uint64_t earlier_anon = 0;
  std::uint64_t earlier_file = 0;
  std::uint64_t most_anon = 0;
  std::uint64_t most_file = 0;

  void start_new_image() {
    earlier_anon += std::exchange(most_anon, 0);
    earlier_file += std::exchange(most_file, 0);
    shared = {};
    ++copies.execs;
    copies.copied_pages_before_exec = copies.copied_pages();
    copies.shares_memory = false;
  }
};

PagemapBackend::PagemapBackend(ProcFiles proc)
    : proc_(std::move(proc)), started_ns_(monotonic_ns()) {}

PagemapBackend::~PagemapBackend() = default;

Expected<void> PagemapBackend::track_command(pid_t child) {
  const auto stat = proc_.stat(child);
  if (!stat) return tl::make_unexpected(stat.error());
  add(child, *stat, nullptr);
  processes_.back()->awaits_exec = true;
  return {};
}

Expected<int> PagemapBackend::attach(pid_t root) {
  const auto stat = proc_.stat(root);
  if (!stat) return tl::make_unexpected(stat.error());
  if (!has_memory(*stat)) {
    return make_error(ErrorCode::no_such_process,
                      "PID " + std::to_string(root) + ": has exited (a zombie)");
  }
  // Says now, not by an empty table at the end, that the memory may not be looked at.
  const auto readable = PageMap::open(proc_, root);
  if (!readable) return tl::make_unexpected(readable.error());
  if (!alive_.contains(root)) add(root, *stat, nullptr);
  find_children();
  return static_cast<int>(alive_.size());
}

std::chrono::milliseconds PagemapBackend::interval() const {
  const std::chrono::milliseconds affordable(finding_ns_ * kCostFactor / 1'000'000);
  return std::max(kShortestInterval, affordable);
}

bool PagemapBackend::any_alive() const { return !alive_.empty(); }

void PagemapBackend::add(pid_t pid, const ProcStat& stat, Tracked* parent) {
  auto process = std::make_unique<Tracked>();
  process->copies.pid = pid;
  process->copies.ppid = stat.ppid;
  process->copies.comm = stat.comm;
  process->copies.alive = true;
  process->copies.start_ns = start_ns(stat);
  process->copies.role = parent ? Role::child : Role::root;
  process->start_ticks = stat.start_ticks;
  process->start_stack = stat.start_stack;
  if (parent) {
    process->is_child = true;
    process->parent = parent->copies.pid;
    process->copies.shares_memory = shares_memory(pid, process->parent);
    // Another stack than the parent has or had: it has exec'd already, and shares nothing.
    const auto parent_now = proc_.stat(process->parent);
    const bool same_image = parent->start_stack == stat.start_stack ||
                            (parent_now && parent_now->start_stack == stat.start_stack);
    if (same_image && !process->copies.shares_memory) {
      const Resident& shared = parent_memory(process->parent);
      process->shared = shared.anonymous;
      process->copies.shared_at_fork_bytes = shared.anonymous.bytes() + shared.arena_bytes;
    }
  }
  alive_[pid] = process.get();
  processes_.push_back(std::move(process));
}

const PagemapBackend::Resident& PagemapBackend::parent_memory(pid_t pid) {
  const auto [entry, is_new] = parents_.try_emplace(pid);
  Resident& resident = entry->second;
  if (!is_new) return resident;
  const auto mappings = proc_.maps(pid);
  auto pages = PageMap::open(proc_, pid);
  if (!mappings || !pages) return resident;
  for (const FrozenArena& arena : frozen_arenas(proc_, pid, *mappings)) {
    resident.arena_bytes += arena.mapping->bytes();
  }
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto ranges = pages->anonymous_pages(mapping);
    if (!ranges) continue;
    for (const PageRange& range : ranges->ranges()) resident.anonymous.append(range);
  }
  return resident;
}

void PagemapBackend::find_children() {
  // Grows while it is walked: grandchildren are found in the same pass.
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    Tracked* process = processes_[i].get();
    if (!process->copies.alive) continue;
    const auto children = proc_.children(process->copies.pid);
    if (!children) continue;
    for (const pid_t child : *children) {
      const auto stat = proc_.stat(child);
      if (!stat || !has_memory(*stat)) continue;
      const auto known = alive_.find(child);
      if (known != alive_.end() && known->second->start_ticks == stat->start_ticks) continue;
      if (known != alive_.end()) forget_memory(*known->second);
      add(child, *stat, process);
    }
  }
}

void PagemapBackend::forget_memory(Tracked& process) {
  process.copies.alive = false;
  process.copies.end_ns = monotonic_ns();
  process.shared = {};
  alive_.erase(process.copies.pid);
}

void PagemapBackend::update(Tracked& process) {
  ProcessCopies& copies = process.copies;
  const auto stat = proc_.stat(copies.pid);
  if (stat && stat->start_ticks == process.start_ticks) copies.comm = stat->comm;
  if (!stat || !has_memory(*stat) || stat->start_ticks != process.start_ticks) {
    forget_memory(process);
    return;
  }
  if (stat->start_stack != 0 && stat->start_stack != process.start_stack) {
    process.start_stack = stat->start_stack;
    if (!std::exchange(process.awaits_exec, false)) process.start_new_image();
  }
}

void PagemapBackend::look_at_memory(Tracked& process) {
  ProcessCopies& copies = process.copies;
  if (process.awaits_exec || copies.shares_memory) return;
  const auto mappings = proc_.maps(copies.pid);
  auto pages = PageMap::open(proc_, copies.pid);
  if (!mappings || !pages) return;
  // Alone with a page because the parent is gone, or has dropped it, is not a copy.
  PageRanges still_with_parent;
  std::optional<PageMap> parent_pages;
  if (process.is_child && alive_.contains(process.parent) && !process.shared.empty()) {
    still_with_parent = intersect(process.shared, parent_memory(process.parent).anonymous);
    if (auto opened = PageMap::open(proc_, process.parent)) parent_pages = std::move(*opened);
  }
  std::uint64_t anon = 0;
  std::uint64_t file = 0;
  std::vector<ArenaCopies> arenas;
  std::vector<CopiedArena> copied_arenas;
  const auto frozen = frozen_arenas(proc_, copies.pid, *mappings);
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    auto copied = pages->copied_pages(mapping, process.shared, still_with_parent,
                                      parent_pages ? &*parent_pages : nullptr);
    if (!copied || pages->is_gone()) return;
    const std::uint64_t here = copied->bytes() / kPageSize;
    (mapping.has_file() ? file : anon) += here;
    const auto in_arena = std::find_if(frozen.begin(), frozen.end(), [&](const FrozenArena& arena) {
      return arena.mapping == &mapping;
    });
    if (in_arena == frozen.end()) continue;
    ArenaCopies& arena = arena_named(arenas, in_arena->name);
    arena.bytes = arena.bytes.value_or(0) + mapping.bytes();
    arena.copied_pages += here;
    if (here > 0) copied_arenas.push_back({&mapping, std::move(*copied)});
  }
  process.most_anon = std::max(process.most_anon, anon);
  process.most_file = std::max(process.most_file, file);
  if (process.is_child) copies.copied_anon_pages = process.earlier_anon + process.most_anon;
  copies.copied_file_pages = process.earlier_file + process.most_file;
  copies.arenas = std::move(arenas);
  auto objects = copies_by_object(proc_, copies.pid, *mappings, copied_arenas);
  const bool knows_some = copies.objects && !copies.objects->empty();
  if (objects || !knows_some) copies.objects = std::move(objects);
  if (auto sent = sent_objects(proc_, copies.pid, *mappings)) copies.transfers = std::move(sent);
  if (auto memory = sample_memory(proc_, copies.pid, *mappings)) copies.memory = memory;
}

Expected<void> PagemapBackend::sample() {
  const std::uint64_t begin = monotonic_ns();
  parents_.clear();
  find_children();
  finding_ns_ = monotonic_ns() - begin;
  for (const auto& process : processes_) {
    if (!process->copies.alive) continue;
    update(*process);
    const std::uint64_t now = monotonic_ns();
    if (!process->copies.alive || now < process->next_look_ns) continue;
    look_at_memory(*process);
    const std::uint64_t end = monotonic_ns();
    process->next_look_ns = end + kCostFactor * (end - now);
  }
  sampling_ns_ += monotonic_ns() - begin;
  ++samples_;
  return {};
}

Measurement PagemapBackend::measurement() const {
  Measurement result;
  result.backend = name();
  result.exact = exact();
  result.duration_s = static_cast<double>(monotonic_ns() - started_ns_) / 1e9;
  result.taken_ns = monotonic_ns();
  result.overhead.events = samples_;
  if (samples_ > 0) {
    result.overhead.ns_per_event =
        static_cast<double>(sampling_ns_) / static_cast<double>(samples_);
  }
  for (const auto& process : processes_) result.processes.push_back(process->copies);
  std::stable_sort(result.processes.begin(), result.processes.end(),
                   [](const auto& a, const auto& b) { return a.start_ns < b.start_ns; });
  return result;
}

}  // namespace cowshed::cow
