#pragma once

#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed {

// Nobody can change what has these.
constexpr int kSealed = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

// Adds them.  The kernel gives up after 150 ms (EBUSY, mm/memfd.c memfd_wait_for_folios()) where
// it has a page in hand itself, for compaction, say; then this asks again, for three seconds at
// most.  False: errno says why; EBUSY: somebody maps it for writing, or has I/O on it.
bool seal(int fd);

// An empty memfd, CLOEXEC, not executable where the kernel knows that (Linux 6.3).  None: errno
// says why.
enum class Sealable : bool { no, yes };
FileDescriptor make_memfd(const std::string& label, Sealable sealable);

// 0, or the errno of what failed.
int write_all(int fd, const void* data, std::size_t size, std::uint64_t offset) noexcept;

// ftruncate(), except that it fails with EFBIG where the new size exceeds RLIMIT_FSIZE.  There the
// kernel would also send SIGXFSZ, which ends the process (inode_newsize_ok() in fs/attr.c).  Writes
// within a file's size raise neither.  The message begins with `who`.
Expected<void> set_file_size(int fd, std::uint64_t bytes, const std::string& who);

// fallocate(): false, and errno says why.
bool allocate_pages(int fd, std::size_t offset, std::size_t size) noexcept;

// Whether it is a memfd that has all of these seals.
bool has_seals(int fd, int seals);

}  // namespace cowshed
