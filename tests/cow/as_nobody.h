#pragma once

#include <functional>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>

#include <cowshed/tests/support/child.h>

namespace cowshed::cow::test {

// As nobody: what a process says of who may look at it.
inline std::string as_nobody(const std::function<std::string()>& what) {
  return cowshed::test::run_in_child([&]() -> std::string {
           if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0 ||
               ::prctl(PR_SET_DUMPABLE, 1) != 0) {
             return "not nobody";
           }
           return what();
         })
      .said;
}

}  // namespace cowshed::cow::test
