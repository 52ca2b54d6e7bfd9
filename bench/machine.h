#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace cowshed::bench {

// Processor, cores, memory, kernel and the settings of huge pages: what a figure depends on.
nlohmann::json describe_machine();

// Whether the kernel gives memory on the heap pages of 2 MiB, if only where it is asked to.
bool has_huge_pages();

// Throws where the environment asks this process's malloc for 2 MiB pages and it has them for less
// than half of `bytes`; less than 64 MiB may fit between them.
void expect_huge_pages(std::size_t bytes);

// The calling thread, to the `index`-th of its CPUs counted from the last (the first CPU serves
// most interrupts).  Wraps.
void pin_to_cpu(std::size_t index);

// Touches and releases that much memory (less where less is available): a page that a virtual
// machine's host does not back yet costs several times as much at its first touch.
void touch_memory(std::size_t bytes);

// "Name:   123 kB" of a file like /proc/self/smaps_rollup, in bytes; throws where it is missing.
std::size_t proc_bytes(const std::string& path, const std::string& name);

}  // namespace cowshed::bench
