#pragma once

#include <cstddef>
#include <string>

namespace cowshed::test {

// KiB of anonymous memory that this process has in [begin, begin + size), from
// /proc/self/smaps: pages of its own, which for a private file mapping are the copied ones.
std::size_t anonymous_kib(const void* begin, std::size_t size);

// The same by /proc/self/pagemap: pages present and not of a file (bit 61).
std::size_t own_pages(const void* begin, std::size_t size);

// The name in /proc/self/maps of what is mapped at `address`, "" when nothing is.
std::string mapping_name(const void* address);

}  // namespace cowshed::test
