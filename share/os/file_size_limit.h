#pragma once

#include <cstdint>
#include <string>

#include <cowshed/base/error.h>

namespace cowshed {

// ftruncate(), except that past RLIMIT_FSIZE it fails with EFBIG, where the kernel would also send
// SIGXFSZ, which ends the process (inode_newsize_ok() in fs/attr.c).  What lies within a file's
// size can then be written without either.  The message begins with `who`.
Expected<void> set_file_size(int fd, std::uint64_t bytes, const std::string& who);

}  // namespace cowshed
