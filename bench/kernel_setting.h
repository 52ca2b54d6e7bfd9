#pragma once

#include <string>

namespace cowshed::bench {

// A setting of the kernel, a file of one line.  One process of the machine has it at a time, the
// others wait.  What was set before is kept in the lock's file, so that the next one can put it
// back if this one is killed.  All throw std::runtime_error.
class KernelSetting {
 public:
  explicit KernelSetting(std::string path);
  ~KernelSetting();
  KernelSetting(const KernelSetting&) = delete;
  KernelSetting& operator=(const KernelSetting&) = delete;

  const std::string& before() const { return before_; }
  void set(const std::string& value);
  // For whoever has called set().
  void put_back();

 private:
  std::string path_;
  std::string lock_path_;
  std::string before_;
  int lock_ = -1;
};

}  // namespace cowshed::bench
