#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include <cowshed/cow/arenas/frozen_arenas.h>
#include <cowshed/cow/arenas/most_copied.h>
#include <cowshed/cow/arenas/object_copies.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {
namespace {

// The same as PageRanges::bytes_within(), but its time does not grow with the ranges: an arena may
// have very many, and each of very many objects may overlap them all.
class CopiedBytes {
 public:
  explicit CopiedBytes(const PageRanges& copied) : ranges_(copied.ranges()) {
    for (const PageRange& each : ranges_)
      up_to_.push_back((up_to_.empty() ? 0 : up_to_.back()) + each.end - each.begin);
  }
  std::uint64_t within(PageRange range) const { return below(range.end) - below(range.begin); }

 private:
  std::uint64_t below(std::uint64_t address) const {
    const auto after = std::ranges::lower_bound(ranges_, address, {}, &PageRange::begin);
    if (after == ranges_.begin()) return 0;
    const std::uint64_t end = std::prev(after)->end;
    const auto last = static_cast<std::size_t>(after - ranges_.begin()) - 1;
    return up_to_[last] - (end > address ? end - address : 0);
  }

  const std::vector<PageRange>& ranges_;
  std::vector<std::uint64_t> up_to_;  // and with each
};

// Returns how many of `pages` are in `copied`.  A page of several ranges counts once.
std::uint64_t copied_of(std::vector<PageRange> pages, const CopiedBytes& copied) {
  std::ranges::sort(pages, {},
                    [](const PageRange& each) { return std::tie(each.begin, each.end); });
  std::uint64_t bytes = 0;
  std::uint64_t counted = 0;  // all pages below this address
  for (const PageRange& each : pages) {
    const PageRange rest{std::max(each.begin, counted), each.end};
    if (rest.begin >= rest.end) continue;
    bytes += copied.within(rest);
    counted = rest.end;
  }
  return bytes / kPageSize;
}

}  // namespace

PageRanges private_arena_pages(const ProcFiles& proc, pid_t pid) {
  PageRanges result;
  const auto mappings = proc.maps(pid);
  auto pages = ProcessPages::open(proc, pid);
  if (!mappings || !pages) return result;
  for (const FrozenArena& arena : frozen_arenas(proc, pid, *mappings)) {
    if (const auto resident = pages->anonymous_pages(*arena.mapping))
      for (const PageRange& range : resident->ranges()) result.append(range);
  }
  return result;
}

std::vector<CopiedArena> copied_arenas(const ProcFiles& proc, pid_t pid,
                                       const std::vector<Mapping>& mappings,
                                       const PageRanges& inherited, pid_t parent) {
  auto pages = ProcessPages::open(proc, pid);
  if (!pages) return {};
  PageRanges with_parent;
  std::optional<ProcessPages> parent_pages;
  if (!inherited.empty() && parent != 0) {
    with_parent = private_arena_pages(proc, parent);
    if (auto opened = ProcessPages::open(proc, parent)) parent_pages = std::move(*opened);
  }
  std::vector<CopiedArena> arenas;
  for (const FrozenArena& arena : frozen_arenas(proc, pid, mappings)) {
    const auto all = pages->anonymous_pages_by_owner(*arena.mapping);
    if (!all) return {};
    auto copied = pages->copied_pages(*arena.mapping, *all, inherited, with_parent,
                                      parent_pages ? &*parent_pages : nullptr);
    if (!copied || pages->is_gone()) return {};
    if (!copied->empty()) arenas.push_back({arena.mapping, std::move(*copied)});
  }
  return arenas;
}

std::vector<ObjectCopies> copies_by_object(const PublishedLayout& layout,
                                           const std::vector<CopiedArena>& arenas) {
  struct Group {
    ObjectCopies object;
    const CopiedBytes* copied;
    std::vector<PageRange> pages;
  };
  std::vector<CopiedBytes> copied;
  copied.reserve(arenas.size());
  for (const CopiedArena& arena : arenas) copied.emplace_back(arena.pages);
  std::vector<Group> groups;
  std::map<std::pair<const Mapping*, std::string>, std::size_t> unnamed;  // by type
  for (const PublishedObject& object : layout.objects) {
    for (std::size_t i = 0; i < arenas.size(); ++i) {
      const Mapping* mapping = arenas[i].mapping;
      if (object.address < mapping->begin || object.address + object.bytes > mapping->end) continue;
      std::size_t group = groups.size();
      if (object.name.empty())
        group = unnamed.try_emplace({mapping, object.type}, group).first->second;
      if (group == groups.size())
        groups.push_back({{object.name, object.type, object.arena, 0}, &copied[i], {}});
      groups[group].pages.push_back(pages_around(object.address, object.bytes));
    }
  }
  std::vector<ObjectCopies> result;
  result.reserve(groups.size());
  for (Group& group : groups) {
    group.object.copied_pages = copied_of(std::move(group.pages), *group.copied);
    result.push_back(std::move(group.object));
  }
  keep_most_copied(result);
  return result;
}

std::optional<std::vector<ObjectCopies>> copies_by_object(const ProcFiles& proc, pid_t pid,
                                                          const std::vector<Mapping>& mappings,
                                                          const std::vector<CopiedArena>& arenas) {
  if (arenas.empty()) return std::vector<ObjectCopies>{};
  const auto layout = read_published_layout(proc, pid, mappings);
  if (!layout) return std::nullopt;
  return copies_by_object(*layout, arenas);
}

}  // namespace cowshed::cow
