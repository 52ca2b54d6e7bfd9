#pragma once

#include <string>

#include <cowshed/bench/kernel_setting.h>

namespace cowshed::test {

// A setting of the kernel that has another value until this is destroyed.
class Setting {
 public:
  Setting(const std::string& path, const std::string& value);
  ~Setting();
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  bench::KernelSetting setting_;
};

}  // namespace cowshed::test
