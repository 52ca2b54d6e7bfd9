#include "child.h"

#include <array>
#include <cerrno>
#include <exception>
#include <sys/wait.h>
#include <unistd.h>

namespace cowshed::test {

ChildResult run_in_child(const std::function<std::string()>& body) {
  std::array<int, 2> ends{};
  ChildResult result;
  if (pipe(ends.data()) != 0) {
    return result;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    std::string text;
    try {
      text = body();
    } catch (const std::exception& failure) {
      text = std::string("exception: ") + failure.what();
    }
    const bool whole =
        write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(whole ? 0 : 99);
  }
  close(ends[1]);
  std::array<char, 4096> buffer{};
  for (ssize_t count = 0; (count = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    result.said.append(buffer.data(), static_cast<std::size_t>(count));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) {
    result.exit_code = WEXITSTATUS(status);
  }
  if (WIFSIGNALED(status)) {
    result.signal = WTERMSIG(status);
  }
  return result;
}

}  // namespace cowshed::test
