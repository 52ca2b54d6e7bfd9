#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/share/freeze.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace cowshed {
namespace {

// One step for whoever reads meanwhile: the kernel replaces a mapping under its lock.  Not through
// mmap(), which ThreadSanitizer takes for a write to memory that in fact stays as it is.
bool replace(std::uintptr_t begin, std::size_t size, int protection, int flags, int fd) {
  return syscall(SYS_mmap, begin, size, protection, flags | MAP_NORESERVE | MAP_FIXED, fd, 0L) !=
         -1;
}

// EAGAIN passes when a page is busy for a moment, and never while somebody's I/O holds one.
bool collapse_range(std::uintptr_t begin, std::size_t size) {
  const int attempts = size > kHugePage ? 8 : 1;
  for (int i = 0; i < attempts; ++i) {
    if (madvise(reinterpret_cast<void*>(begin), size, MADV_COLLAPSE) == 0) {
      return true;
    }
    if (errno != EAGAIN) {
      return false;
    }
  }
  return false;
}

// Each call drains every CPU's page lists, so ask for much at once; one range that cannot be
// collapsed (a hole, EINVAL; no huge page to be had) ends a call, so then ask range by range.
std::size_t collapse(std::uintptr_t begin, std::size_t size) {
  constexpr std::size_t kStep = 64_MiB;
  std::size_t collapsed = 0;
  for (std::size_t offset = 0; offset < size; offset += kStep) {
    const std::size_t step = std::min(kStep, size - offset);
    if (collapse_range(begin + offset, step)) {
      collapsed += step;
      continue;
    }
    for (std::size_t part = offset; part < offset + step; part += kHugePage) {
      if (collapse_range(begin + part, kHugePage)) {
        collapsed += kHugePage;
      }
    }
  }
  return collapsed;
}

// "1234 (name), 1235 (name)": the processes that map this memfd for writing.
std::string shared_mappers(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return {};
  }
  std::string result;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string pid = entry.path().filename();
    if (!std::all_of(pid.begin(), pid.end(), [](unsigned char c) { return std::isdigit(c); })) {
      continue;
    }
    const auto maps = read_maps(pid);
    const bool found = std::any_of(maps.begin(), maps.end(), [&](const MapsEntry& map) {
      return map.shared && map.inode == status.st_ino && map.name.starts_with("/memfd:cowshed:");
    });
    if (found) {
      result += (result.empty() ? "" : ", ") + pid;
    }
  }
  return result;
}

tl::unexpected<Error> seal_error(int fd, int error, const std::string& who) {
  if (error != EBUSY) {
    return system_error(who + "sealing", error);
  }
  const std::string pids = shared_mappers(fd);
  return tl::make_unexpected(
      Error{ErrorCode::system_call, EBUSY,
            who + "cannot be sealed while somebody else maps it for writing or has I/O on it: " +
                (pids.empty() ? "a process that /proc does not show" : "process " + pids) +
                "; end that first, then freeze() again"});
}

}  // namespace

Expected<std::size_t> freeze_mapping(const ArenaMapping& mapping, std::size_t used, FreezeMode mode,
                                     const std::string& name) {
  const std::string who = "arena '" + name + "': ";
  // Before the private mapping: a private one that was written to cannot be collapsed.
  const std::size_t huge = collapse(mapping.begin, used);
  const int protection = mode == FreezeMode::strict ? PROT_READ : PROT_READ | PROT_WRITE;
  const auto undo = [&](tl::unexpected<Error> error) {
    if (ftruncate(mapping.fd, static_cast<off_t>(mapping.size)) == 0 &&
        replace(mapping.begin, mapping.size, PROT_READ | PROT_WRITE, MAP_SHARED, mapping.fd)) {
      madvise(mapping.address(), mapping.size, MADV_DONTFORK);
    }
    return error;
  };
  if (used > 0 && !replace(mapping.begin, used, protection, MAP_PRIVATE, mapping.fd)) {
    return undo(system_error(who + "mapping it privately", errno));
  }
  if (used < mapping.size && !replace(mapping.begin + used, mapping.size - used, PROT_NONE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1)) {
    return undo(system_error(who + "closing the unused rest", errno));
  }
  if (ftruncate(mapping.fd, static_cast<off_t>(used)) != 0) {
    return undo(system_error(who + "cutting off the unused rest", errno));
  }
  if (fcntl(mapping.fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) !=
      0) {
    return undo(seal_error(mapping.fd, errno, who));
  }
  return huge;
}

}  // namespace cowshed
