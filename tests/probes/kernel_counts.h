#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>

#include <cowshed/base/error.h>

struct bpf_map;

namespace cowshed::test {

// An oracle: how often something happened in the kernel, by process, from its start until this is
// destroyed.  Needs root.
class KernelCount {
 public:
  // Entries of do_wp_page, the kernel's own function for writes to pages that are there and may not
  // be written to: the sum of what it decides, be it a copy, a reuse or a notification.  By fentry,
  // which many locked-down kernels do not let in.
  static Expected<KernelCount> wp_faults();
  // Page-fault exceptions with the write bit, less those of the kernel in its own memory.
  static Expected<KernelCount> exceptions();

  // Of a whole process, alive or not.  `process` is a PID of the machine's own PID namespace.
  std::uint64_t of(pid_t process) const;

 private:
  KernelCount(std::shared_ptr<void> programs, const bpf_map* counts)
      : programs_(std::move(programs)), counts_(counts) {}

  std::shared_ptr<void> programs_;
  const bpf_map* counts_;
};

}  // namespace cowshed::test
