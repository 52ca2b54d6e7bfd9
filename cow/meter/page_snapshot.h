#pragma once

#include <cstdint>
#include <memory_resource>
#include <string_view>

#include <cowshed/base/pagemap.h>
#include <cowshed/cow/page_ranges.h>

namespace cowshed::cow {

// All anonymous pages of a process at one moment.  It maps its own memory and keeps it, so a
// snapshot of the process itself writes only to a few pages of its stack.
class PageSnapshot {
 public:
  PageSnapshot();

  // Reads the open files /proc/PID/maps and pagemap.  Replaces the old content.  Returns 0 or an
  // errno; ESRCH: the process has ended or called exec since they were opened.
  int take(int maps, int pagemap);

  std::string_view maps() const { return {maps_.data(), maps_.size()}; }
  PageRanges pages(internal::AnonymousPage kind) const;
  PageRanges pages() const;  // of every kind

 private:
  struct Run {
    std::uint64_t begin;
    std::uint64_t end;
    internal::AnonymousPage kind;
  };

  int read_maps(int maps);

  std::pmr::vector<char> maps_;
  std::pmr::vector<Run> runs_;
};

}  // namespace cowshed::cow
