#include <algorithm>
#include <array>
#include <linux/kcmp.h>
#include <span>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/page_map.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostSiblings = 8;
constexpr std::size_t kBatch = 512;  // pages of which the pagemaps are read at once

using Batch = std::array<PageEntry, kBatch>;

// Those of `pages` for which wanted(address, i) holds, i within a batch; read(address, count) comes
// first.
template <class Read, class Wanted>
void append_where(PageRanges& result, const PageRanges& pages, Read read, Wanted wanted) {
  for (const PageRange& range : pages.ranges()) {
    for (std::uint64_t begin = range.begin; begin < range.end; begin += kBatch * kPageSize) {
      const std::size_t count = std::min<std::size_t>((range.end - begin) / kPageSize, kBatch);
      read(begin, count);
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t address = begin + i * kPageSize;
        if (wanted(address, i)) result.append({address, address + kPageSize});
      }
    }
  }
}

// The anonymous pages of `task` for which wanted(mapping, address, entry, entry of `other`) holds.
template <class Wanted>
PageRanges anonymous_pages_where(const ProcFiles& proc, pid_t task, pid_t other, Wanted wanted) {
  PageRanges result;
  const auto mappings = proc.maps(task);
  auto pages = PageMap::open(proc, task);
  const auto entries = PageEntries::open(proc, task);
  const auto others = PageEntries::open(proc, other);
  if (!mappings || !pages || !entries) return result;
  Batch here{};
  Batch there{};
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto anonymous = pages->anonymous_pages(mapping);
    if (!anonymous) continue;
    append_where(
        result, *anonymous,
        [&](std::uint64_t address, std::size_t count) {
          entries->read(address, std::span(here).first(count));
          if (others) others->read(address, std::span(there).first(count));
        },
        [&](std::uint64_t address, std::size_t i) {
          return wanted(mapping, address, here.at(i), there.at(i));
        });
  }
  return result;
}

// Those of `pages` for which wanted(address, entry of `task`) holds.
template <class Wanted>
PageRanges pages_where(const ProcFiles& proc, pid_t task, const PageRanges& pages, Wanted wanted) {
  PageRanges result;
  const auto entries = PageEntries::open(proc, task);
  if (!entries) return result;
  Batch here{};
  append_where(
      result, pages,
      [&](std::uint64_t address, std::size_t count) {
        entries->read(address, std::span(here).first(count));
      },
      [&](std::uint64_t address, std::size_t i) { return wanted(address, here.at(i)); });
  return result;
}

PageRanges swapped_pages(const ProcFiles& proc, pid_t task) {
  PageRanges result;
  if (proc.status_number(task, "VmSwap") == 0) return result;
  const auto mappings = proc.maps(task);
  auto pages = PageMap::open(proc, task);
  if (!mappings || !pages) return result;
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto swapped = pages->swapped_pages(mapping);
    if (!swapped) continue;
    for (const PageRange& range : swapped->ranges()) result.append(range);
  }
  return result;
}

// How many of what `inherited` says a process swapped out after it had copied them: one of the
// others has the original.
std::uint64_t swapped_copies(const ProcFiles& proc, pid_t task, const PageFrames& inherited,
                             const std::vector<pid_t>& others) {
  PageRanges swapped = swapped_pages(proc, task);
  const std::uint64_t all = swapped.bytes();
  for (const pid_t other : others) {
    if (swapped.empty()) break;
    swapped = subtract(
        swapped, pages_where(proc, other, swapped, [&](std::uint64_t address, PageEntry there) {
          return inherited.has(address) && there.frame() == inherited.frame(address);
        }));
  }
  return (all - swapped.bytes()) / kPageSize;
}

// Whether a process that started with `inherited` still has there what it had then.
bool has_original(const PageFrames& inherited, std::uint64_t address, PageEntry entry) {
  return inherited.has(address) ? entry.frame() == inherited.frame(address) : entry.is_of_file();
}

// vfork: every page would seem to be its own.
bool shares_memory(pid_t a, pid_t b) { return ::syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0; }

}  // namespace

CopyDiffs::CopyDiffs(pid_t root, CopyDiff::Taken asked_for, ProcFiles proc)
    : asked_for_(asked_for), proc_(std::move(proc)) {
  if (const auto stat = proc_.stat(root)) add(root, *stat, 0);
}

void CopyDiffs::add(pid_t pid, const ProcStat& stat, pid_t parent) {
  if (const auto old = alive_.find(pid); old != alive_.end()) end(old);
  Known known;
  known.start_ticks = stat.start_ticks;
  known.start_stack = stat.start_stack;
  known.task = pid;
  const auto with = alive_.find(parent);
  if (with != alive_.end()) {
    const auto stat_now = proc_.stat(with->second.task);
    const bool same_image = stat_now && stat_now->start_stack == stat.start_stack;
    known.parent_ticks = with->second.start_ticks;
    known.parent = parent;
    known.shares = same_image && !shares_memory(pid, with->second.task);
  }
  alive_[pid] = std::move(known);
}

bool CopyDiffs::are_siblings(const Known& left, const Known& right) {
  return left.shares && right.shares && left.parent == right.parent &&
         left.parent_ticks == right.parent_ticks;
}

const CopyDiffs::Known* CopyDiffs::parent_of(const Known& known) const {
  const auto parent = alive_.find(known.parent);
  const bool is_there = parent != alive_.end() && parent->second.start_ticks == known.parent_ticks;
  return is_there ? &parent->second : nullptr;
}

void CopyDiffs::forget_image(pid_t pid, Known& known) {
  known.shares = false;
  known.inherited = {};
  known.own.reset();
  for (auto& [child, other] : alive_) {
    if (other.parent == pid && other.parent_ticks == known.start_ticks) {
      other.parent_has_image = false;
    }
  }
}

bool CopyDiffs::is_running(pid_t pid, Known& known) {
  const auto stat = proc_.stat(pid);
  if (!stat || stat->start_ticks != known.start_ticks || !stat->has_memory()) {
    return false;
  }
  if (stat->start_stack != 0 && stat->start_stack != known.start_stack) {
    known.start_stack = stat->start_stack;
    forget_image(pid, known);
  }
  return true;
}

std::map<pid_t, CopyDiffs::Known>::iterator CopyDiffs::end(std::map<pid_t, Known>::iterator entry) {
  entry->second.inherited = {};
  ended_.emplace_back(entry->first, std::move(entry->second));
  return alive_.erase(entry);
}

void CopyDiffs::find_children() {
  const std::vector<pid_t> known = alive();
  std::vector<pid_t> parents = known;
  // Grows while it is walked: grandchildren are found in the same pass.
  for (std::size_t i = 0; i < parents.size(); ++i) {
    const pid_t parent = parents[i];
    const auto children = proc_.children(parent);
    if (!children) continue;
    PageFrames shared;
    for (const pid_t child : *children) {
      const auto stat = proc_.stat(child);
      if (alive_.contains(child) || !stat) continue;
      add(child, *stat, parent);
      parents.push_back(child);
      Known& added = alive_.at(child);
      if (!added.shares) continue;
      shared = PageFrames::read(proc_, parent, shared);
      added.inherited = shared;
    }
  }
}

std::vector<pid_t> CopyDiffs::alive() const {
  std::vector<pid_t> pids;
  pids.reserve(alive_.size());
  for (const auto& [pid, known] : alive_) pids.push_back(pid);
  return pids;
}

void CopyDiffs::compare_own(Entry& entry) const {
  auto& [pid, known] = entry;
  const Known* parent = parent_of(known);
  if (!known.shares || known.inherited.empty()) return;
  // Alone with a page because the parent is gone, or has dropped it, is not a copy.
  if (parent == nullptr && !known.inherited.are_known()) return;
  const std::uint64_t begin = monotonic_ns();
  const auto is_copy = [&inherited = known.inherited](const Mapping& mapping, std::uint64_t address,
                                                      PageEntry here, PageEntry there) {
    // What was not anonymous before was copied from the file.
    if (!inherited.has(address)) return mapping.has_file();
    if (!inherited.are_known()) return here.is_alone() && there.is_present();
    // The same frame in both, and another than before: moved.
    return here.frame() != inherited.frame(address) && here.frame() != there.frame();
  };
  const PageRanges copied =
      anonymous_pages_where(proc_, known.task, parent != nullptr ? parent->task : 0, is_copy);
  const std::uint64_t found = monotonic_ns();
  std::vector<pid_t> others;
  if (parent != nullptr && known.parent_has_image) others.push_back(parent->task);
  for (const auto& [other, sibling] : alive_) {
    if (other != pid && are_siblings(sibling, known) && others.size() <= kMostSiblings) {
      others.push_back(sibling.task);
    }
  }
  auto compared = compare_copied_pages(proc_, known.task, copied, others, known.inherited);
  if (!compared) return;
  if (known.inherited.are_known()) {
    compared->add_not_compared(swapped_copies(proc_, known.task, known.inherited, others));
  }
  compared->add_cost(found - begin);
  known.own = std::move(*compared);
}

void CopyDiffs::compare_parents(Entry& entry) const {
  auto& [pid, known] = entry;
  const Known* parent = parent_of(known);
  if (!known.shares || parent == nullptr || !known.parent_has_image || !known.inherited.are_known())
    return;
  const std::uint64_t begin = monotonic_ns();
  const auto is_copy = [&child = known.inherited, parent](const Mapping& mapping,
                                                          std::uint64_t address, PageEntry here,
                                                          PageEntry there) {
    if (!has_original(child, address, there)) return false;
    // The parent's own comparison, as a child, has those that its parent shared with both.
    if (!child.has(address)) return mapping.has_file() && !parent->shares;
    const std::uint64_t frame = child.frame(address);
    return here.frame() != frame && parent->inherited.frame(address) != frame;
  };
  PageRanges copied = anonymous_pages_where(proc_, parent->task, known.task, is_copy);
  // What a sibling still has will be compared with that.
  for (const auto& [other, sibling] : alive_) {
    if (copied.empty()) break;
    const bool comes_later = known.taken == CopyDiff::Taken::at_exit || other > pid;
    if (other == pid || !comes_later || !are_siblings(sibling, known)) continue;
    const PageRanges with_sibling = pages_where(
        proc_, sibling.task, copied,
        [&child = known.inherited, &its = sibling.inherited](std::uint64_t address,
                                                             PageEntry there) {
          return its.frame(address) == child.frame(address) && has_original(its, address, there);
        });
    copied = subtract(copied, with_sibling);
  }
  const std::uint64_t found = monotonic_ns();
  auto compared = compare_copied_pages(proc_, parent->task, copied, {known.task}, known.inherited);
  if (!compared) return;
  compared->add_cost(found - begin);
  known.parents = std::move(*compared);
}

void CopyDiffs::compare(Entry& entry) {
  compare_own(entry);
  compare_parents(entry);
}

void CopyDiffs::sample() {
  for (auto entry = alive_.begin(); entry != alive_.end();) {
    const bool goes_on = entry->second.is_followed || is_running(entry->first, entry->second);
    entry = goes_on ? std::next(entry) : end(entry);
  }
  find_children();
  for (Entry& entry : alive_) {
    const std::uint64_t begin = monotonic_ns();
    if (entry.second.is_followed || !entry.second.comparisons.is_due(begin)) continue;
    compare(entry);
    const std::uint64_t finished = monotonic_ns();
    entry.second.comparisons.ran(finished, finished - begin);
  }
}

void CopyDiffs::follow(pid_t pid) {
  if (const auto known = alive_.find(pid); known != alive_.end()) known->second.is_followed = true;
}

void CopyDiffs::started(pid_t pid, pid_t parent) {
  const auto stat = proc_.stat(pid);
  if (!stat) return;
  add(pid, *stat, parent);
  Known& known = alive_.at(pid);
  known.is_followed = true;
  if (!known.shares) return;
  // Most of it is as a sibling's.
  const auto sibling = std::find_if(alive_.rbegin(), alive_.rend(), [&](const Entry& other) {
    return other.first != pid && are_siblings(other.second, known);
  });
  known.inherited = PageFrames::read(
      proc_, pid, sibling == alive_.rend() ? PageFrames() : sibling->second.inherited);
}

void CopyDiffs::executed(pid_t pid) {
  const auto known = alive_.find(pid);
  if (known == alive_.end()) return;
  known->second.task = pid;
  if (const auto stat = proc_.stat(pid)) known->second.start_stack = stat->start_stack;
  forget_image(pid, known->second);
}

void CopyDiffs::exiting(pid_t pid, pid_t task) {
  const auto entry = alive_.find(pid);
  if (entry == alive_.end()) return;
  entry->second.task = task;
  entry->second.taken = CopyDiff::Taken::at_exit;
  compare(*entry);
  for (Entry& child : alive_) {
    if (parent_of(child.second) == &entry->second) compare_parents(child);
  }
  end(entry);
}

void CopyDiffs::ended(pid_t pid) {
  if (const auto entry = alive_.find(pid); entry != alive_.end()) end(entry);
}

void CopyDiffs::compare_alive() {
  for (Entry& entry : alive_) compare(entry);
}

void CopyDiffs::add_to(Measurement& measurement) const {
  measurement.diffs = asked_for_;
  std::map<std::pair<pid_t, std::uint64_t>, PageComparison> of_parents;
  const auto each_known = [this](const auto& visit) {
    for (const auto& [pid, known] : ended_) visit(pid, known);
    for (const auto& [pid, known] : alive_) visit(pid, known);
  };
  each_known([&](pid_t, const Known& known) {
    if (known.parents) of_parents[{known.parent, known.parent_ticks}].add(*known.parents);
  });
  // One PID's processes come in order of start, here and there, so that each takes its own.
  std::map<pid_t, std::size_t> next;
  auto& processes = measurement.processes;
  each_known([&](pid_t pid, const Known& known) {
    const auto is_it = [&](const ProcessCopies& process) {
      return process.pid == pid && process.start_ticks == known.start_ticks;
    };
    const auto begin = processes.begin() + static_cast<std::ptrdiff_t>(next[pid]);
    const auto process = std::find_if(begin, processes.end(), is_it);
    if (process == processes.end()) return;
    next[pid] = static_cast<std::size_t>(process - processes.begin()) + 1;
    const auto as_parent = of_parents.find({pid, known.start_ticks});
    if (!known.own && as_parent == of_parents.end()) return;
    PageComparison sum = known.own.value_or(PageComparison());
    if (as_parent != of_parents.end()) sum.add(as_parent->second);
    process->diff = sum.result();
    process->diff->taken = known.taken;
  });
}

}  // namespace cowshed::cow
