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

std::uint64_t rollup(std::string_view name) {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (const auto bytes = bytes_of(line, name)) {
      return *bytes;
    }
  }
  return 0;
}

}  // namespace

Expected<std::uint64_t> private_bytes() {
  const std::uint64_t bytes = rollup("Private_Dirty");
  if (bytes == 0) {
    return make_error(ErrorCode::unsupported, "/proc/self/smaps_rollup has no Private_Dirty");
  }
  return bytes;
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
  const struct mallinfo2 info = mallinfo2();
  const std::size_t bytes = info.uordblks + info.hblkhd;
  return bytes != 0 ? bytes : rollup("Rss");
}

}  // namespace cowshed::search
