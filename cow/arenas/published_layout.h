#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/published_layout.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/published_object.h>

namespace cowshed::cow {

struct PublishedArena {
  std::string name;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// What a process says of itself in its published layout (base/published_layout.h), at one moment.
struct PublishedLayout {
  std::vector<PublishedArena> arenas;
  std::vector<PublishedObject> objects;
};

// Reads it without changing anything in the process, whose `mappings` these are.  Waits up to some
// 20 ms for a process that is changing it.  The content is the process's to choose, so nothing of
// it is believed; names and types may be any bytes.
//
// Errors: not_published (it has none), unsupported (another version, or no layout at all in spite
// of the name; the message says what is wrong), system_call with EAGAIN (it kept changing),
// no_such_process, permission_denied.
Expected<PublishedLayout> read_published_layout(const ProcFiles& proc, pid_t pid,
                                                const std::vector<Mapping>& mappings);

// What a process says that it has sent, in one way as one type, through one channel or by one
// launch.
struct PublishedTransfer {
  std::string origin;  // "channel" or "launch"
  std::string name;
  std::string type;
  layout::TransferKind kind = {};
  layout::TransferCount sent;
};

// The same for what the process has sent up to now, without waiting, as it only adds to that; empty
// also where its library is older than such counts.  Errors: as above, EAGAIN excepted.
Expected<std::vector<PublishedTransfer>> read_published_transfers(
    const ProcFiles& proc, pid_t pid, const std::vector<Mapping>& mappings);

}  // namespace cowshed::cow
