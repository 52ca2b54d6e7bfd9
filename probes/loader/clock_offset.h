#pragma once

#include <cstdint>
#include <filesystem>

namespace cowshed {

// How much further CLOCK_MONOTONIC of the calling process's time namespace is than the kernel's
// own; 0 outside of one.  BPF programs know the kernel's alone.  Reads proc/self/timens_offsets
// below `root`.
std::int64_t monotonic_offset_ns(const std::filesystem::path& root = "/");

}  // namespace cowshed
