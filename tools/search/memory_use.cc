#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <malloc.h>
#include <optional>
#include <string>

#include <cowshed/tools/search/memory_use.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// mallinfo2() tells nothing of a sanitizer's malloc; g++ does not bring the header of this.
// NOLINTNEXTLINE(readability-identifier-naming): its own name
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace cowshed::search {
namespace {

// The bytes of a line "NAME:   123 kB".
std::optional<std::uint64_t> bytes_of(std::string_view line, std::string_view name) {
  if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') {
    return std::nullopt;
  }
  const auto digits = line.find_first_of("0123456789");
  std::uint64_t kib = 0;
  if (digits == std::string_view::npos) {
    return std::nullopt;
  }
  std::from_chars(line.data() + digits, line.data() + line.size(), kib);
  return kib * 1024;
}

}  // namespace

Expected<std::uint64_t> private_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (const auto bytes = bytes_of(line, "Private_Dirty")) {
      return *bytes;
    }
  }
  return make_error(ErrorCode::unsupported, "/proc/self/smaps_rollup has no Private_Dirty");
}

Expected<std::uint64_t> copied_bytes(AddressRange range) {
  std::ifstream file("/proc/self/smaps");
  bool inside = false;
  bool found = false;
  std::uint64_t total = 0;
  for (std::string line; std::getline(file, line);) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2) {
      inside = begin < range.end && range.begin < end;
      found = found || inside;
    } else if (inside) {
      total += bytes_of(line, "Anonymous").value_or(0);
    }
  }
  if (!found) {
    return make_error(ErrorCode::not_inherited, "the arena is not mapped in this process");
  }
  return total;
}

std::size_t heap_in_use() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return __sanitizer_get_current_allocated_bytes();
#else
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#endif
}

}  // namespace cowshed::search
