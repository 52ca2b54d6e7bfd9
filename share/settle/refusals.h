#pragma once

#include <cowshed/base/error.h>
#include <cowshed/share/settle/options.h>

namespace cowshed::settling {

// Refuses a process in which no memory can be moved: a sanitizer or valgrind, memory that another
// process shares, I/O that is not at rest, or threads that may not be stopped.
Expected<void> check_process(const SettleOptions& options);

}  // namespace cowshed::settling
