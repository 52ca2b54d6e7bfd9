#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// Is read once, from its beginning: it may be a pipe.  Move-only, owns its descriptor; not
// thread-safe.  Errors: system_call.
class InputFile {
 public:
  static Expected<InputFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  // What the next read() begins with: `size` bytes, or all that there are.
  Expected<std::string_view> peek(std::size_t size);
  // How many bytes came; 0: the end.
  Expected<std::size_t> read(char* bytes, std::size_t size);

 private:
  InputFile(std::string path, FileDescriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}
  Expected<std::size_t> read_file(char* bytes, std::size_t size) const;

  std::string path_;
  FileDescriptor file_;
  std::string peeked_;
};

}  // namespace cowshed::cowtop
