#pragma once

#include <filesystem>

#include <cowshed/base/error.h>

namespace cowshed {

// Checks whether this process can count with eBPF here, without loading anything.  Errors, which
// name everything that is missing in one line: unsupported (no BTF, no BPF, an older kernel);
// permission_denied (a missing capability).  Reads sys/kernel/btf/vmlinux and
// proc/self/status below `root`, which tests replace.  Thread-safe.
Expected<void> probe_support(const std::filesystem::path& root = "/");

// Checks whether bpf(2) works: a seccomp filter, as in containers, may refuse it despite the
// capabilities.  Errors: permission_denied; unsupported (no such call).  Thread-safe.
Expected<void> bpf_call_support();

}  // namespace cowshed
