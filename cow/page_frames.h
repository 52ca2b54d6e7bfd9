#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <sys/types.h>

#include <cowshed/base/error.h>
#include <cowshed/cow/page_ranges.h>
#include <cowshed/cow/proc_files.h>

namespace cowshed::cow {

// What /proc/PID/pagemap says of one page (Documentation/admin-guide/mm/pagemap.rst).  0: there is
// no page.
class PageEntry {
 public:
  PageEntry() = default;
  explicit PageEntry(std::uint64_t bits) : bits_(bits) {}

  bool is_present() const { return (bits_ & kPresent) != 0; }
  bool is_anonymous() const { return is_present() && (bits_ & kOfFile) == 0; }
  // Mapped by this process alone.
  bool is_alone() const { return is_anonymous() && (bits_ & kExclusive) != 0; }
  bool is_of_file() const { return is_present() && (bits_ & kOfFile) != 0; }
  // Which page of physical memory.  0: not present, or hidden for want of CAP_SYS_ADMIN.
  std::uint64_t frame() const { return is_present() ? bits_ & kFrame : 0; }
  // No more than whether there is one, and where.
  PageEntry place() const { return PageEntry(is_present() ? bits_ & (kFrame | kPresent) : 0); }

 private:
  static constexpr std::uint64_t kFrame = (std::uint64_t{1} << 55) - 1;
  static constexpr std::uint64_t kExclusive = std::uint64_t{1} << 56;
  static constexpr std::uint64_t kOfFile = std::uint64_t{1} << 61;
  static constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;

  std::uint64_t bits_ = 0;
};

// An open pagemap.  Move-only, owns a descriptor.  Reading changes nothing in the process.
class PageEntries {
 public:
  // Errors: no_such_process, permission_denied, system_call.
  static Expected<PageEntries> open(const ProcFiles& proc, pid_t pid);
  PageEntries(PageEntries&& other) noexcept;
  PageEntries& operator=(PageEntries&&) = delete;
  PageEntries(const PageEntries&) = delete;
  PageEntries& operator=(const PageEntries&) = delete;
  ~PageEntries();

  // Of the pages from `address` on.  What cannot be read, or not any more, is absent.
  void read(std::uint64_t address, std::span<PageEntry> to) const;

 private:
  explicit PageEntries(int fd) : fd_(fd) {}
  int fd_;
};

// Which anonymous pages a process had at some moment, and in which frames of physical memory: who
// still has the same frame there has not copied the page since.  What makes it sound: a copy goes
// to another frame, and the original's is not given away while anybody has it.  (Compaction and
// swap move a page without a copy; then nobody has the frame any more.)
//
// Costs 8 bytes a page, some 7 ms a GiB to read, and nothing for what is as in `earlier`: children
// of one parent differ in little.  A plain value.
class PageFrames {
 public:
  // Those in mappings that can be copied.  Empty where the process may not be read.
  static PageFrames read(const ProcFiles& proc, pid_t pid, const PageFrames& earlier);

  bool empty() const { return chunks_.empty(); }
  bool has(std::uint64_t address) const { return at(address).is_present(); }
  std::uint64_t frame(std::uint64_t address) const { return at(address).frame(); }
  // Whether the frames may be seen: CAP_SYS_ADMIN.
  bool are_known() const { return known_; }

 private:
  static constexpr std::size_t kChunkPages = 512;
  using Chunk = std::array<PageEntry, kChunkPages>;

  PageEntry at(std::uint64_t address) const;

  std::map<std::uint64_t, std::shared_ptr<const Chunk>> chunks_;  // by address / their size
  bool known_ = false;
};

}  // namespace cowshed::cow
