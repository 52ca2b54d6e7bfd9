#pragma once

#include <filesystem>

#include <cowshed/base/error.h>

namespace cowshed {

// Whether this machine and this process can count with eBPF; loads nothing.  The error's code is
// `unsupported` (not x86-64, no BTF, no BPF, an older kernel) or `permission_denied` (a capability
// is missing) and its message names every missing thing in one line.
//
// Reads ROOT/sys/kernel/btf/vmlinux and ROOT/proc/self/status: tests build such folders.
// Thread-safe.
Expected<void> probe_support(const std::filesystem::path& root = "/");

// Whether bpf(2) answers: where the capabilities are there, a seccomp filter may still refuse it,
// as those of containers do.  Errors: permission_denied, unsupported (no such call).  Thread-safe.
Expected<void> bpf_call_support();

}  // namespace cowshed
