#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace cowshed::test {

struct Finished {
  int status = 0;  // as of waitpid(2)
  std::string out;
  std::string err;

  int exit_status() const;  // -1 when a signal ended it
};

// A child process with its output captured.
class Subprocess {
 public:
  // `in_child` runs between fork and exec.
  explicit Subprocess(const std::vector<std::string>& arguments,
                      const std::function<void()>& in_child = {});
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;
  ~Subprocess();  // kills what is left

  pid_t pid() const { return pid_; }
  // Reads until one of the outputs has `text` in it, or both have ended; what has come so far.
  const Finished& read_until(std::string_view text);
  // Reads both outputs to their end, then waits.
  Finished finish();

 private:
  bool read_some();  // false: both outputs have ended

  Finished finished_;
  pid_t pid_ = -1;
  int out_ = -1;
  int err_ = -1;
};

// Runs to the end.
Finished run(const std::vector<std::string>& arguments, const std::function<void()>& in_child = {});

}  // namespace cowshed::test
