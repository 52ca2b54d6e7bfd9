// Samples /proc: finds the processes of the measured trees, scans their page maps, and counts the
// pages that they no longer share.

#include <algorithm>
#include <unistd.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/arenas/published_layout.h>
#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/backends/pagemap_backend.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/fork_copies.h>

namespace cowshed::cow {
namespace {

constexpr std::chrono::milliseconds kShortestPause{10};
// Searches take one part in this of the time, and so do scans.
constexpr std::uint64_t kSearchesShare = 10;
// Scans stop after this time, or after the time of a search if that is longer.
constexpr std::uint64_t kScansNs = 10'000'000;
constexpr std::uint64_t kSecondNs = 1'000'000'000;

// /proc states the start by CLOCK_BOOTTIME, which continues while the machine sleeps.  So a process
// from before a sleep seems to have started earlier, by the duration of that sleep.
std::uint64_t start_ns(const ProcStat& stat) {
  static const auto ticks_per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const std::uint64_t boot_ns = stat.start_ticks * (kSecondNs / ticks_per_second);
  const std::uint64_t monotonic = monotonic_ns();  // first: the other is never behind it
  const std::uint64_t ahead = clock_ns(CLOCK_BOOTTIME) - monotonic;
  return boot_ns > ahead ? boot_ns - ahead : 0;
}

std::array<std::uint64_t, 3> activity_of(const ProcStat& stat) {
  return {stat.minor_faults + stat.major_faults, stat.virtual_bytes, stat.resident_pages};
}

}  // namespace

struct PagemapBackend::Process : std::enable_shared_from_this<PagemapBackend::Process> {
  Process(const ProcStat& stat, std::shared_ptr<Process> forked_by)
      : start_ticks(stat.start_ticks),
        start_stack(stat.start_stack),
        parent(std::move(forked_by)),
        activity(activity_of(stat)),
        reaped_faults(stat.reaped_faults) {}

  ProcessCopies copies;
  std::uint64_t start_ticks = 0;
  std::uint64_t start_stack = 0;
  std::shared_ptr<Process> parent;  // null for a root
  bool is_forgotten = false;
  bool awaits_exec = false;      // still runs the launcher's image
  bool is_stack_hidden = false;  // runs as another user now, so an exec cannot be seen
  Activity activity;
  bool is_active = true;  // when it was last seen
  std::uint64_t reaped_faults = 0;
  // Anonymous pages of the parent when this process was first seen; null: none.
  std::shared_ptr<const PageRanges> inherited;
  // Copies made in earlier images, and the most seen in this image.  A copy that was freed again
  // stays counted.
  std::uint64_t earlier_anon = 0;
  std::uint64_t earlier_file = 0;
  std::uint64_t most_anon = 0;
  std::uint64_t most_file = 0;

  std::uint64_t changes = 0;           // of its activity
  std::uint64_t children_changes = 0;  // of its children's activity, their starts and ends
  std::uint64_t scanned_changes = 0;
  std::uint64_t scanned_own_changes = 0;
  std::uint64_t scanned_ns = 0;  // 0: never

  // Changes of all processes that may share its pages.
  std::uint64_t all_changes() const {
    return changes + children_changes + (parent != nullptr ? parent->changes : 0);
  }
  bool has_changed() const { return all_changes() != scanned_changes; }
  bool is_due_for_scan(std::uint64_t now) const {
    const bool may_have_executed = is_stack_hidden || !(awaits_exec || copies.shares_memory);
    if (!copies.alive || !may_have_executed) return false;
    // Without a change, too: other sharers may have ended.
    return scanned_ns == 0 || has_changed() || now >= scanned_ns + kSecondNs;
  }

  void change() {
    ++changes;
    if (parent != nullptr) ++parent->children_changes;
  }

  void start_new_image() {
    earlier_anon += std::exchange(most_anon, 0);
    earlier_file += std::exchange(most_file, 0);
    inherited = nullptr;
    copies.alike.reset();
    if (copies.execs++ == 0) copies.copied_pages_before_exec = copies.all_copied_pages();
    copies.shares_memory = false;
  }
};

PagemapBackend::PagemapBackend(ProcFiles proc)
    : proc_(std::move(proc)), scans_(kSearchesShare), alike_(proc_) {
  if (const auto forks_before = proc_.forks()) forks_before_ = *forks_before;
}

PagemapBackend::~PagemapBackend() = default;

Expected<void> PagemapBackend::track_command(pid_t child) {
  TRY(const auto stat, proc_.stat(child));
  add(child, stat, nullptr).awaits_exec = true;
  if (const auto forks_before = proc_.forks()) forks_before_ = *forks_before;
  memory_.begin();
  return {};
}

Expected<Attached> PagemapBackend::attach(const std::vector<pid_t>& roots) {
  find_processes();
  const std::size_t before = alive_.size();
  const auto attach = [this](const Roots& found) -> Expected<Refused> {
    Refused refused;
    for (const pid_t root : found.roots) {
      // Reports unreadable memory now, in place of an empty table at the end.
      if (const auto stat = stat_of_readable(proc_, root)) add(root, *stat, nullptr);
      else refused.emplace_back(root, stat.error());
    }
    find_processes();
    return refused;
  };
  Attached result;
  TRY(result.refused,
      attach_roots(roots, proc_, [this](pid_t pid) { return measures(pid); }, attach));
  result.processes = static_cast<int>(alive_.size() - std::min(before, alive_.size()));
  return result;
}

std::chrono::milliseconds PagemapBackend::interval() const {
  const std::chrono::milliseconds affordable(finding_ns_ * (kSearchesShare - 1) / 1'000'000);
  return std::max(kShortestPause, affordable);
}

Expected<void> PagemapBackend::sample() {
  const std::uint64_t begin = thread_cpu_ns();
  find_processes();
  finding_ns_ = thread_cpu_ns() - begin;
  scan_memory();
  const auto id_of = [](const Process* each) { return reinterpret_cast<std::uintptr_t>(each); };
  std::vector<TreeProcess> tree;
  std::vector<AlikeProcess> running;
  std::vector<ProcessCopies*> all;
  for (const auto& process : processes_)
    if (!process->copies.shares_memory) {
      ProcessCopies& copies = *all.emplace_back(&process->copies);
      if (copies.alive && !process->awaits_exec)
        running.push_back({.id = id_of(process.get()),
                           .parent_id = goes_on(copies) ? id_of(process->parent.get()) : 0,
                           .pid = copies.pid,
                           .changes = process->all_changes() + copies.execs,
                           .alike = &copies.alike});
      tree.push_back({.id = id_of(process.get()),
                      .pid = copies.pid,
                      .alive = copies.alive,
                      .copied_bytes = process->activity[0] * kPageSize,
                      .are_all_faults = true,
                      .peak = &copies.peak,
                      .pss = &copies.pss,
                      .forked_ns = copies.start_ns,
                      .parent_id = id_of(process->parent.get()),
                      .got_at_fork_bytes = copies.shared_at_fork_bytes.value_or(0)});
    }
  memory_.sample(proc_, tree);
  cgroups_.guess(all, samples_);
  alike_.sample(running);
  sampling_ns_ += thread_cpu_ns() - begin;
  ++samples_;
  return {};
}

void PagemapBackend::find_processes() {
  reapers_ = 0;
  some_gone_before_ = std::exchange(some_gone_, false);
  // The list grows meanwhile: grandchildren are found in the same pass.
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    Process& process = *processes_[i];
    if (process.copies.alive) update(process);
    if (process.copies.alive) find_children(process);
  }
  count_missed();
}

void PagemapBackend::update(Process& process) {
  const auto stat = proc_.stat(process.copies.pid);
  if (!stat || stat->start_ticks != process.start_ticks) return end(process, false);
  process.copies.comm = stat->comm;
  if (std::exchange(process.reaped_faults, stat->reaped_faults) != stat->reaped_faults) ++reapers_;
  const Activity before = std::exchange(process.activity, activity_of(*stat));
  if (!stat->has_memory()) return end(process, true);
  process.is_active = process.activity != before;
  if (process.is_active) process.change();
  process.is_stack_hidden = stat->start_stack == 0;
  if (process.is_stack_hidden || stat->start_stack == process.start_stack) return;
  process.start_stack = stat->start_stack;
  process.copies.cgroup = proc_.cgroup(process.copies.pid);
  if (std::exchange(process.awaits_exec, false)) process.copies.execs = 1;
  else process.start_new_image();
}

void PagemapBackend::end(Process& process, bool is_zombie) {
  process.copies.alive = false;
  process.copies.end_ns = monotonic_ns();
  if (process.copies.memory && process.scanned_own_changes == process.changes)
    process.copies.memory->sampled_ns = *process.copies.end_ns;  // as it was then
  process.inherited = nullptr;
  process.change();
  alive_.erase(process.copies.pid);
  parent_pages_.erase(process.copies.pid);
  if (is_zombie) {
    zombies_.push_back(process.shared_from_this());
    return;
  }
  some_gone_ = true;
  // It may have copied all the rest.
  const std::uint64_t shared = process.copies.shared_at_fork_bytes.value_or(0) / kPageSize;
  if (process.is_active) process.activity[0] = std::max(process.activity[0], shared);
}

void PagemapBackend::find_children(Process& process) {
  const auto children = proc_.children(process.copies.pid);
  if (!children) return;
  for (const pid_t child : *children) {
    // A new process with the PID of a known one is found once that is seen to have ended.
    if (alive_.contains(child) || child == ::getpid()) continue;
    const auto stat = proc_.stat(child);
    if (stat && stat->has_memory()) add(child, *stat, process.shared_from_this());
  }
}

PagemapBackend::Process& PagemapBackend::add(pid_t pid, const ProcStat& stat,
                                             const std::shared_ptr<Process>& parent) {
  auto process = std::make_shared<Process>(stat, parent);
  process->copies.pid = pid;
  process->copies.ppid = stat.ppid;
  process->copies.comm = stat.comm;
  process->copies.cgroup = proc_.cgroup(pid);
  process->copies.alive = true;
  process->copies.start_ns = start_ns(stat);
  process->copies.role = parent ? Role::child : Role::root;
  if (parent) inherit_pages(*process, stat);
  alive_[pid] = process.get();
  processes_.push_back(std::move(process));
  return *processes_.back();
}

void PagemapBackend::inherit_pages(Process& child, const ProcStat& stat) {
  Process& parent = *child.parent;
  ++parent.children_changes;
  if (!parent.copies.alive) return;
  const pid_t parent_pid = parent.copies.pid;
  child.copies.shares_memory = shares_memory(child.copies.pid, parent_pid);
  const auto parent_now = proc_.stat(parent_pid);
  // After an exec its stack starts at another address, and it shares nothing.
  const bool has_executed = parent.start_stack != stat.start_stack &&
                            (!parent_now || parent_now->start_stack != stat.start_stack);
  if (child.copies.shares_memory || has_executed || !parent_now) return;
  // It may end before the next scan.
  if (auto sent = read_sent_objects(proc_, parent_pid)) parent.copies.transfers = std::move(*sent);
  const ParentPages& pages = parent_pages(parent_pid, activity_of(*parent_now));
  child.inherited = pages.anonymous;
  child.copies.shared_at_fork_bytes = pages.anonymous->bytes() + pages.arena_bytes;
}

const PagemapBackend::ParentPages& PagemapBackend::parent_pages(pid_t pid,
                                                                const Activity& activity) {
  const std::uint64_t now = monotonic_ns();
  const auto known = parent_pages_.find(pid);
  const bool is_known = known != parent_pages_.end();
  if (is_known && known->second.activity == activity && now < known->second.scanned_ns + kSecondNs)
    return known->second;
  ParentPages result{nullptr, 0, activity, now};
  PageRanges anonymous = read_anonymous_pages(pid, result.arena_bytes);
  // Thousands of children share one list.
  const bool is_same = is_known && *known->second.anonymous == anonymous;
  result.anonymous =
      is_same ? known->second.anonymous : std::make_shared<const PageRanges>(std::move(anonymous));
  return parent_pages_.insert_or_assign(pid, std::move(result)).first->second;
}

PageRanges PagemapBackend::read_anonymous_pages(pid_t pid, std::uint64_t& arena_bytes) {
  PageRanges anonymous;
  const auto mappings = proc_.inherited_maps(pid);
  auto pages = ProcessPages::open(proc_, pid);
  if (!mappings || !pages) return anonymous;
  for (const FrozenArena& arena : frozen_arenas(proc_, pid, *mappings))
    arena_bytes += arena.mapping->bytes();
  std::uint64_t settled = settled_bytes(proc_, pid, *mappings);
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto ranges = pages->anonymous_pages(mapping);
    if (!ranges) continue;
    if (mapping.is_settled()) settled -= std::min(settled, ranges->bytes());
    for (const PageRange& range : ranges->ranges()) anonymous.append(range);
  }
  arena_bytes += settled;
  return anonymous;
}

// The kernel adds a child's faults to those of its parent when the parent waits for it.  If no
// process that was seen is gone since, the parent has waited for one that was never seen.
void PagemapBackend::count_missed() {
  std::erase_if(zombies_, [this](const std::shared_ptr<Process>& process) {
    const auto stat = proc_.stat(process->copies.pid);
    const bool is_there = stat && stat->start_ticks == process->start_ticks;
    if (!is_there) some_gone_ = true;
    return !is_there;
  });
  if (!some_gone_ && !some_gone_before_) missed_ += reapers_;
}

void PagemapBackend::scan_memory() {
  if (!scans_.is_due(monotonic_ns())) return;
  const std::uint64_t most = std::max(kScansNs, finding_ns_);
  const std::vector<Process*> due = due_for_scan();
  const std::uint64_t begin = thread_cpu_ns();
  std::uint64_t cost = 0;
  for (Process* process : due) {
    if (cost >= most) break;
    process->scanned_changes = process->all_changes();
    process->scanned_own_changes = process->changes;
    scan(*process);
    process->scanned_ns = monotonic_ns();
    cost = thread_cpu_ns() - begin;
  }
  scans_.ran(monotonic_ns(), cost);
}

// Changed processes first, then by the time of the last scan.
std::vector<PagemapBackend::Process*> PagemapBackend::due_for_scan() const {
  const std::uint64_t now = monotonic_ns();
  std::vector<Process*> due;
  for (const auto& [pid, process] : alive_)
    if (process->is_due_for_scan(now)) due.push_back(process);
  std::ranges::sort(due, {}, [](const Process* each) {
    return std::pair(!each->has_changed(), each->scanned_ns);
  });
  return due;
}

// A pass through the mappings of one process.
struct PagemapBackend::Scan {
  ProcessPages& pages;
  MemorySampler memory;
  // The parent's anonymous pages at the fork, those that it still has, and its page map.  A page
  // that a process has alone because the parent is gone, or has dropped it, is not a copy.
  const PageRanges& inherited;
  PageRanges with_parent = {};
  std::optional<ProcessPages> parent = {};

  std::uint64_t anon_pages = 0;  // copied
  std::uint64_t file_pages = 0;
  std::vector<ArenaCopies> arenas = {};
  std::vector<CopiedArena> copied_arenas = {};

  // False: the memory cannot be read any more.
  bool add(const Mapping& mapping) {
    const auto all = pages.anonymous_pages_by_owner(mapping);
    if (!all || pages.is_gone()) return false;
    memory.add(mapping, *all);
    auto copied =
        pages.copied_pages(mapping, *all, inherited, with_parent, parent ? &*parent : nullptr);
    if (!copied || pages.is_gone()) return false;
    (mapping.has_file() && !mapping.is_settled() ? file_pages : anon_pages) +=
        copied->bytes() / kPageSize;
    const auto& frozen = memory.frozen();
    const auto arena = std::ranges::find(frozen, &mapping, &FrozenArena::mapping);
    if (arena != frozen.end()) add_arena(*arena, std::move(*copied));
    return true;
  }

  void add_arena(const FrozenArena& found, PageRanges copied) {
    ArenaCopies& arena = arena_named(arenas, found.name);
    arena.bytes = arena.bytes.value_or(0) + found.mapping->bytes();
    arena.copied_pages += copied.bytes() / kPageSize;
    if (!copied.empty()) copied_arenas.push_back({found.mapping, std::move(copied)});
  }
};

void PagemapBackend::scan(Process& process) {
  ProcessCopies& copies = process.copies;
  const auto mappings = proc_.maps(copies.pid);
  auto pages = mappings ? ProcessPages::open(proc_, copies.pid)
                        : Expected<ProcessPages>(tl::make_unexpected(mappings.error()));
  if (!pages) {
    if (pages.error().code == ErrorCode::permission_denied)
      copies.not_measured = pages.error().message;
    return;
  }
  copies.not_measured.reset();
  Scan scan = begin_scan(process, *pages, *mappings);
  for (const Mapping& mapping : *mappings)
    if (mapping.can_be_copied() && !scan.add(mapping)) return;
  process.most_anon = std::max(process.most_anon, scan.anon_pages);
  process.most_file = std::max(process.most_file, scan.file_pages);
  if (process.parent != nullptr)
    copies.copied_anon_pages = process.earlier_anon + process.most_anon;
  copies.copied_file_pages = process.earlier_file + process.most_file;
  copies.arenas = std::move(scan.arenas);
  read_names(proc_, copies);
  auto objects = copies_by_object(proc_, copies.pid, *mappings, scan.copied_arenas);
  const bool knows_some = copies.objects && !copies.objects->empty();
  if (objects || !knows_some) copies.objects = std::move(objects);
  if (auto sent = read_sent_objects(proc_, copies.pid, *mappings))
    copies.transfers = std::move(*sent);
  if (const auto sampled = scan.memory.finish()) copies.memory = sampled;
}

PagemapBackend::Scan PagemapBackend::begin_scan(const Process& process, ProcessPages& pages,
                                                const std::vector<Mapping>& mappings) {
  static const PageRanges nothing;
  Scan scan{pages, MemorySampler(proc_, process.copies.pid, mappings),
            process.inherited ? *process.inherited : nothing};
  const Process* parent = process.parent.get();
  if (parent == nullptr || !parent->copies.alive || scan.inherited.empty()) return scan;
  const auto now = parent_pages(parent->copies.pid, parent->activity).anonymous;
  scan.with_parent = now == process.inherited ? scan.inherited : intersect(scan.inherited, *now);
  if (auto opened = ProcessPages::open(proc_, parent->copies.pid)) scan.parent = std::move(*opened);
  return scan;
}

Measurement PagemapBackend::measurement(const CodeOf& /*code*/) const {
  Measurement result = begun_measurement();
  result.not_seen = not_seen();
  result.overhead.events = samples_;
  result.memory = memory_.memory();
  if (samples_ > 0)
    result.overhead.ns_per_event =
        static_cast<double>(sampling_ns_) / static_cast<double>(samples_);
  for (const auto& process : in_order()) result.processes.push_back(process->copies);
  return result;
}

ProcessesNotSeen PagemapBackend::not_seen() const {
  ProcessesNotSeen result;
  result.at_least = missed_;
  const auto forks = proc_.forks();
  if (!forks || !forks_before_) return result;
  const auto seen =
      forgotten_forks_ +
      static_cast<std::uint64_t>(std::ranges::count_if(
          processes_, [this](const auto& process) { return is_counted_fork(*process); }));
  const std::uint64_t made = *forks - *forks_before_;
  result.at_most = std::max(missed_, made - std::min(made, seen));
  return result;
}

bool PagemapBackend::is_counted_fork(const Process& process) const {
  return process.copies.role == Role::child && process.copies.start_ns >= started_ns_;
}

// By ticks: start_ns contains the noise of two clocks, and children may start in their parent's
// tick.
std::vector<std::shared_ptr<PagemapBackend::Process>> PagemapBackend::in_order() const {
  std::vector<std::shared_ptr<Process>> result = processes_;
  std::ranges::stable_sort(result, {}, &Process::start_ticks);
  return result;
}

void PagemapBackend::merge_ended(std::size_t most) {
  const auto ordered = in_order();
  std::vector<EndedProcess> ended;
  for (const auto& each : ordered) ended.push_back({&each->copies, !each->copies.alive});
  cow::merge_ended(ended, most, [&](std::size_t i, std::size_t) { mark_forgotten(*ordered[i]); });
  erase_forgotten();
}

std::vector<ProcessCopies> PagemapBackend::take_ended() {
  std::vector<ProcessCopies> result;
  for (const auto& process : processes_) {
    if (process->copies.alive) continue;
    mark_forgotten(*process);
    result.push_back(process->copies);
  }
  erase_forgotten();
  return result;
}

void PagemapBackend::mark_forgotten(Process& process) {
  if (is_counted_fork(process)) ++forgotten_forks_;
  process.parent = nullptr;  // else a long line of forks would keep every ancestor
  process.is_forgotten = true;
}

void PagemapBackend::erase_forgotten() {
  std::erase_if(processes_, [](const auto& process) { return process->is_forgotten; });
}

}  // namespace cowshed::cow
