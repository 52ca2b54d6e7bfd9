#pragma once

#include <array>
#include <cstddef>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop::live {

// Keeps other output off the screen while the live view draws.  Standard output and error, if they
// are a terminal, become an unnamed file, and standard input becomes empty.  A command that starts
// meanwhile inherits these for its whole life.
class StandardStreams {
 public:
  // Errors: system_call.
  static Expected<StandardStreams> take();
  StandardStreams(StandardStreams&&) noexcept = default;
  ~StandardStreams();

  // Restores the streams of this process.
  void give_back();
  // Prints the output since the last call to standard output.
  void print_new();
  // Returns the last `most` bytes of the output.
  std::string last(std::size_t most) const;

 private:
  StandardStreams() = default;
  FileDescriptor file_;
  std::array<int, 3> before_ = {-1, -1, -1};
  std::size_t printed_ = 0;
};

}  // namespace cowshed::cowtop::live
