#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

// The tools that the users had.
namespace cowshed::test {

struct OldWay {
  bool hung = false;  // it was not over within the limit, and was killed with its children
  int exit_status = 0;
  std::string out;
  std::string err;

  // What it printed: one JSON object.
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// Runs a command for so long at most.
OldWay run_old_way(const std::vector<std::string>& command, std::chrono::seconds limit);

// A script of Debian's Python.
OldWay run_python(const std::string& script, std::chrono::seconds limit);

// For the test's own log: what came of the old way and of the new one.
void tell(const std::string& line);

}  // namespace cowshed::test
