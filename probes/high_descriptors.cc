#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cowshed/probes/high_descriptors.h>

namespace cowshed {
namespace {

// `fd`, or its duplicate above the soft limit.
int moved_up(int fd) {
  rlimit before = {};
  if (getrlimit(RLIMIT_NOFILE, &before) != 0 || before.rlim_cur >= before.rlim_max) return fd;
  const rlimit raised = {before.rlim_max, before.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) return fd;
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(before.rlim_cur));
  setrlimit(RLIMIT_NOFILE, &before);
  if (high < 0) return fd;
  close(fd);
  return high;
}

}  // namespace

HighDescriptors::~HighDescriptors() {
  for (const int fd : descriptors_) close(fd);
}

int HighDescriptors::add(const std::function<int()>& open) {
  const int fd = open();
  if (fd < 0) return -fd;
  descriptors_.push_back(moved_up(fd));
  return 0;
}

}  // namespace cowshed
