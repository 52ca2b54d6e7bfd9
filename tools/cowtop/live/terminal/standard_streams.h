#pragma once

#include <array>
#include <cstddef>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop::live {

// While the screen is drawn on, nothing else may be written to it: standard output and error, where
// they are a terminal, become a file without a name, and standard input becomes empty.  A command
// that is started meanwhile inherits that, and writes there for as long as it runs.
class StandardStreams {
 public:
  // Errors: system_call.
  static Expected<StandardStreams> take();
  StandardStreams(StandardStreams&&) noexcept = default;
  ~StandardStreams();

  // The streams of this process are what they were.
  void give_back();
  // To standard output, what was written since the last time.
  void print_new();
  // The end of what was written.
  std::string last(std::size_t most) const;

 private:
  StandardStreams() = default;
  FileDescriptor file_;
  std::array<int, 3> before_ = {-1, -1, -1};
  std::size_t printed_ = 0;
};

}  // namespace cowshed::cowtop::live
