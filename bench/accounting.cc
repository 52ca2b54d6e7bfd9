#include "accounting.h"

#include <fstream>
#include <stdexcept>

namespace cowshed::bench {
namespace {

constexpr const char* kSetting = "/proc/sys/kernel/task_delayacct";

bool set(int value) {
  std::ofstream setting(kSetting);
  setting << value << std::flush;
  return setting.good();
}

}  // namespace

Accounting::Accounting()
    : helper_([](int end, auto ready) {
        const bool is_on = set(1);
        if (is_on && ready()) Helper::has_ended(end, -1);
        return set(0) && is_on;
      }) {}

void Accounting::stop() {
  if (!helper_.has_done()) throw std::runtime_error("delay accounting could not be switched");
}

std::string cannot_account() {
  int before = -1;
  std::ifstream(kSetting) >> before;
  if (before < 0) return "the kernel has no kernel.task_delayacct";
  if (before > 0) return "kernel.task_delayacct is on: all that is measured has its cost already";
  try {
    Accounting();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace cowshed::bench
