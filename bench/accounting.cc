#include "accounting.h"

#include <stdexcept>
#include <unistd.h>

#include "kernel_setting.h"

namespace cowshed::bench {
namespace {

constexpr const char* kDelayAccounting = "/proc/sys/kernel/task_delayacct";

}  // namespace

// The helper has the lock: it outlives a process that is killed, until it has put the setting back.
Accounting::Accounting()
    : helper_([](int end, auto ready) {
        try {
          KernelSetting setting(kDelayAccounting);
          setting.set("1");
          if (ready()) Helper::has_ended(end, -1);
          setting.put_back();
          return true;
        } catch (const std::runtime_error&) {
          return false;
        }
      }) {}

void Accounting::stop() {
  if (!helper_.has_done()) throw std::runtime_error("delay accounting could not be switched");
}

std::string cannot_account() {
  if (access(kDelayAccounting, F_OK) != 0) return "the kernel has no kernel.task_delayacct";
  // Before the lock's file is made: root may not open what another user has made in /var/tmp.
  if (access(kDelayAccounting, W_OK) != 0) return "only root can set kernel.task_delayacct";
  try {
    if (KernelSetting(kDelayAccounting).before() != "0") {
      return "kernel.task_delayacct is on: all that is measured has its cost already";
    }
    Accounting();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace cowshed::bench
