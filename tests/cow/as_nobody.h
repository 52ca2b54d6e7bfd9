#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::cow::test {

// As nobody: what a process says of who may look at it.
inline std::string as_nobody(const std::function<std::string()>& what) {
  int pipe[2];
  EXPECT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0 ||
        ::prctl(PR_SET_DUMPABLE, 1) != 0) {
      ::_exit(1);
    }
    const std::string text = what();
    ::_exit(::write(pipe[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0
                                                                                            : 1);
  }
  ::close(pipe[1]);
  std::string text;
  char byte = 0;
  while (::read(pipe[0], &byte, 1) == 1) text += byte;
  ::close(pipe[0]);
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
  return text;
}

}  // namespace cowshed::cow::test
