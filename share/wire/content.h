#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/file_descriptor.h>

namespace cowshed::internal {

class Content {
 public:
  // Up to here bytes travel in the message itself.
  static constexpr std::size_t kMostInline = std::size_t{16} << 10U;

  Content() = default;
  explicit Content(std::size_t most_inline) : most_inline_(most_inline) {}
  // What came in a message.  Throws std::runtime_error when `file` is not a sealed memfd with as
  // many bytes.
  Content(std::string bytes, FileDescriptor file, std::uint64_t file_bytes,
          std::vector<FileDescriptor> descriptors);
  Content(Content&& other) noexcept;
  Content& operator=(Content&& other) noexcept;
  ~Content();

  void append(const void* data, std::size_t size);  // see Encoder
  void append(FileDescriptor descriptor) { descriptors_.push_back(std::move(descriptor)); }
  void finish();  // nothing is appended after that

  const std::string& inline_bytes() const { return bytes_; }
  const FileDescriptor& file() const { return file_; }  // none: the bytes are inline
  std::uint64_t file_bytes() const { return file_bytes_; }
  // Taken from it one by one as they find their use.
  std::vector<FileDescriptor>& descriptors() { return descriptors_; }
  const std::vector<FileDescriptor>& descriptors() const { return descriptors_; }

  // All bytes, in memory.  Throws std::system_error when they cannot be mapped.
  std::span<const std::byte> view();

 private:
  void spill(const void* data, std::size_t size);

  std::size_t most_inline_ = kMostInline;
  std::string bytes_;
  FileDescriptor file_;
  std::uint64_t file_bytes_ = 0;
  void* mapped_ = nullptr;
  std::vector<FileDescriptor> descriptors_;
};

}  // namespace cowshed::internal
