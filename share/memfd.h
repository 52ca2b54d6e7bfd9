#pragma once

#include <cstddef>
#include <fcntl.h>
#include <string>

#include <cowshed/share/descriptor.h>

namespace cowshed {

// Nobody can change what has these.
constexpr int kSealed = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

// An empty memfd, CLOEXEC, not executable where the kernel knows that (Linux 6.3).  None: errno
// says why.
enum class Sealable : bool { no, yes };
Descriptor make_memfd(const std::string& label, Sealable sealable);

// Whether it is a memfd that has all of these seals.
bool has_seals(int fd, int seals);

}  // namespace cowshed
