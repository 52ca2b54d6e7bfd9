#pragma once

#include <string>

namespace cowshed::test {

// Gives a setting of the kernel, a file of one line, another value until this is destroyed.  One
// process of the machine has a setting at a time; the others wait.  The lock's file keeps the value
// of before, so that the next process puts it back if this one is killed.  The constructor throws
// std::runtime_error.
class Setting {
 public:
  Setting(std::string path, const std::string& value);
  ~Setting();
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  std::string path_;
  std::string lock_path_;
  std::string before_;
  int lock_ = -1;
};

}  // namespace cowshed::test
