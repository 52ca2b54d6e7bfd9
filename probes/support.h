#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include <cowshed/base/error.h>

namespace cowshed {

// What this process lacks to count with eBPF.
enum class ProbeLack : std::uint8_t {
  cpu,             // the programs know the page faults of x86-64
  btf,             // no sys/kernel/btf/vmlinux
  lockdown,        // a kernel in lockdown mode "confidentiality" lets no program read its memory
  capabilities,    // CAP_BPF or CAP_PERFMON
  seccomp,         // a seccomp filter, as a container's, refuses bpf(2)
  user_namespace,  // bpf(2) wants the capabilities in the first user namespace
  bpf_call,        // no bpf(2), or it is refused for another reason
};

// Looks for each lack without loading anything; empty: none was found.  Reads
// sys/kernel/btf/vmlinux, sys/kernel/security/lockdown and proc/self/status below `root`, which
// tests replace.  Only with "/" it calls bpf(2), too.  Thread-safe.
std::vector<ProbeLack> probe_lacks(const std::filesystem::path& root = "/");

// Errors, which name each lack in one line: permission_denied if others can allow it; unsupported
// (another CPU, no BTF, a locked-down kernel, no bpf(2)).  As probe_lacks().
Expected<void> probe_support(const std::filesystem::path& root = "/");

}  // namespace cowshed
