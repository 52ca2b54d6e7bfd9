#pragma once

#include <string>

namespace cowshed::test {

// A setting of the kernel, a file of one line, that has another value until this is destroyed.  One
// process of the machine has it at a time, the others wait.  What was set before is kept in the
// lock's file, so that the next one can put it back if this one is killed.
class Setting {
 public:
  Setting(const std::string& path, const std::string& value);
  ~Setting();
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  std::string path_;
  std::string before_;
  int lock_ = -1;
};

}  // namespace cowshed::test
