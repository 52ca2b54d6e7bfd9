#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/published_object.h>

namespace cowshed::cow {

struct PublishedArena {
  std::string name;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// A process's published layout (base/published_layout.h) at one moment.
struct PublishedLayout {
  std::vector<PublishedArena> arenas;
  std::vector<PublishedObject> objects;
  std::uint64_t settled_bytes = 0;
};

// Reads the layout of a process with these `mappings`, without changing the process.  Waits up to
// some 20 ms while the process changes it.  The content is untrusted: names and types may be any
// bytes.  Errors: not_published; unsupported (another version or a wrong format); system_call with
// EAGAIN (it kept changing); no_such_process; permission_denied.
Expected<PublishedLayout> read_published_layout(const ProcFiles& proc, pid_t pid,
                                                const std::vector<Mapping>& mappings);

// Returns PublishedLayout::settled_bytes; 0 if none of the `mappings` is settled, or the layout
// cannot be read.
std::uint64_t settled_bytes(const ProcFiles& proc, pid_t pid, const std::vector<Mapping>& mappings);

// Reads the objects that the process has sent, without waiting, because these counts only grow.
// keep_most_sent() applies.
// Empty if its library is older than these counts.  Errors: as above, without EAGAIN.
Expected<std::vector<SentObjects>> read_sent_objects(const ProcFiles& proc, pid_t pid,
                                                     const std::vector<Mapping>& mappings);
// The same in a few microseconds, because it reads no mappings unless every place where a layout
// usually lies is taken.
Expected<std::vector<SentObjects>> read_sent_objects(const ProcFiles& proc, pid_t pid);
// Whether a parent of the process called cowshed.freeze() before it forked: the process has the
// parent's row, without its count.
bool inherited_freeze(const ProcFiles& proc, pid_t pid);

}  // namespace cowshed::cow
