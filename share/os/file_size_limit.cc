#include <cerrno>
#include <sys/resource.h>
#include <unistd.h>

#include <cowshed/share/os/file_size_limit.h>

namespace cowshed {

Expected<void> set_file_size(int fd, std::uint64_t bytes, const std::string& who) {
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      bytes > limit.rlim_cur) {
    return tl::make_unexpected(
        Error{ErrorCode::system_call, EFBIG,
              who + ": a file of " + std::to_string(bytes) + " bytes, where RLIMIT_FSIZE is " +
                  std::to_string(limit.rlim_cur) + "; raise it (ulimit -f)"});
  }
  if (TEMP_FAILURE_RETRY(ftruncate(fd, static_cast<off_t>(bytes))) != 0)
    return system_error(who + ": ftruncate", errno);
  return {};
}

}  // namespace cowshed
