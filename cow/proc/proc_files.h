#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/file_descriptor.h>

namespace cowshed::cow {

// The fields of /proc/PID/stat that the project uses.
struct ProcStat {
  std::string comm;
  char state = '?';
  pid_t ppid = 0;
  std::uint64_t minor_faults = 0;  // of all its threads
  std::uint64_t major_faults = 0;
  std::uint64_t reaped_faults = 0;  // of both kinds, of reaped children
  std::uint64_t threads = 0;
  std::uint64_t start_ticks = 0;  // with the PID, identifies a process forever
  std::uint64_t virtual_bytes = 0;
  std::uint64_t resident_pages = 0;
  // Differs between programs; 0: unknown, without ptrace permission or in an exec.
  std::uint64_t start_stack = 0;

  // Whether it is neither a kernel thread nor ending.
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
  std::string path;  // as in the file, with " (deleted)"; empty for anonymous memory
  dev_t device = 0;  // with `inode`, identifies the file

  // A private mapping of huge pages of hugetlbfs has an empty file.
  bool has_file() const { return inode != 0 && path != "/anon_hugepage (deleted)"; }
  // Returns `path`, for a file without " (deleted)".
  std::string_view file_path() const;
  // Whether it has no file that outlives it: anonymous memory, System V memory, a memfd.
  bool is_memory() const;
  // Whether cowshed::settle() has moved private memory there.
  bool is_settled() const { return is_private && path.starts_with("/memfd:cowshed-settled:"); }
  // Whether its pages can be shared, by fork or with the file, and copied on a write.
  bool can_be_copied() const { return is_private && (readable || writable); }
  std::uint64_t bytes() const { return end - begin; }
  bool operator==(const Mapping&) const = default;
};

// A proportional set size: a page that n processes map counts as 1/n.
struct Pss {
  std::uint64_t bytes = 0;
  std::uint64_t shared_memory_bytes = 0;  // the part of memfds, MAP_SHARED, /dev/shm
  std::uint64_t anonymous_bytes = 0;
};

// Reads the text files of /proc.  If a process's first thread has ended, another one shows its
// memory.  Tests set another `root`.  Thread-safe.  Errors: no_such_process,
// permission_denied, system_call, unsupported.
class ProcFiles {
 public:
  explicit ProcFiles(std::string root = "/proc") : root_(std::move(root)) {}

  Expected<ProcStat> stat(pid_t pid) const;
  Expected<std::vector<Mapping>> maps(pid_t pid) const;
  // The mappings whose memory a fork gives to the child: no MADV_DONTFORK, no MADV_WIPEONFORK.
  Expected<std::vector<Mapping>> inherited_maps(pid_t pid) const;
  Expected<Pss> pss(pid_t pid) const;
  // The bytes that each memfd holds that it has open or maps, without huge pages of hugetlbfs; by
  // device and inode.  Lacks those that we may not look at.
  using Memfds = std::map<std::pair<dev_t, ino_t>, std::uint64_t>;
  Memfds memfds(pid_t pid) const;
  // Opens /proc/PID/FILE for reading.
  Expected<FileDescriptor> open(pid_t pid, std::string_view file) const;
  // Returns the numbers in lines of /proc/PID/status, read at once; 0: none.
  std::vector<std::uint64_t> status_numbers(pid_t pid,
                                            std::span<const std::string_view> fields) const;
  std::uint64_t status_number(pid_t pid, std::string_view name) const {
    return status_numbers(pid, {&name, 1}).front();
  }
  // Returns the memory that KSM has merged with equal pages; nullopt: the kernel does not tell.
  std::optional<std::uint64_t> merged_bytes(pid_t pid) const;
  // Whether the process belongs to our user.
  bool is_ours(pid_t pid) const;
  // Returns its PID in its own PID namespace; 0: unknown.
  pid_t own_pid(pid_t pid) const;
  // Returns its cgroup (v2), at most 4 KiB of it; empty: unknown.
  std::string cgroup(pid_t pid) const;
  // Returns the first 1024 bytes of its command line; empty: unknown.
  std::string cmdline(pid_t pid) const;
  // Returns the system call in which it sleeps, as /proc/PID/syscall has it: the number, six
  // arguments, the stack and the code; empty: it runs, or that is not to be known.
  std::string system_call(pid_t pid) const;
  // Returns the direct children of all its threads, unordered.
  Expected<std::vector<pid_t>> children(pid_t pid) const;
  // Returns all processes by PID, with kernel threads and zombies.
  Expected<std::vector<pid_t>> processes() const;
  // Returns the number of processes and threads ever created on this machine.
  Expected<std::uint64_t> forks() const;
  std::string path(pid_t pid, std::string_view file) const;

 private:
  static Expected<ProcStat> stat_of(pid_t pid, const std::string& file);
  // The first 1024 bytes.
  std::string begin_of(pid_t pid, std::string_view name) const;
  // The file in the folder of a thread that has memory.
  std::string memory_path(pid_t pid, std::string_view file) const;

  std::string root_;
};

// Returns the role that a program gives itself in /proc/PID/cmdline, without what differs between
// alike processes: "postgres: checkpointer", "puma: cluster worker", and for a word --type=renderer
// "chrome: renderer".  Empty: it gives none.
std::string title_of(std::string_view cmdline);

// Whether it waits, without a timeout, for a futex of this process alone: another thread of it
// would have to wake it.
bool waits_for_own_thread(std::string_view system_call);

// Parses a line of /proc/PID/maps into all of `mapping` but its path, which it returns, as a part
// of the line.  Allocates nothing.
std::string_view parse_mapping(std::string_view line, Mapping& mapping);
// Parses the text of /proc/PID/maps.
std::vector<Mapping> parse_maps(std::string_view text);

// Returns the name of a mapping's arena from its memfd: "index" for "/memfd:cowshed:index
// (deleted)".  An arena's name has at most 63 bytes: of a longer one, of a foreign memfd, these are
// the first.  Empty for any other mapping.
std::string_view arena_name(const Mapping& mapping);

// Whether two processes have the same address space, as a vfork child before its exec.  False if
// that is not to be known.
bool shares_memory(pid_t a, pid_t b);

// Returns the error for a failed access to a file of process `pid`.
tl::unexpected<Error> process_error(pid_t pid, std::string_view path, int error);

// Returns no_such_process for a process without memory, such as a zombie.
Error no_memory_error(pid_t pid, const ProcStat& stat);

}  // namespace cowshed::cow
