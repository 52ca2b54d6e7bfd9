#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <sys/types.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/helper_process.h>

namespace cowshed::cow {

// Which file of a binary is wanted.
enum class FileKind : std::uint8_t {
  itself,
  // Debug information.  `name` is the build id in hexadecimal, or the name in .gnu_debuglink.
  build_id,       // /usr/lib/debug/.build-id/NA/ME.debug
  beside,         // in the binary's folder
  debug_folder,   // in .debug in the binary's folder
  system_folder,  // in the binary's folder below /usr/lib/debug
  perf_map,       // of a process
};

// A file that a measured program names.
struct FileRequest {
  FileKind kind = FileKind::itself;
  pid_t pid = 0;            // the process that maps it, or that wrote the perf map
  std::uint32_t owner = 0;  // of that process: a perf map is believed of it, of root and of us
  Mapping mapping;          // of the binary
  std::string name;
};

// Returns a file for reading, or none.  The program may be hostile, and we may be root, so:
// only regular files are opened, nothing else is even touched; the mapped file is the one that the
// process has mapped, in whichever mount namespace; names hold no '/'; and no symbolic link is
// followed, but for those that stay inside /usr/lib/debug.  A perf map is looked for in the /tmp of
// the process, by its PID in its own namespace.  A file that has much more bytes than its disk
// holds is refused.  May wait for a file system that does not answer.
FileDescriptor open_requested(const ProcFiles& proc, const FileRequest& request);

// Opens files in a process of its own: a file system that does not answer, as of a hostile FUSE
// server, holds up that process alone.  One that does not answer in a second is not asked again,
// and after some of them none is.
class OpenerProcess {
 public:
  explicit OpenerProcess(ProcFiles proc) : proc_(std::move(proc)) {}

  FileDescriptor open(const FileRequest& request);

  std::size_t hung() const { return hung_; }

 private:
  static constexpr std::size_t kMostHung = 5;

  ProcFiles proc_;
  std::unique_ptr<HelperProcess> process_;  // null: the next file starts one
  std::set<dev_t> hung_devices_;
  std::size_t hung_ = 0;
};

}  // namespace cowshed::cow
