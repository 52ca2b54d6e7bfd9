#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <istream>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/mapped_resource.h>
#include <cowshed/share/settle/options.h>

// What this process has mapped, as the kernel says.
namespace cowshed::settling {

// Pieces of memory end at multiples of this.
inline constexpr std::size_t kStep = std::size_t{16} << 20U;
constexpr std::uintptr_t step_end(std::uintptr_t begin) { return begin / kStep * kStep + kStep; }

struct Range {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::size_t size() const { return end - begin; }
  bool contains(std::uintptr_t address) const { return begin <= address && address < end; }
  bool operator==(const Range&) const = default;
};
// In bytes; 0 where they only meet.
constexpr std::size_t overlap(const Range& a, const Range& b) {
  const std::uintptr_t begin = a.begin > b.begin ? a.begin : b.begin;
  const std::uintptr_t end = a.end < b.end ? a.end : b.end;
  return begin < end ? end - begin : 0;
}

// One line of /proc/self/maps.
struct MapsLine {
  Range range;
  std::string_view permissions;  // "rw-p"
  bool is_anonymous = false;     // of no file
  std::string_view name;         // of the file, or "[heap]"

  bool is_private_and_writable() const { return permissions == "rw-p"; }
  bool is_settled() const { return name.starts_with("/memfd:cowshed-settled:"); }
};
MapsLine parse_maps_line(std::string_view line);
// Whether a line of smaps begins a mapping, as one of maps does.
bool is_header(std::string_view line);

// "cowshed-settled:" and the kind, which is how a mapping is known to be settled.
std::string memfd_name(SettledKind kind);

// A mapping that fork() copies on write: private and writable.
struct Mapping {
  Range range;
  std::string name;
  bool is_anonymous = false;
  bool is_settled = false;
  SettledKind settled_as = {};
  bool no_reserve = false;   // MAP_NORESERVE
  std::size_t resident = 0;  // bytes
  std::size_t own = 0;       // bytes in pages of its own, also swapped ones
  std::string obstacle;      // why nobody may move it; empty: may be moved
};

using Mappings = std::pmr::vector<Mapping>;

// Returns them by address; none overlaps another.  Errors: system_call.
Expected<Mappings> private_mappings(std::pmr::memory_resource* memory);
// The same, from the text of /proc/self/smaps.
Mappings parse_smaps(std::istream& smaps, std::pmr::memory_resource* memory);

// For large vectors: blocks of malloc's are looked for and counted.
using PlanMemory = internal::MappedResource;

// What the C library and the kernel write to for this thread: its errno, and the record at
// pthread_self(), which lies above errno on x86-64 and below it on arm64.  The last of them goes on
// for less than a page.
Range variables_of_this_thread();

// Calls visit(line) for each line of a file, and allocates nothing.  `buffer` holds the longest
// line.  Returns 0 or an errno.
template <class Visit>
int visit_lines(const char* path, std::span<char> buffer, Visit visit) {
  const long file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  std::size_t filled = 0;
  int error = 0;
  for (;;) {
    const long got = syscall(SYS_read, file, buffer.data() + filled, buffer.size() - filled);
    if (got < 0) error = errno;
    if (got <= 0) break;
    filled += static_cast<std::size_t>(got);
    std::string_view text(buffer.data(), filled);
    for (auto end = text.find('\n'); end != text.npos; end = text.find('\n')) {
      visit(text.substr(0, end));
      text.remove_prefix(end + 1);
    }
    if (text.size() == buffer.size()) error = ENAMETOOLONG;
    if (error != 0) break;
    std::memmove(buffer.data(), text.data(), text.size());
    filled = text.size();
  }
  syscall(SYS_close, file);
  return error;
}

// Where the first thread has ended, only its other threads' folders have the lines.
template <class Visit>
int visit_maps(std::span<char> buffer, Visit visit) {
  return visit_lines("/proc/thread-self/maps", buffer,
                     [&](std::string_view line) { visit(parse_maps_line(line)); });
}

// Of /proc/self/status, in bytes; 0 if there is no such line.  Allocates nothing.
std::size_t status_bytes(std::string_view key);

}  // namespace cowshed::settling
