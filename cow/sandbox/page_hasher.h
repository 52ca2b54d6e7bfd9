#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/sandbox/helper_process.h>

namespace cowshed::cow {

// Hashes pages of running processes (XXH3, 64 bits) in a helper process: a read of a page that
// userfaultfd or FUSE is to fill may wait for ever.  It swaps pages in, and changes nothing else in
// the process.  One thread at a time.
class PageHasher {
 public:
  static constexpr std::uint64_t kZeros = 0;   // all bytes are 0
  static constexpr std::uint64_t kUnread = 1;  // the page is no longer there
  static constexpr std::size_t kMostPages = 4000;

  // Returns the hash of each page in `ranges`, of at most kMostPages, by a process's open
  // /proc/PID/mem; nullopt: the read waited for a second, or no helper process could be started.
  std::optional<std::vector<std::uint64_t>> hash(const FileDescriptor& memory,
                                                 const std::vector<PageRange>& ranges);
  // The CPU time of the helper processes.
  std::uint64_t cpu_ns() const;

 private:
  std::unique_ptr<HelperProcess> process_;  // null: the next call starts one
  std::uint64_t earlier_cpu_ns_ = 0;
};

}  // namespace cowshed::cow
