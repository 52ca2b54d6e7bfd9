#include <cerrno>

#include <cowshed/base/try.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {

using internal::AnonymousPage;

Expected<ProcessPages> ProcessPages::open(const ProcFiles& proc, pid_t pid) {
  TRY(auto file, proc.open(pid, "pagemap"));
  return ProcessPages(std::move(file));
}

Expected<void> ProcessPages::check(int error) {
  if (error == ESRCH) gone_ = true;
  else if (error != 0) return system_error("read pagemap", error);
  return {};
}

Expected<PageRanges> ProcessPages::different_pages(const PageRanges& pages,
                                                   const ProcessPages& other) {
  PageRanges result;
  for (const PageRange& range : pages.ranges()) {
    const int error = internal::visit_different_pages(
        file_.get(), other.file_.get(), range.begin, range.end,
        [&](std::uint64_t begin, std::uint64_t end) { result.append({begin, end}); });
    if (error == ESRCH) break;  // one of the two has ended
    TRY_VOID(check(error));
  }
  return result;
}

Expected<PageRanges> ProcessPages::anonymous_pages(const Mapping& mapping) {
  PageRanges result;
  const int error = internal::visit_anonymous_ranges(
      file_.get(), mapping.begin, mapping.end, internal::Anonymous::resident,
      [&](std::uint64_t begin, std::uint64_t end) { result.append({begin, end}); });
  TRY_VOID(check(error));
  return result;
}

Expected<AnonymousPages> ProcessPages::anonymous_pages_by_owner(const Mapping& mapping) {
  AnonymousPages result;
  const int error = internal::visit_anonymous_pages(
      file_.get(), mapping.begin, mapping.end,
      [&result](std::uint64_t begin, std::uint64_t end, AnonymousPage kind) {
        if (kind == AnonymousPage::own) result.own.append({begin, end});
        if (kind == AnonymousPage::shared) result.shared.append({begin, end});
      });
  TRY_VOID(check(error));
  return result;
}

Expected<PageRanges> ProcessPages::copied_pages(const Mapping& mapping, const AnonymousPages& here,
                                                const PageRanges& inherited,
                                                const PageRanges& with_parent,
                                                const ProcessPages* parent) {
  if (!mapping.has_file()) return intersect(intersect(here.own, inherited), with_parent);
  const PageRanges resident = unite(here.own, here.shared);
  const PageRanges in_both = intersect(intersect(resident, inherited), with_parent);
  return copied_file_pages(resident, inherited, in_both, intersect(here.own, in_both), parent);
}

Expected<PageRanges> ProcessPages::copied_file_pages(const PageRanges& resident,
                                                     const PageRanges& inherited,
                                                     const PageRanges& in_both,
                                                     const PageRanges& exclusive,
                                                     const ProcessPages* parent) {
  PageRanges still_inherited = subtract(intersect(resident, inherited), exclusive);
  if (parent != nullptr) {
    auto different = different_pages(subtract(in_both, exclusive), *parent);
    if (!different) return different;
    still_inherited = subtract(still_inherited, *different);
  }
  // What was not anonymous in the parent was copied from the file, here.
  return subtract(resident, still_inherited);
}

Expected<ProcStat> stat_of_readable(const ProcFiles& proc, pid_t pid) {
  auto stat = proc.stat(pid);
  if (!stat) return stat;
  if (!stat->has_memory()) return tl::make_unexpected(no_memory_error(pid, *stat));
  TRY_VOID(ProcessPages::open(proc, pid));
  return stat;
}

}  // namespace cowshed::cow
