#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cowtop {

// A file, or a pipe, that is read once from its beginning.  Move-only, owns its descriptor.  Not
// thread-safe.  Errors: system_call.
class InputFile {
 public:
  static Expected<InputFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  // Returns the first `size` bytes of the next read(), or fewer at the end of the file.
  Expected<std::string_view> peek(std::size_t size);
  // Returns the number of bytes; 0: the end.
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
