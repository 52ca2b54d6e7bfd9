#pragma once

#include <poll.h>

#include <cowshed/base/file_descriptor.h>

namespace cowshed {

// Whether poll() finds one of the events, or an end, now.
inline bool is_ready(int fd, short events = POLLIN) {
  pollfd now = {fd, events, 0};
  return poll(&now, 1, 0) > 0;
}

}  // namespace cowshed
