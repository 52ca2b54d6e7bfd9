#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/types.h>
#include <vector>

namespace cowshed::test {

// BPF programs and links, by the kernel's own numbers.
struct KernelObjects {
  std::vector<std::uint32_t> programs;
  std::vector<std::uint32_t> links;

  std::size_t count() const { return programs.size() + links.size(); }
};

// Those that a process has open.
KernelObjects objects_held_by(pid_t process);

// How many of them the kernel still has.
std::size_t still_there(const KernelObjects& objects);

// Waits for all to be gone, which takes a grace period, up to 10 s.
bool are_gone(const KernelObjects& objects);

}  // namespace cowshed::test
