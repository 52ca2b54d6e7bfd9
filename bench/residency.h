#pragma once

#include <cstddef>

namespace cowshed::bench {

// What of a frozen arena is in memory, and how, by ranges of 2 MiB.
struct Residency {
  std::size_t full_ranges;  // all of whose 4 KiB pages are in memory: mincore(2)
  std::size_t huge_ranges;  // mapped as one 2 MiB page: ShmemPmdMapped of smaps_rollup
};

// Of this process's only arena, whose `begin` is 2 MiB aligned; maps what is in memory first.
// Throws std::runtime_error.
Residency residency(const std::byte* begin, std::size_t bytes);

// The pages that are private to this process in a mapping of a file, the anonymous ones, found by
// reading the entry in /proc/self/pagemap of every 4 KiB.  Throws std::runtime_error.
std::size_t private_pages_by_pagemap(const std::byte* begin, std::size_t bytes);

}  // namespace cowshed::bench
