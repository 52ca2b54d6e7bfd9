#include <unistd.h>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/copy_diffs.h>
#include <cowshed/cow/page_diff.h>
#include <cowshed/cow/page_map.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kCostFactor = 5;
constexpr std::size_t kMostSiblings = 8;

PageRanges anonymous_pages(const ProcFiles& proc, pid_t pid) {
  PageRanges result;
  const auto mappings = proc.maps(pid);
  auto pages = PageMap::open(proc, pid);
  if (!mappings || !pages) return result;
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto here = pages->anonymous_pages(mapping);
    if (!here) continue;
    for (const PageRange& range : here->ranges()) result.append(range);
  }
  return result;
}

std::uint64_t start_ns(std::uint64_t ticks) {
  static const auto per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return ticks * (1'000'000'000 / per_second);
}

// /proc rounds to a tick.
bool is_same_start(std::uint64_t ns, std::uint64_t ticks) {
  constexpr std::uint64_t kTwoTicksNs = 20'000'000;
  const std::uint64_t rounded = start_ns(ticks);
  return (ns > rounded ? ns - rounded : rounded - ns) <= kTwoTicksNs;
}

}  // namespace

CopyDiffs::CopyDiffs(pid_t root, ProcFiles proc) : proc_(std::move(proc)) {
  if (const auto stat = proc_.stat(root)) add(root, *stat, 0);
}

void CopyDiffs::add(pid_t pid, const ProcStat& stat, pid_t parent) {
  Known known;
  known.start_ticks = stat.start_ticks;
  known.start_stack = stat.start_stack;
  known.parent = parent;
  if (const auto of_parent = proc_.stat(parent);
      of_parent && of_parent->start_stack != stat.start_stack) {
    known.parent = 0;
  }
  if (known.parent != 0) known.inherited = anonymous_pages(proc_, parent);
  alive_[pid] = std::move(known);
}

bool CopyDiffs::is_running(pid_t pid, Known& known) const {
  const auto stat = proc_.stat(pid);
  if (!stat || stat->start_ticks != known.start_ticks || stat->state == 'Z' || stat->state == 'X') {
    return false;
  }
  if (stat->start_stack != 0 && known.parent != 0 && stat->start_stack != known.start_stack) {
    known.parent = 0;
    known.inherited = {};
    known.diff.reset();
  }
  return true;
}

void CopyDiffs::find_children() {
  std::vector<pid_t> parents;
  parents.reserve(alive_.size());
  for (const auto& [pid, known] : alive_) parents.push_back(pid);
  // Grows while it is walked: grandchildren are found in the same pass.
  for (std::size_t i = 0; i < parents.size(); ++i) {
    const pid_t parent = parents[i];
    const auto children = proc_.children(parent);
    if (!children) continue;
    for (const pid_t child : *children) {
      const auto stat = proc_.stat(child);
      if (alive_.contains(child) || !stat) continue;
      add(child, *stat, parent);
      parents.push_back(child);
    }
  }
}

void CopyDiffs::compare(pid_t pid, Known& known) {
  if (!is_running(pid, known) || known.parent == 0 || !alive_.contains(known.parent)) return;
  const auto mappings = proc_.maps(pid);
  auto pages = PageMap::open(proc_, pid);
  auto parent_pages = PageMap::open(proc_, known.parent);
  if (!mappings || !pages || !parent_pages) return;
  const PageRanges with_parent = intersect(known.inherited, anonymous_pages(proc_, known.parent));
  PageRanges copied;
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto here = pages->copied_pages(mapping, known.inherited, with_parent, &*parent_pages);
    if (!here || pages->is_gone()) return;
    for (const PageRange& range : here->ranges()) copied.append(range);
  }
  std::vector<pid_t> others{known.parent};
  for (const auto& [other, sibling] : alive_) {
    if (other != pid && sibling.parent == known.parent && others.size() <= kMostSiblings) {
      others.push_back(other);
    }
  }
  if (const auto diff = diff_copied_pages(proc_, pid, copied, others)) known.diff = *diff;
}

void CopyDiffs::compare(pid_t pid) {
  if (const auto known = alive_.find(pid); known != alive_.end()) compare(pid, known->second);
}

void CopyDiffs::sample() {
  for (auto entry = alive_.begin(); entry != alive_.end();) {
    if (is_running(entry->first, entry->second)) {
      ++entry;
      continue;
    }
    entry->second.inherited = {};
    ended_.emplace_back(entry->first, std::move(entry->second));
    entry = alive_.erase(entry);
  }
  find_children();
  for (auto& [pid, process] : alive_) {
    const std::uint64_t begin = monotonic_ns();
    if (begin < process.next_ns) continue;
    compare(pid, process);
    const std::uint64_t end = monotonic_ns();
    process.next_ns = end + kCostFactor * (end - begin);
  }
}

void CopyDiffs::add_to(Measurement& measurement) const {
  const auto set = [&](pid_t pid, const Known& known) {
    if (!known.diff) return;
    for (ProcessCopies& process : measurement.processes) {
      if (process.pid == pid && is_same_start(process.start_ns, known.start_ticks)) {
        process.diff = known.diff;
      }
    }
  };
  for (const auto& [pid, known] : ended_) set(pid, known);
  for (const auto& [pid, known] : alive_) set(pid, known);
}

}  // namespace cowshed::cow
