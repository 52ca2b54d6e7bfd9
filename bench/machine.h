#pragma once

#include <cstddef>
#include <string>

namespace cowshed::bench {

// Throws if less than nine tenths of `bytes` of this process's heap lie in pages of 2 MiB, or, with
// `huge` false, if any do.
void expect_pages(bool huge, std::size_t bytes);

// The process's heap gets pages of 4 KiB, whatever the machine's default.
void use_small_pages();

// Pins the calling thread to the `index`-th of its CPUs, counted from the last: the first CPU
// serves most interrupts.  Wraps.  What it forks or starts inherits that.
void pin_to_cpu(std::size_t index);
// Lets it run on all of them again.
void unpin();

// Touches and releases that much memory, or less if less is available.  A virtual machine's host
// backs a page at its first touch, which costs several times as much.
void touch_memory(std::size_t bytes);

// "Name:   123 kB" of a file like /proc/self/smaps_rollup, in bytes.  Throws if it is missing.
std::size_t proc_bytes(const std::string& path, const std::string& name);

}  // namespace cowshed::bench
