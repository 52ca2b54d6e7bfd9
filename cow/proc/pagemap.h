#pragma once

#include <sys/types.h>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// Resident pages.
struct AnonymousPages {
  PageRanges own;     // mapped by this process alone
  PageRanges shared;  // by others, too
};

// Reads /proc/PID/pagemap, which needs no privilege for one's own processes.  Reading it changes
// nothing in the process.  Move-only, owns a descriptor; not thread-safe.
class PageMap {
 public:
  static Expected<PageMap> open(const ProcFiles& proc, pid_t pid);

  // The resident anonymous pages of `mapping`, at the cost and with the exception that
  // base/pagemap.h names.
  Expected<PageRanges> anonymous_pages(const Mapping& mapping);

  // The same, by whose they are.
  Expected<AnonymousPages> anonymous_pages_by_owner(const Mapping& mapping);

  // Of what anonymous_pages_by_owner(mapping) has found `here`, what this process has copied.
  // `inherited` are the anonymous ones that
  // its parent had at the fork, and `with_parent` those of them that the parent still has: alone
  // with a page because the parent is gone, or has dropped it, is not a copy.  A copy that children
  // of its own share since shows only by comparison with `parent`, if given, and in mappings of
  // files only: it costs a look at each such page, and CAP_SYS_ADMIN.
  Expected<PageRanges> copied_pages(const Mapping& mapping, const AnonymousPages& here,
                                    const PageRanges& inherited, const PageRanges& with_parent,
                                    const PageMap* parent);

  // The process has replaced or lost its memory since open(): every read gives nothing.
  bool is_gone() const { return gone_; }

 private:
  explicit PageMap(FileDescriptor file) : file_(std::move(file)) {}
  Expected<void> check(int error);
  Expected<PageRanges> copied_file_pages(const PageRanges& resident, const PageRanges& inherited,
                                         const PageRanges& in_both, const PageRanges& exclusive,
                                         const PageMap* parent);
  Expected<PageRanges> different_pages(const PageRanges& pages, const PageMap& other);

  FileDescriptor file_;
  bool gone_ = false;
};

// Of a process that has memory, which may be looked at.  The error says why it is none.
Expected<ProcStat> stat_of_readable(const ProcFiles& proc, pid_t pid);

}  // namespace cowshed::cow
