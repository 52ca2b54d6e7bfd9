#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <utility>

#include <cowshed/cow/proc_files.h>

struct Elf;

namespace cowshed::cow {

// What holds code: a program, a library, or memory in which the program itself generated it.
struct Binary {
  struct End {
    void operator()(Elf* elf) const;
  };

  // Gives back what has been read of it, until somebody looks again: of debug information, MBs.
  void release_pages() const;

  std::string path;  // of generated code: its perf map's, empty where there is none
  std::uint64_t inode = 0;
  bool is_generated = false;
  std::unique_ptr<Elf, End> elf;  // mapped, without a descriptor; null where it could not be opened
  // What its program headers load: link-time addresses.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Opens each once, whatever the number of processes that map it.  One thread at a time.
class Binaries {
 public:
  explicit Binaries(ProcFiles proc);

  // The file of `mapping` in process `pid`, as of its inode, by its path, by that of the process's
  // own root, or by /proc/PID/map_files.  Never null, lives as long as this.
  const Binary* open(const Mapping& mapping, pid_t pid);

  // The kernel's code in every process, from this process's own.
  const Binary* vdso();

  // Generated code: what /tmp/perf-PID.map describes, and what nothing does.
  const Binary* perf_map(pid_t pid);
  const Binary* generated_code() { return generated({}); }

 private:
  const Binary* generated(const std::string& perf_map);

  ProcFiles proc_;
  std::map<std::pair<std::string, std::uint64_t>, Binary> binaries_;
};

}  // namespace cowshed::cow
