#pragma once

// Room cow/proc: reads the files and the page maps of /proc.  May use base, cow.

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// The fields of /proc/PID/stat that the project uses.  Where the stack starts is not known without
// ptrace permission, nor while an exec is under way.
struct ProcStat {
  std::string comm;
  char state = '?';
  pid_t ppid = 0;
  std::uint64_t minor_faults = 0;  // of all its threads
  std::uint64_t major_faults = 0;
  std::uint64_t reaped_faults = 0;  // of both kinds, of the children that it has waited for
  std::uint64_t start_ticks = 0;    // with the PID, names a process for good
  std::uint64_t virtual_bytes = 0;
  std::uint64_t resident_pages = 0;
  std::uint64_t start_stack = 0;  // tells one image from the next; 0: not known

  // Neither a kernel thread nor at its end.
  bool has_memory() const { return state != 'Z' && state != 'X' && virtual_bytes > 0; }
};

// A line of /proc/PID/maps.
struct Mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool readable = false;
  bool writable = false;
  bool executable = false;
  bool is_private = false;
  std::uint64_t inode = 0;
  std::string path;  // as shown, with " (deleted)"; empty for anonymous memory
  dev_t device = 0;  // with `inode`, names the file

  bool has_file() const { return inode != 0; }
  // `path`, and for a file that is deleted what it was before.
  std::string_view file_path() const;
  // Behind it is no file that outlives it: anonymous and System V memory, a memfd.
  bool is_memory() const;
  // Its pages can be shared by fork, or with the file, and copied on a write.
  bool can_be_copied() const { return is_private && (readable || writable); }
  std::uint64_t bytes() const { return end - begin; }
  bool operator==(const Mapping&) const = default;
};

// Reads the text files of /proc.  `root` is a parameter so that tests can build one in a folder.
// Stateless, thread-safe.  Errors: no_such_process, permission_denied, system_call.
class ProcFiles {
 public:
  explicit ProcFiles(std::string root = "/proc") : root_(std::move(root)) {}

  Expected<ProcStat> stat(pid_t pid) const;
  Expected<std::vector<Mapping>> maps(pid_t pid) const;
  // /proc/PID/FILE, for reading.
  Expected<FileDescriptor> open(pid_t pid, std::string_view file) const;
  // The number in a line of /proc/PID/status; 0 where there is none.
  std::uint64_t status_number(pid_t task, std::string_view name) const;
  // Of the user that we are.
  bool is_ours(pid_t pid) const;
  // Its PID in its own PID namespace; 0 where that is not known.
  pid_t own_pid(pid_t pid) const;
  // Direct children of all its threads, in no order.
  Expected<std::vector<pid_t>> children(pid_t pid) const;
  // All processes, in order of their PIDs: kernel threads and zombies, too.
  Expected<std::vector<pid_t>> processes() const;
  // How many processes and threads were ever made on this machine, in any PID namespace.
  Expected<std::uint64_t> forks() const;
  std::string path(pid_t pid, std::string_view file) const;

 private:
  std::string status_line(pid_t task, std::string_view name) const;

  std::string root_;
};

// What a line of /proc/PID/maps says but for its path, which is returned.  Allocates nothing.
std::string_view parse_mapping(std::string_view line, Mapping& mapping);
// The text of /proc/PID/maps.
std::vector<Mapping> parse_maps(std::string_view text);

// The name of the arena that a mapping belongs to, from the memfd's name: "index" for
// "/memfd:cowshed:index (deleted)".  Empty for any other mapping.
std::string_view arena_name(const Mapping& mapping);

// A vfork child that has not exec'd yet: every page would seem to be its own.
bool shares_memory(pid_t a, pid_t b);

// The error for a failed access to a file of process `pid`.
tl::unexpected<Error> process_error(pid_t pid, std::string_view path, int error);

// no_such_process, for one without memory: it has exited and nobody has waited for it, say.
Error no_memory_error(pid_t pid, const ProcStat& stat);

}  // namespace cowshed::cow
