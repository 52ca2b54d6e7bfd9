#pragma once

#include <memory>
#include <string>
#include <vector>

#include <cowshed/tests/support/setting.h>

namespace cowshed::test {

enum class Needs {
  nothing,
  huge_pages,      // transparent ones of 2 MiB
  folios,          // transparent ones of 64 KiB
  reserved_pages,  // hugetlbfs
  merging,         // KSM
  swap,
  memory_limit,
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
  // Whether memory was short meanwhile, for Needs::memory_limit.
  bool limit_was_reached() const;

 private:
  void set(const std::string& path, const std::string& value);
  void add_swap();
  void limit_memory(std::size_t bytes);

  std::string missing_;
  std::vector<std::unique_ptr<Setting>> settings_;
  std::string swap_file_;
  std::string cgroup_;         // of which this process is a member meanwhile
  std::string cgroup_before_;  // of which it was
  std::string events_;         // that say how often the limit was met
};

bool kernel_is_before(int major, int minor);

}  // namespace cowshed::test
