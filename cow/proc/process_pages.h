#pragma once

#include <sys/types.h>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {

// The resident anonymous pages of a mapping.
struct AnonymousPages {
  PageRanges own;     // mapped by this process alone
  PageRanges shared;  // by others, too
};

// The pages of one process, from /proc/PID/pagemap, read without privilege for processes of the
// same user.  Reading changes nothing in the process.  Move-only, owns a descriptor.  Not
// thread-safe.  Errors: those of ProcFiles.
class ProcessPages {
 public:
  static Expected<ProcessPages> open(const ProcFiles& proc, pid_t pid);

  // Returns the resident anonymous pages of `mapping`.  base/pagemap.h states the cost and an
  // exception.
  Expected<PageRanges> anonymous_pages(const Mapping& mapping);

  // Returns the same pages, private and shared ones apart.
  Expected<AnonymousPages> anonymous_pages_by_owner(const Mapping& mapping);

  // Returns the pages that this process has copied, from `here`, which is the result of
  // anonymous_pages_by_owner(mapping).  `inherited` are the parent's anonymous pages at the fork,
  // and `with_parent` those that the parent still has: a page that is private because the parent
  // has dropped it is not a copy.  With `parent` it also finds copies in mappings of files that
  // children share since; that needs CAP_SYS_ADMIN and reads each such page's entry.
  Expected<PageRanges> copied_pages(const Mapping& mapping, const AnonymousPages& here,
                                    const PageRanges& inherited, const PageRanges& with_parent,
                                    const ProcessPages* parent);

  // Whether the process has called exec or ended since open().  Then every read is empty.
  bool is_gone() const { return gone_; }

 private:
  explicit ProcessPages(FileDescriptor file) : file_(std::move(file)) {}
  Expected<void> check(int error);
  Expected<PageRanges> copied_file_pages(const PageRanges& resident, const PageRanges& inherited,
                                         const PageRanges& in_both, const PageRanges& exclusive,
                                         const ProcessPages* parent);
  Expected<PageRanges> different_pages(const PageRanges& pages, const ProcessPages& other);

  FileDescriptor file_;
  bool gone_ = false;
};

// Returns the stat of a process whose memory can be read.  Errors: those of ProcFiles;
// no_such_process if it has no memory.
Expected<ProcStat> stat_of_readable(const ProcFiles& proc, pid_t pid);

}  // namespace cowshed::cow
