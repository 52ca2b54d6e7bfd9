#pragma once

#include <cowshed/base/error.h>
#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/options.h>

namespace cowshed::settling {

// Refuses a process in which no memory can be moved: a sanitizer or valgrind, memory that another
// process shares, I/O that is not at rest, or threads that may not be stopped.
Expected<void> check_process(const SettleOptions& options);

// What lets the kernel or a device write to memory at any time.  Allocates nothing.
class AsynchronousIo {
 public:
  void note(const MapsLine& line);  // each line of /proc/self/maps
  // "this process has an io_uring"; nullptr: there is none.
  const char* found() const;

 private:
  const char* found_ = nullptr;
};
tl::unexpected<Error> refuse_io(const char* found);

}  // namespace cowshed::settling
