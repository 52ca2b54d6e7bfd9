#include "old_way.h"

#include <iostream>
#include <sys/wait.h>

#include <cowshed/tests/support/subprocess.h>

namespace cowshed::test {

OldWay run_old_way(const std::vector<std::string>& command, std::chrono::seconds limit) {
  // timeout(1) has a process group of its own, and kills all of it.
  std::vector<std::string> timed = {"timeout", "--kill-after=1", std::to_string(limit.count())};
  timed.insert(timed.end(), command.begin(), command.end());
  const Finished finished = run(timed);
  constexpr int kTimedOut = 124;
  constexpr int kKilled = 137;
  const int status = WIFEXITED(finished.status) ? WEXITSTATUS(finished.status) : kKilled;
  return {status == kTimedOut || status == kKilled, status, finished.out, finished.err};
}

OldWay run_python(const std::string& script, std::chrono::seconds limit) {
  return run_old_way({"/usr/bin/python3", "-c", script}, limit);
}

void tell(const std::string& line) { std::cout << line << std::endl; }

}  // namespace cowshed::test
