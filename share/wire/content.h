#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/os/mapped_memory.h>

// The room share/wire: values as bytes (share/codec.h), and messages over sockets (message.h).  It
// may use base, share/os and share/arena.
namespace cowshed::internal {

// The bytes and descriptors of a message: the output of an Encoder and the input of a Decoder. Many
// bytes lie in a sealed memfd.  Not thread-safe.
class Content {
 public:
  // The most bytes that lie in memory and travel in the message itself.
  static constexpr std::size_t kMostInline = std::size_t{16} << 10U;

  Content() = default;
  explicit Content(std::size_t most_inline) : most_inline_(most_inline) {}
  // A received message.  Throws std::runtime_error if `file` is not a sealed memfd of this size.
  Content(std::string bytes, FileDescriptor file, std::uint64_t file_bytes,
          std::vector<FileDescriptor> descriptors);

  // Throws std::system_error or std::runtime_error if the memfd cannot grow.
  void append(const void* data, std::size_t size);
  void append(FileDescriptor descriptor) { descriptors_.push_back(std::move(descriptor)); }
  void finish();  // seals the memfd; nothing may be appended after it

  const std::string& inline_bytes() const { return bytes_; }
  const FileDescriptor& file() const { return file_; }  // -1: the bytes are inline
  std::uint64_t file_bytes() const { return file_bytes_; }
  // A Decoder takes them one by one.
  std::vector<FileDescriptor>& descriptors() { return descriptors_; }
  const std::vector<FileDescriptor>& descriptors() const { return descriptors_; }

  // All bytes.  Maps the memfd.  Throws std::system_error if the kernel refuses.
  std::span<const std::byte> view();

 private:
  void spill(const void* data, std::size_t size);

  std::size_t most_inline_ = kMostInline;
  std::string bytes_;
  FileDescriptor file_;
  std::uint64_t file_bytes_ = 0;
  MappedMemory mapped_;
  std::vector<FileDescriptor> descriptors_;
};

}  // namespace cowshed::internal
