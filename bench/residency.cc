#include "residency.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <stdexcept>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "machine.h"

namespace cowshed::bench {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPagesPerRange = 512;
constexpr std::size_t kEntriesPerRead = 65536;
constexpr std::uint64_t kFileOrShared = 1ULL << 61U;  // Documentation/admin-guide/mm/pagemap.rst
constexpr std::uint64_t kPresent = 1ULL << 63U;

}  // namespace

Residency residency(const std::byte* begin, std::size_t bytes) {
  Residency result{};
  std::vector<unsigned char> in_memory(kPagesPerRange);
  for (std::size_t offset = 0; offset < bytes; offset += kPage * kPagesPerRange) {
    const std::byte* range = begin + offset;
    if (mincore(const_cast<std::byte*>(range), kPage * kPagesPerRange, in_memory.data()) != 0) {
      throw std::system_error(errno, std::system_category(), "mincore");
    }
    // A read of a hole would fill it.
    const auto first = std::find_if(in_memory.begin(), in_memory.end(),
                                    [](unsigned char page) { return (page & 1U) != 0; });
    if (first == in_memory.end()) continue;
    static_cast<void>(*static_cast<const volatile std::byte*>(
        range + static_cast<std::size_t>(first - in_memory.begin()) * kPage));
    const bool full = std::all_of(in_memory.begin(), in_memory.end(),
                                  [](unsigned char page) { return (page & 1U) != 0; });
    result.full_ranges += full ? 1 : 0;
  }
  result.huge_ranges =
      proc_bytes("/proc/self/smaps_rollup", "ShmemPmdMapped") / (kPage * kPagesPerRange);
  return result;
}

std::size_t private_pages_by_pagemap(const std::byte* begin, std::size_t bytes) {
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("/proc/self/pagemap cannot be opened");
  static std::vector<std::uint64_t> entries(kEntriesPerRead);
  const std::size_t first = reinterpret_cast<std::uintptr_t>(begin) / kPage;
  const std::size_t pages = bytes / kPage;
  std::size_t result = 0;
  for (std::size_t done = 0; done < pages;) {
    const std::size_t wanted = std::min(kEntriesPerRead, pages - done);
    const ssize_t got = pread(fd, entries.data(), wanted * sizeof entries[0],
                              static_cast<off_t>((first + done) * sizeof entries[0]));
    if (got <= 0) {
      close(fd);
      throw std::runtime_error("/proc/self/pagemap cannot be read");
    }
    const auto count = static_cast<std::size_t>(got) / sizeof entries[0];
    for (std::size_t i = 0; i < count; ++i) {
      result += (entries[i] & (kPresent | kFileOrShared)) == kPresent ? 1 : 0;
    }
    done += count;
  }
  close(fd);
  return result;
}

}  // namespace cowshed::bench
