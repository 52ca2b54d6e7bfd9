#include "memory_map.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <unistd.h>
#include <vector>

namespace cowshed::test {
namespace {

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

}  // namespace

std::size_t anonymous_kib(const void* begin, std::size_t size) {
  std::ifstream file("/proc/self/smaps");
  std::size_t total = 0;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    std::size_t from = 0;
    std::size_t to = 0;
    std::size_t kib = 0;
    if (std::sscanf(line.c_str(), "%zx-%zx ", &from, &to) == 2) {
      inside = from < number(begin) + size && number(begin) < to;
    } else if (inside && std::sscanf(line.c_str(), "Anonymous: %zu kB", &kib) == 1) {
      total += kib;
    }
  }
  return total;
}

std::size_t own_pages(const void* begin, std::size_t size) {
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63U;
  constexpr std::uint64_t kOfFile = std::uint64_t{1} << 61U;
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::size_t count = 0;
  std::array<std::uint64_t, 4096> entries{};
  for (std::size_t page = 0; page < size / 4096; page += entries.size()) {
    const std::size_t wanted = std::min(entries.size(), size / 4096 - page);
    const auto offset = static_cast<off_t>((number(begin) / 4096 + page) * 8);
    const ssize_t got = pread(fd, entries.data(), wanted * 8, offset);
    count += static_cast<std::size_t>(std::count_if(
        entries.begin(), entries.begin() + got / 8,
        [](std::uint64_t entry) { return (entry & kPresent) != 0 && (entry & kOfFile) == 0; }));
  }
  close(fd);
  return count;
}

std::string mapping_name(const void* address) {
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) {
    std::size_t from = 0;
    std::size_t to = 0;
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%zx-%zx %*s %*s %*s %*s %n", &from, &to, &name_at) == 2 &&
        number(address) >= from && number(address) < to) {
      return line.substr(static_cast<std::size_t>(name_at));
    }
  }
  return "";
}

}  // namespace cowshed::test
