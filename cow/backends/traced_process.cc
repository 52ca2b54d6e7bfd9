#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <utility>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/base/published_layout.h>
#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/backends/traced_process.h>
#include <cowshed/cow/fork_copies.h>

namespace cowshed::cow {
namespace {

// Between scans without a new count: of a process that counts what it sends, and of others.
constexpr std::uint64_t kUnchangedSenderNs = 1'000'000'000;
constexpr std::uint64_t kUnchangedNs = 2'000'000'000;

void copy_counts(const ProcessCounts& counts, ProcessCopies& copies) {
  copies.pid = counts.pid;
  copies.ppid = counts.ppid;
  copies.comm = counts.comm;
  if (copies.execs != counts.execs) {
    copies.title.clear();
    copies.script.clear();
  }
  copies.role = counts.role;
  copies.alive = counts.alive;
  copies.start_ns = counts.start_ns;
  copies.end_ns = counts.end_ns;
  copies.exit_status = counts.exit_status;
  copies.signal = counts.signal;
  copies.sender = counts.sender;
  if (counts.is_out_of_memory) copies.out_of_memory.emplace().is_sure = true;
  copies.shares_memory = counts.shares_memory && counts.execs == 0;
  copies.execs = counts.execs;
  copies.fork_costs = counts.fork_costs;
  copies.most_risen_bytes = counts.most_risen_bytes;
  copies.most_resident_bytes = counts.most_resident_bytes;
  if (copies.most_resident_bytes)  // without hugetlbfs
    *copies.most_resident_bytes +=
        (counts.filled_hugetlb_pages + counts.copied_hugetlb_pages) * kPageSize;
  static_cast<Counts&>(copies) = counts;
  *copies.copied_anon_pages += counts.copied_hugetlb_pages - counts.copied_hugetlb_file_pages;
  *copies.copied_file_pages += counts.copied_hugetlb_file_pages;
  if (copies.role == Role::child && !counts.shares_memory)
    copies.parent_copied_pages = counts.parent_copied_pages;
}

// Counts only grow.  What an ended parent froze has none.
void set_sent(ProcessCopies& copies, std::vector<SentObjects>& sent) {
  if (!sent.empty() || !copies.transfers) copies.transfers = std::move(sent);
}

// Does not wait for a scan of its memory, before which the process may end.
void read_sent(TracedProcess& process, const ProcFiles& proc) {
  if (!process.copies.alive) return;
  auto sent = read_sent_objects(proc, process.copies.pid);
  if (!sent) return;
  set_sent(process.copies, *sent);
  process.live->sends = true;
}

// Container runtimes move a process before it executes its program.
void read_cgroup(ProcessCopies& copies, const ProcessCounts& counts, const TracedProcess* parent,
                 const ProcFiles& proc) {
  std::string cgroup = counts.alive ? proc.cgroup(counts.pid) : std::string();
  if (cgroup.empty() && copies.cgroup.empty() && parent != nullptr) cgroup = parent->copies.cgroup;
  if (!cgroup.empty()) copies.cgroup = std::move(cgroup);
}

// Returns the bytes of its frozen arenas; nullopt: its mappings cannot be read.
std::optional<std::uint64_t> read_arenas(TracedProcess& process, const ProcFiles& proc) {
  const auto mappings = proc.maps(process.copies.pid);
  if (!mappings || mappings->empty()) return std::nullopt;
  std::uint64_t sum = 0;
  std::map<std::string, std::uint64_t> bytes;
  for (const FrozenArena& arena : frozen_arenas(proc, process.copies.pid, *mappings)) {
    bytes[arena.name] += arena.mapping->bytes();
    sum += arena.mapping->bytes();
    process.live->arena_names[arena.mapping->begin] = arena.name;
  }
  for (const auto& [name, size] : bytes) arena_named(process.copies.arenas, name).bytes = size;
  return sum;
}

// The first value of an address from `begin` to `end`.
template <class Value>
typename std::map<std::uint64_t, Value>::iterator first_in(std::map<std::uint64_t, Value>& values,
                                                           const ArenaCount& range) {
  const auto found = values.lower_bound(range.begin);
  return found == values.end() || found->first >= range.end ? values.end() : found;
}

// The names of its arenas' images, by address.
std::map<std::uint64_t, std::string>& names_of_images(TracedProcess& process,
                                                      const ProcFiles& proc) {
  auto& names = process.live->arena_names;
  const std::vector<ArenaCount>& arenas = process.live->counts.arenas;
  const auto is_new = [&](const ArenaCount& counted) {
    return counted.origin != 0 && first_in(names, counted) == names.end();
  };
  if (process.copies.alive && std::ranges::any_of(arenas, is_new)) read_arenas(process, proc);
  // A mapping without a name is one of another file, for as long as it exists.
  for (const ArenaCount& counted : arenas)
    if (is_new(counted)) names.try_emplace(counted.begin);
  return names;
}

// The part of the range that was the file's at the last scan; nullopt: mremap(2) made it since.
std::optional<std::uint64_t> held_bytes(TracedProcess& process, const ArenaCount& range) {
  auto& pages = process.live->file_pages;
  if (!pages || first_in(*pages, range) == pages->end()) return std::nullopt;
  std::uint64_t sum = 0;
  for (auto each = first_in(*pages, range); each != pages->end() && each->first < range.end; ++each)
    sum += each->second;
  return sum;
}

void add(ArenaCopies& to, const ArenaCopies& part) {
  to.bytes = to.bytes.value_or(0) + part.bytes.value_or(0);
  to.copied_pages += part.copied_pages;
  to.copied_again_pages += part.copied_again_pages;
  to.written_bytes += part.written_bytes;
  if (part.held_bytes) to.held_bytes = to.held_bytes.value_or(0) + *part.held_bytes;
}

void count_arenas(TracedProcess& process, const ProcFiles& proc) {
  auto& names = names_of_images(process, proc);
  std::map<std::string, std::uint64_t> pages;  // of all of an arena's generations
  std::map<std::uint64_t, ArenaCopies> files;  // by inode
  std::map<std::uint64_t, std::uint64_t> sizes;
  for (const ArenaCount& counted : process.live->counts.arenas) {
    const auto image = counted.origin == 0 ? names.end() : first_in(names, counted);
    const std::string& name = image == names.end() ? counted.name : image->second;
    if (name.empty() && counted.name == "memfd:" COWSHED_LAYOUT_MEMFD) continue;
    if (!name.empty()) {
      pages[name] += counted.copied_pages;
      continue;
    }
    ArenaCopies& file =
        files.try_emplace(counted.inode, ArenaCopies{counted.name, 0}).first->second;
    add(file, {"", counted.end - counted.begin, counted.copied_pages, counted.copied_again,
               counted.written_pages * kPageSize, held_bytes(process, counted)});
    sizes[counted.inode] = std::max(sizes[counted.inode], counted.file_bytes);
  }
  process.copies.files.clear();
  for (auto& [inode, file] : files) {
    file.bytes = std::min(*file.bytes, sizes[inode]);
    file.written_bytes = std::min(file.written_bytes, *file.bytes);
    add(arena_named(process.copies.files, file.name), file);
  }
  for (const auto& [name, count] : pages)
    arena_named(process.copies.arenas, name).copied_pages = count;
}

// Reads them once in a sample(): with 1,000 new children a second, a walk through the parent's maps
// for each of them would take a tenth of a CPU.
const PageRanges& pages_for_children(TracedProcess& parent, const ProcFiles& proc,
                                     std::uint64_t sample) {
  static const PageRanges nothing;
  if (!parent.copies.alive || !parent.live) return nothing;
  TracedProcess::Live& live = *parent.live;
  if (std::exchange(live.for_children_read, sample) == sample) return live.for_children;
  read_arenas(parent, proc);
  read_sent(parent, proc);
  live.for_children =
      parent.copies.arenas.empty() ? nothing : private_arena_pages(proc, parent.copies.pid);
  return live.for_children;
}

void inherit_arenas(TracedProcess& child, const TracedProcess& parent, const PageRanges& pages) {
  if (parent.live) {
    child.live->sends = parent.live->sends;
    child.live->arena_names = parent.live->arena_names;
  }
  for (const ArenaCopies& arena : parent.copies.arenas)
    child.copies.arenas.push_back({arena.name, arena.bytes, 0});
  if (child.copies.alive) child.live->inherited = pages;
}

void set_shared_at_fork(TracedProcess& child, const TracedProcess* parent, const ProcFiles& proc) {
  ProcessCopies& copies = child.copies;
  std::optional<std::uint64_t> arenas = child.live->counts.shared_at_fork_arena_bytes;
  if (!arenas && copies.alive && copies.execs == 0) arenas = read_arenas(child, proc);
  if (!arenas) {
    copies.not_measured = fmt::format(
        "PID {}: the frozen arenas that it got at its fork could not be found", copies.pid);
    return;
  }
  // For arenas that the parent does not publish: what it has now, if it is still there.
  std::uint64_t of_parent = 0;
  if (parent != nullptr)
    for (const ArenaCopies& arena : parent->copies.arenas) of_parent += arena.bytes.value_or(0);
  copies.shared_at_fork_bytes =
      *child.live->counts.shared_at_fork_anon_bytes + std::max(*arenas, of_parent);
}

void inherit(TracedProcess& child, TracedProcess* parent, const ProcFiles& proc,
             std::uint64_t sample) {
  ProcessCopies& copies = child.copies;
  if (parent != nullptr) {
    const PageRanges& pages = pages_for_children(*parent, proc, sample);
    if (copies.execs == 0) inherit_arenas(child, *parent, pages);
  } else if (copies.alive) {
    read_arenas(child, proc);
  }
  // What an ended parent froze is not counted any more.
  const bool is_orphan = parent == nullptr || !parent->copies.alive;
  if (is_orphan && copies.alive && copies.execs == 0 && inherited_freeze(proc, copies.pid))
    copies.transfers = {{"freeze", "", "Python objects", "inherited", 0, 0, 0}};
  if (child.live->counts.shared_at_fork_anon_bytes) set_shared_at_fork(child, parent, proc);
}

}  // namespace

void TracedProcess::update(const ProcessCounts& counts, TracedProcess* parent,
                           const ProcFiles& proc, std::uint64_t sample) {
  const bool is_new = live == nullptr;
  // At fewer and fewer of them: a program sets its title at its begin.
  if (!is_new && counts.alive && std::has_single_bit(++live->updates)) read_names(proc, copies);
  if (!is_new && live->counts == counts) return;
  const bool is_another = is_new || copies.execs != counts.execs;
  if (is_another) read_cgroup(copies, counts, parent, proc);
  if (is_new) live = std::make_unique<Live>();
  if (is_another) {
    live->arena_names.clear();
    live->file_pages.reset();
    copies.memory.reset();
    copies.alike.reset();
    copies.resident_before_bytes.reset();
  }
  copy_counts(counts, copies);
  if (is_new && parent != nullptr && counts.execs == 0) copies.script = parent->copies.script;
  if (is_another && counts.alive) read_names(proc, copies);
  live->counts = counts;
  live->has_changed = true;
  live->changed_ns = monotonic_ns();
  if (is_new) inherit(*this, parent, proc, sample);
  count_arenas(*this, proc);
  if (live->sends) read_sent(*this, proc);
  copies.held_at_end_bytes = counts.anonymous_at_end_bytes;
  if (copies.held_at_end_bytes && copies.shared_at_fork_bytes && copies.execs == 0) {
    const std::uint64_t of_files = *copies.shared_at_fork_bytes - *counts.shared_at_fork_anon_bytes;
    const std::uint64_t copied = copies.copied_shared_file_pages.value_or(0) * kPageSize;
    *copies.held_at_end_bytes += of_files - std::min(of_files, copied);  // copies are anonymous
  }
}

void TracedProcess::read_objects(const TracedProcess* parent, const ProcFiles& proc) {
  std::uint64_t pages = 0;
  for (const ArenaCopies& arena : copies.arenas) pages += arena.copied_pages;
  if (pages == 0) {
    copies.objects.emplace();
    return;
  }
  if (copies.objects && copies.objects->empty()) copies.objects.reset();
  // A walk through /proc pays only after a new copy.
  if (!copies.alive || copies.shares_memory || live->object_pages == pages) return;
  const auto mappings = proc.maps(copies.pid);
  if (!mappings) return;
  const pid_t parent_pid = parent != nullptr && parent->copies.alive ? parent->copies.pid : 0;
  const auto arenas = copied_arenas(proc, copies.pid, *mappings, live->inherited, parent_pid);
  if (arenas.empty()) return;
  auto objects = copies_by_object(proc, copies.pid, *mappings, arenas);
  if (!objects) return;
  copies.objects = std::move(objects);
  live->object_pages = pages;
}

// Without a new count it is due now and then, too: other processes may have changed with whom it
// shares its pages, and settled copies are given back without a fault.
bool TracedProcess::is_due_for_scan(std::uint64_t now_ns) const {
  const bool is_often = copies.transfers || live->has_settled;
  const std::uint64_t unchanged = is_often ? kUnchangedSenderNs : kUnchangedNs;
  return !copies.shares_memory && live->scans.is_due(now_ns) &&
         (live->has_changed || now_ns - live->last_scan_ns >= unchanged);
}

void TracedProcess::note_scan(std::uint64_t end_ns, std::uint64_t took_ns, bool is_settled) {
  live->scans.ran(end_ns, took_ns);
  live->last_scan_ns = end_ns;
  live->has_changed = !is_settled;
}

namespace {

// What it copied of settled memory, and has no copy of.  Copies of what its parent had copied hide
// as much, and copies of libraries' data that its parent wrote to count, too.
std::uint64_t undone_bytes(const ProcessCopies& process, const std::vector<Mapping>& mappings,
                           const FilePages& file_pages) {
  std::uint64_t copied = process.copied_shared_file_pages.value_or(0) * kPageSize;
  for (const Mapping& each : mappings) {
    const auto of_file = file_pages.find(each.begin);
    if (each.is_settled() && of_file != file_pages.end())
      copied -= std::min(copied, each.bytes() - of_file->second);
  }
  return copied;
}

}  // namespace

std::vector<Mapping> TracedProcess::scan(const ProcFiles& proc) {
  auto mappings = proc.maps(copies.pid);
  FilePages file_pages;
  live->has_settled = mappings && std::ranges::any_of(*mappings, &Mapping::is_settled);
  const auto memory =
      mappings ? sample_memory(proc, copies.pid, *mappings, file_pages) : std::nullopt;
  if (!memory) {
    // With CAP_PERFMON some kernels permit the mappings but not the page map.
    const auto pages = ProcessPages::open(proc, copies.pid);
    if (!pages && pages.error().code == ErrorCode::permission_denied) copies.unreadable = true;
  }
  if (!mappings) return {};
  if (auto sent = read_sent_objects(proc, copies.pid, *mappings)) set_sent(copies, *sent);
  if (!memory) return {};
  for (const ArenaCount& each : live->counts.arenas)  // that are no longer mapped
    file_pages.try_emplace(each.begin);
  live->file_pages = std::move(file_pages);
  count_arenas(*this, proc);
  const MemorySample before = copies.memory.value_or(MemorySample());
  copies.memory = memory;
  copies.memory->free_bytes = before.free_bytes;
  copies.memory->trimmable_bytes = before.trimmable_bytes;
  copies.memory->free_in_pymalloc_bytes = before.free_in_pymalloc_bytes;
  copies.memory->mmap_threshold_bytes = before.mmap_threshold_bytes;
  copies.memory->touched_pages = copies.touched_pages();
  if (live->has_settled)
    copies.memory->undone_bytes = undone_bytes(copies, *mappings, *live->file_pages);
  if (ran_before(copies) && !copies.resident_before_bytes) {
    const std::uint64_t now = memory->shared_bytes + memory->private_bytes;
    copies.resident_before_bytes = now - std::min(now, copies.touched_pages() * kPageSize);
    const std::uint64_t copied =
        *copies.copied_anon_pages + copies.copied_shared_file_pages.value_or(0);
    copies.shared_before_bytes = memory->shared_bytes + copied * kPageSize;
  }
  copies.unreadable = false;
  return std::move(*mappings);
}

void TracedProcess::look_for_lock(const TracedProcess& parent, const ProcFiles& proc) {
  constexpr std::uint64_t kEveryNs = 5'000'000'000;
  const std::uint64_t now = monotonic_ns();
  const auto& forks = parent.copies.fork_costs;
  if (!copies.alive || !goes_on(copies) || !forks || forks->beside_threads == 0) return;
  if (now - live->system_call_ns < kEveryNs) return;
  live->system_call_ns = now;
  const auto stat = proc.stat(copies.pid);
  std::string asleep = stat && stat->threads == 1 ? proc.system_call(copies.pid) : "";
  copies.waits_for_ever = waits_for_own_thread(asleep) && asleep == live->system_call;
  live->system_call = std::move(asleep);
}

}  // namespace cowshed::cow
