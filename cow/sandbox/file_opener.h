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

// The kind of a requested file.
enum class FileKind : std::uint8_t {
  itself,
  // Debug information.  `name` is the build ID in hexadecimal, or the name in .gnu_debuglink.
  build_id,       // /usr/lib/debug/.build-id/NA/ME.debug
  beside,         // in the binary's folder
  debug_folder,   // in .debug in the binary's folder
  system_folder,  // in the binary's folder below /usr/lib/debug
  perf_map,       // of a process
};

// A file that a measured program names.
struct FileRequest {
  FileKind kind = FileKind::itself;
  pid_t pid = 0;            // the process that maps the file or wrote the perf map
  std::uint32_t owner = 0;  // of that process: a perf map of it, of root or of us is trusted
  Mapping mapping;          // of the binary
  std::string name;
};

// Opens a file for reading; an empty descriptor: refused or missing.  The program may be hostile,
// and we may be root.  So it opens only regular files, and touches no others.  The mapped file is
// exactly the one that the process has mapped, in any mount namespace.  Names have no '/'.  It
// follows no symbolic link, except inside /usr/lib/debug.  It finds a perf map in the /tmp of the
// process, by the PID in its own namespace.  It refuses a large sparse file.  It may wait for a
// file system that does not answer.
FileDescriptor open_requested(const ProcFiles& proc, const FileRequest& request);

// Opens files in a child process, so that a file system that does not answer, such as a hostile
// FUSE server, blocks only the child.  It does not ask such a file system again, and after some of
// them it opens no more files.  One thread at a time.
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
