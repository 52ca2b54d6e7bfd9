#pragma once

#include <functional>
#include <string>

namespace cowshed::test {

// What became of a forked child.
struct ChildResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string said;  // what the body returned
};

// Runs `body` in a forked child, without threads, and hands over the text that it returns.
ChildResult run_in_child(const std::function<std::string()>& body);

}  // namespace cowshed::test
