#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <cowshed/tests/support/setting.h>

namespace cowshed::test {

enum class Needs {
  nothing,
  zero_page,   // the kernel's page of zeros; some hypervisors switch it off
  huge_pages,  // transparent ones of 2 MiB
  huge_zero_page,
  folios,          // transparent ones of 64 KiB
  reserved_pages,  // hugetlbfs
  merging,         // KSM
  swap,
  compressed_swap,  // zram, from which a page comes back without the swap cache
  memory_limit,
  memory_limit_and_compressed_swap,
  guard_pages,
  io_uring,
  time_namespace,
};

// What a kind of ground_truth_subject with N units needs of the machine, until this is destroyed.
class Conditions {
 public:
  // Throws std::runtime_error when the machine could, but did not.
  Conditions(Needs needs, long n);
  ~Conditions();
  Conditions(const Conditions&) = delete;
  Conditions& operator=(const Conditions&) = delete;

  // Why this machine cannot; empty where it can.
  const std::string& missing() const { return missing_; }
  // For Needs::memory_limit: the cgroup that this process is in meanwhile, and whether memory was
  // short there.
  const std::string& cgroup() const { return cgroup_; }
  bool limit_was_reached() const;

 private:
  void set(const std::string& path, const std::string& value);
  bool may_swap();
  void add_swap();
  void add_compressed_swap();
  void swap_to(int fd, std::size_t size);
  void limit_memory(std::size_t bytes);

  std::string missing_;
  std::vector<std::unique_ptr<Setting>> settings_;
  std::string swap_file_;
  std::string zram_;  // the number of our device
  std::string cgroup_;
  std::string cgroup_before_;  // of which it was
  std::string events_;         // that say how often the limit was met
};

bool kernel_is_before(int major, int minor);

// True if a read of an untouched page maps the kernel's shared page of zeros.  Some hypervisors
// switch that off.  The read then allocates an ordinary page.
bool kernel_maps_zero_page();

// Of a number of linux/capability.h.  Root in a container may lack some.
bool has_capability(unsigned number);
// Page frames and namespaces take it.
bool has_sys_admin();

// Whether a process can have mounts of its own that no other sees.  In a chroot whose / is no mount
// it cannot.
bool can_have_private_mounts();

}  // namespace cowshed::test
