#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <sys/types.h>
#include <vector>

namespace cowshed::bench {

// A program that runs until SIGINT; all that it writes is kept.
class Tool {
 public:
  // Throws std::runtime_error when it cannot be started.
  explicit Tool(std::vector<std::string> command);
  ~Tool();
  Tool(const Tool&) = delete;
  Tool& operator=(const Tool&) = delete;

  pid_t pid() const { return pid_; }

  // Throws std::runtime_error when it ends without.
  void wait_for(const std::string& text);

  // What it wrote.
  const std::string& read_to_end();
  // The same, with SIGINT.
  const std::string& stop();
  // At its peak; after its end.
  double memory_mib() const { return memory_mib_; }

 private:
  std::string name_;
  pid_t pid_ = 0;
  int output_;
  std::string text_;
  double memory_mib_ = 0;
};

// CPU time that a process has taken, with all its threads but not its children, in ns.  Throws
// std::runtime_error when it has ended.
double cpu_ns(pid_t pid);

// What cowtop --json wrote, behind its messages.  Throws std::runtime_error with all of it where
// there is none.
nlohmann::json json_said(const std::string& output);

// The cowtop that was built with this program.
std::string cowtop_path();

}  // namespace cowshed::bench
