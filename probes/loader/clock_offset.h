#pragma once

#include <cstdint>
#include <filesystem>

namespace cowshed {

// Returns the difference of CLOCK_MONOTONIC between the caller's time namespace and the kernel,
// whose clock BPF programs use; 0 outside a namespace.  Reads proc/self/timens_offsets below
// `root`.
std::int64_t monotonic_offset_ns(const std::filesystem::path& root = "/");

}  // namespace cowshed
