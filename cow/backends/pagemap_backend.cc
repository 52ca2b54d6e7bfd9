#include <algorithm>
#include <tuple>
#include <unistd.h>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/cow/backends/memory_sample.h>
#include <cowshed/cow/backends/pagemap_backend.h>
#include <cowshed/cow/backends/process_rollup.h>
#include <cowshed/cow/proc/page_map.h>

namespace cowshed::cow {
namespace {

constexpr std::chrono::milliseconds kShortestPause{10};
// After each of the two, searching and looking, there is a pause of this many times what it cost.
constexpr std::uint64_t kCostFactor = 9;
// Looking goes on for no longer than this at a time, or than a search: so that processes are
// searched for meanwhile, and looked at as much as searched for.
constexpr std::uint64_t kLooksNs = 10'000'000;
// A process that has not changed is looked at no more often, but still: others may have ended.
constexpr std::uint64_t kSecondNs = 1'000'000'000;

// /proc has the start by CLOCK_BOOTTIME, which goes on while the machine sleeps.  A process that
// was there while the machine slept seems to have started earlier, by the time of that sleep.
std::uint64_t start_ns(const ProcStat& stat) {
  static const auto ticks_per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const std::uint64_t boot_ns = stat.start_ticks * (kSecondNs / ticks_per_second);
  const std::uint64_t monotonic = monotonic_ns();  // first: the other is never behind it
  const std::uint64_t ahead = clock_ns(CLOCK_BOOTTIME) - monotonic;
  return boot_ns > ahead ? boot_ns - ahead : 0;
}

}  // namespace

struct PagemapBackend::Tracked : std::enable_shared_from_this<PagemapBackend::Tracked> {
  Tracked(const ProcStat& stat, std::shared_ptr<Tracked> forked_by)
      : start_ticks(stat.start_ticks),
        start_stack(stat.start_stack),
        parent(std::move(forked_by)),
        activity(stat),
        reaped_faults(stat.reaped_faults) {}

  ProcessCopies copies;
  std::uint64_t start_ticks = 0;
  std::uint64_t start_stack = 0;
  std::shared_ptr<Tracked> parent;  // null for a root
  bool is_taken = false;
  bool awaits_exec = false;  // still the launcher's own image
  bool is_hidden = false;    // somebody else's by now: whether it has executed is not to be seen
  Activity activity;
  std::uint64_t reaped_faults = 0;
  // Anonymous pages that the parent had when this process was first seen; null: none.
  std::shared_ptr<const PageRanges> shared;
  // Copies made in earlier images, and the most seen in this one: what was freed again stays
  // counted.
  std::uint64_t earlier_anon = 0;
  std::uint64_t earlier_file = 0;
  std::uint64_t most_anon = 0;
  std::uint64_t most_file = 0;

  std::uint64_t changes = 0;           // of its activity
  std::uint64_t children_changes = 0;  // of that of its children, their starts and ends
  std::uint64_t looked_at_changes = 0;
  std::uint64_t looked_at_ns = 0;  // 0: never

  // Of whom its pages can have been shared or copied by.
  std::uint64_t all_changes() const {
    return changes + children_changes + (parent != nullptr ? parent->changes : 0);
  }
  bool is_to_be_looked_at(std::uint64_t now) const {
    const bool may_have_executed = is_hidden || !(awaits_exec || copies.shares_memory);
    if (!copies.alive || !may_have_executed) return false;
    return looked_at_ns == 0 || has_changed() || now >= looked_at_ns + kSecondNs;
  }
  bool has_changed() const { return all_changes() != looked_at_changes; }

  void change() {
    ++changes;
    if (parent != nullptr) ++parent->children_changes;
  }

  void start_new_image() {
    earlier_anon += std::exchange(most_anon, 0);
    earlier_file += std::exchange(most_file, 0);
    shared = nullptr;
    ++copies.execs;
    copies.copied_pages_before_exec = copies.copied_pages();
    copies.shares_memory = false;
  }
};

PagemapBackend::Activity::Activity(const ProcStat& stat)
    : faults(stat.minor_faults + stat.major_faults),
      virtual_bytes(stat.virtual_bytes),
      resident_pages(stat.resident_pages) {}

PagemapBackend::PagemapBackend(ProcFiles proc) : proc_(std::move(proc)), looks_(kCostFactor) {
  if (const auto forks_before = proc_.forks()) forks_before_ = *forks_before;
}

PagemapBackend::~PagemapBackend() = default;

Expected<void> PagemapBackend::track_command(pid_t child) {
  TRY(const auto stat, proc_.stat(child));
  add(child, stat, nullptr).awaits_exec = true;
  return {};
}

Expected<Attached> PagemapBackend::attach(const std::vector<pid_t>& roots) {
  find_processes();
  const std::size_t before = alive_.size();
  const auto attach = [this](const Roots& found) -> Expected<Refused> {
    Refused refused;
    for (const pid_t root : found.roots) {
      // Says now, not by an empty table at the end, that the memory may not be looked at.
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
  const std::chrono::milliseconds affordable(finding_ns_ * kCostFactor / 1'000'000);
  return std::max(kShortestPause, affordable);
}

bool PagemapBackend::any_alive() const { return !alive_.empty(); }

PagemapBackend::Tracked& PagemapBackend::add(pid_t pid, const ProcStat& stat,
                                             const std::shared_ptr<Tracked>& parent) {
  auto process = std::make_shared<Tracked>(stat, parent);
  process->copies.pid = pid;
  process->copies.ppid = stat.ppid;
  process->copies.comm = stat.comm;
  process->copies.alive = true;
  process->copies.start_ns = start_ns(stat);
  process->copies.role = parent ? Role::child : Role::root;
  if (parent) {
    const pid_t parent_pid = parent->copies.pid;
    process->copies.shares_memory = parent->copies.alive && shares_memory(pid, parent_pid);
    // Another stack than the parent has or had: it has exec'd already, and shares nothing.
    const auto parent_now = proc_.stat(parent_pid);
    const bool same_image = parent->start_stack == stat.start_stack ||
                            (parent_now && parent_now->start_stack == stat.start_stack);
    if (same_image && !process->copies.shares_memory && parent->copies.alive && parent_now) {
      const Shareable& shared = shareable_of(parent_pid, Activity(*parent_now));
      process->shared = shared.anonymous;
      process->copies.shared_at_fork_bytes = shared.anonymous->bytes() + shared.arena_bytes;
    }
    ++parent->children_changes;
  }
  alive_[pid] = process.get();
  processes_.push_back(std::move(process));
  return *processes_.back();
}

const PagemapBackend::Shareable& PagemapBackend::shareable_of(pid_t pid, const Activity& activity) {
  const std::uint64_t now = monotonic_ns();
  const auto known = shareable_.find(pid);
  const bool is_known = known != shareable_.end();
  if (is_known && known->second.activity == activity && now < known->second.sampled_ns + kSecondNs)
    return known->second;
  Shareable result{nullptr, 0, activity, now};
  PageRanges anonymous;
  const auto mappings = proc_.maps(pid);
  auto pages = PageMap::open(proc_, pid);
  if (mappings && pages) {
    for (const FrozenArena& arena : frozen_arenas(proc_, pid, *mappings))
      result.arena_bytes += arena.mapping->bytes();
    for (const Mapping& mapping : *mappings) {
      if (!mapping.can_be_copied()) continue;
      const auto ranges = pages->anonymous_pages(mapping);
      if (!ranges) continue;
      for (const PageRange& range : ranges->ranges()) anonymous.append(range);
    }
  }
  // Thousands of children share one list.
  const bool is_same = is_known && *known->second.anonymous == anonymous;
  result.anonymous =
      is_same ? known->second.anonymous : std::make_shared<const PageRanges>(std::move(anonymous));
  return shareable_.insert_or_assign(pid, std::move(result)).first->second;
}

void PagemapBackend::find_processes() {
  reapers_ = 0;
  some_gone_before_ = std::exchange(some_gone_, false);
  // Grows while it is walked: grandchildren are found in the same pass.
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    Tracked& process = *processes_[i];
    if (process.copies.alive) update(process);
    if (process.copies.alive) find_children(process);
  }
  count_reaped();
}

void PagemapBackend::find_children(Tracked& process) {
  const auto children = proc_.children(process.copies.pid);
  if (!children) return;
  for (const pid_t child : *children) {
    // A new process with the same PID is found once the old one is seen to have ended.
    if (alive_.contains(child) || child == ::getpid()) continue;
    const auto stat = proc_.stat(child);
    if (stat && stat->has_memory()) add(child, *stat, process.shared_from_this());
  }
}

// A process's count of its children's faults grows when it waits for one.  If no process that was
// seen is gone since, that was one that was not.
void PagemapBackend::count_reaped() {
  std::erase_if(zombies_, [this](const std::shared_ptr<Tracked>& process) {
    const auto stat = proc_.stat(process->copies.pid);
    const bool is_there = stat && stat->start_ticks == process->start_ticks;
    if (!is_there) some_gone_ = true;
    return !is_there;
  });
  if (!some_gone_ && !some_gone_before_) not_seen_ += reapers_;
}

void PagemapBackend::end(Tracked& process, bool is_zombie) {
  process.copies.alive = false;
  process.copies.end_ns = monotonic_ns();
  process.shared = nullptr;
  process.change();
  alive_.erase(process.copies.pid);
  shareable_.erase(process.copies.pid);
  if (is_zombie) zombies_.push_back(process.shared_from_this());
  if (!is_zombie) some_gone_ = true;
}

void PagemapBackend::update(Tracked& process) {
  const auto stat = proc_.stat(process.copies.pid);
  if (!stat || stat->start_ticks != process.start_ticks) {
    end(process, false);
    return;
  }
  process.copies.comm = stat->comm;
  if (std::exchange(process.reaped_faults, stat->reaped_faults) != stat->reaped_faults) ++reapers_;
  if (!stat->has_memory()) {
    end(process, true);
    return;
  }
  const Activity activity(*stat);
  if (!(activity == process.activity)) process.change();
  process.activity = activity;
  process.is_hidden = stat->start_stack == 0;
  if (!process.is_hidden && stat->start_stack != process.start_stack) {
    process.start_stack = stat->start_stack;
    if (!std::exchange(process.awaits_exec, false)) process.start_new_image();
  }
}

void PagemapBackend::look_at_memory() {
  const std::uint64_t now = monotonic_ns();
  if (!looks_.is_due(now)) return;
  std::vector<Tracked*> waiting;
  for (const auto& [pid, process] : alive_)
    if (process->is_to_be_looked_at(now)) waiting.push_back(process);
  std::sort(waiting.begin(), waiting.end(), [](const Tracked* a, const Tracked* b) {
    return std::make_tuple(!a->has_changed(), a->looked_at_ns) <
           std::make_tuple(!b->has_changed(), b->looked_at_ns);
  });
  const std::uint64_t most = std::max(kLooksNs, finding_ns_);
  const std::uint64_t begin = thread_cpu_ns();
  std::uint64_t cost = 0;
  for (auto next = waiting.begin(); next != waiting.end() && cost < most; ++next) {
    (*next)->looked_at_changes = (*next)->all_changes();
    look_at_memory(**next);
    (*next)->looked_at_ns = monotonic_ns();
    cost = thread_cpu_ns() - begin;
  }
  looks_.ran(monotonic_ns(), cost);
}

void PagemapBackend::look_at_memory(Tracked& process) {
  ProcessCopies& copies = process.copies;
  const auto mappings = proc_.maps(copies.pid);
  auto pages = mappings ? PageMap::open(proc_, copies.pid)
                        : Expected<PageMap>(tl::make_unexpected(mappings.error()));
  if (!pages) {
    if (pages.error().code == ErrorCode::permission_denied)
      copies.not_measured = pages.error().message;
    return;
  }
  copies.not_measured.clear();
  // Alone with a page because the parent is gone, or has dropped it, is not a copy.
  static const PageRanges nothing;
  const PageRanges& inherited = process.shared ? *process.shared : nothing;
  PageRanges still_with_parent;
  std::optional<PageMap> parent_pages;
  if (process.parent != nullptr && process.parent->copies.alive && !inherited.empty()) {
    const pid_t parent = process.parent->copies.pid;
    const Shareable& shareable = shareable_of(parent, process.parent->activity);
    still_with_parent = shareable.anonymous == process.shared
                            ? inherited
                            : intersect(inherited, *shareable.anonymous);
    if (auto opened = PageMap::open(proc_, parent)) parent_pages = std::move(*opened);
  }
  std::uint64_t anon = 0;
  std::uint64_t file = 0;
  MemorySample memory;
  std::vector<ArenaCopies> arenas;
  std::vector<CopiedArena> copied_arenas;
  const auto frozen = frozen_arenas(proc_, copies.pid, *mappings);
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto all = pages->anonymous_pages_by_owner(mapping);
    if (!all || pages->is_gone()) return;
    add_mapping(memory, mapping, *all, frozen);
    auto copied = pages->copied_pages(mapping, *all, inherited, still_with_parent,
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
  if (process.parent != nullptr)
    copies.copied_anon_pages = process.earlier_anon + process.most_anon;
  copies.copied_file_pages = process.earlier_file + process.most_file;
  copies.arenas = std::move(arenas);
  auto objects = copies_by_object(proc_, copies.pid, *mappings, copied_arenas);
  const bool knows_some = copies.objects && !copies.objects->empty();
  if (objects || !knows_some) copies.objects = std::move(objects);
  if (auto sent = sent_objects(proc_, copies.pid, *mappings)) copies.transfers = std::move(sent);
  if (const auto sampled = finished(memory)) copies.memory = sampled;
}

Expected<void> PagemapBackend::sample() {
  const std::uint64_t begin = thread_cpu_ns();
  find_processes();
  finding_ns_ = thread_cpu_ns() - begin;
  look_at_memory();
  sampling_ns_ += thread_cpu_ns() - begin;
  ++samples_;
  return {};
}

bool PagemapBackend::is_counted_fork(const Tracked& process) const {
  return process.copies.role == Role::child && process.copies.start_ns >= started_ns_;
}

ProcessesNotSeen PagemapBackend::not_seen() const {
  ProcessesNotSeen result;
  result.at_least = not_seen_;
  const auto forks = proc_.forks();
  if (!forks || !forks_before_) return result;
  const auto seen =
      seen_and_taken_ + static_cast<std::uint64_t>(std::count_if(
                            processes_.begin(), processes_.end(),
                            [this](const auto& process) { return is_counted_fork(*process); }));
  const std::uint64_t made = *forks - *forks_before_;
  result.at_most = std::max(not_seen_, made - std::min(made, seen));
  return result;
}

void PagemapBackend::take(Tracked& process) {
  if (is_counted_fork(process)) ++seen_and_taken_;
  process.parent = nullptr;  // or each would keep the one before it, in a line of forks
  process.is_taken = true;
}

void PagemapBackend::forget_taken() {
  std::erase_if(processes_, [](const auto& process) { return process->is_taken; });
}

// By ticks: start_ns has the noise of two clocks in it, and children may start in their parent's
// tick.
std::vector<std::shared_ptr<PagemapBackend::Tracked>> PagemapBackend::in_order() const {
  std::vector<std::shared_ptr<Tracked>> result = processes_;
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a->start_ticks < b->start_ticks; });
  return result;
}

void PagemapBackend::merge_ended(std::size_t most) {
  const auto tracked = in_order();
  std::vector<EndedProcess> processes;
  for (const auto& each : tracked) processes.push_back({&each->copies, !each->copies.alive});
  cow::merge_ended(processes, most, [&](std::size_t i, std::size_t) { take(*tracked[i]); });
  forget_taken();
}

std::vector<ProcessCopies> PagemapBackend::take_ended() {
  std::vector<ProcessCopies> result;
  for (const auto& process : processes_) {
    if (process->copies.alive) continue;
    take(*process);
    result.push_back(process->copies);
  }
  forget_taken();
  return result;
}

Measurement PagemapBackend::measurement(const CodeOf& /*code*/) const {
  Measurement result = begun_measurement();
  result.not_seen = not_seen();
  result.overhead.events = samples_;
  if (samples_ > 0) {
    result.overhead.ns_per_event =
        static_cast<double>(sampling_ns_) / static_cast<double>(samples_);
  }
  for (const auto& process : in_order()) result.processes.push_back(process->copies);
  return result;
}

}  // namespace cowshed::cow
