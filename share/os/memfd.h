#pragma once

#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

// Files in memory (memfd_create(2)): making, sealing, sizing and writing them.
namespace cowshed::internal {

// A descriptor, and the file that it was of.  A program may close descriptors that it did not open,
// as closefrom(3) does.  Then another file may get the number, and must not be changed.
struct HeldFile {
  int fd = -1;
  FileIdentity identity{};

  static HeldFile of(int fd) noexcept { return {fd, identity_of(fd)}; }
  // Whether the descriptor still is of the file.  If not, sets errno to EBADF.
  bool is_ours() const noexcept;
  void close() const noexcept;  // if it is
};
// What to say if it is not.
std::string descriptor_was_closed(const std::string& who);

// With these seals, no process can change a memfd.
constexpr int kSealed = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

// Adds kSealed.  Tries for up to three seconds, because the kernel gives up after 150 ms if it uses
// a page itself, as for compaction (EBUSY, memfd_wait_for_folios() in mm/memfd.c).  Returns false
// with an errno; EBUSY: another process maps it for writing, or has I/O on it.
bool seal(int fd);

// Makes an empty memfd, close-on-exec and, since Linux 6.3, not executable.  Returns none with an
// errno.
enum class Sealable : bool { no, yes };
FileDescriptor make_memfd(const std::string& label, Sealable sealable);

// Returns 0, or the errno of the call that failed.
int write_all(int fd, const void* data, std::size_t size, std::uint64_t offset) noexcept;

// Calls ftruncate(), but fails with EFBIG if the new size exceeds RLIMIT_FSIZE.  The kernel would
// also send SIGXFSZ, which ends the process (inode_newsize_ok() in fs/attr.c).  Writes within a
// file's size raise neither.  The message begins with `who`.
Expected<void> set_file_size(int fd, std::uint64_t bytes, const std::string& who);

// Calls fallocate().  Returns false with an errno.
bool allocate_pages(int fd, std::size_t offset, std::size_t size) noexcept;

// Returns whether the file is a memfd with all of these seals.
bool has_seals(int fd, int seals);

}  // namespace cowshed::internal
