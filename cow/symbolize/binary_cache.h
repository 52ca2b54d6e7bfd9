#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <tuple>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/file_opener.h>

namespace cowshed::cow {

// What holds code: a program, a library, or memory in which the program itself generated it.
struct Binary {
  CodeReader* reader = nullptr;
  CodeReader::BinaryId id = 0;  // there
  FileRequest file;
  std::string path;  // empty: generated code without a perf map
  bool is_generated = false;
  bool is_readable = false;
  // What its program headers load: link-time addresses.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Opens each once, whatever the number of processes that map it, and reads it in processes of their
// own: the measured program may be hostile.  One thread at a time.
class BinaryCache {
 public:
  explicit BinaryCache(ProcFiles proc);
  BinaryCache(const BinaryCache&) = delete;
  BinaryCache& operator=(const BinaryCache&) = delete;

  // The file of `mapping` in process `pid`, as of its device and inode, by /proc/PID/map_files or
  // by its path in the process's own root or in ours.  Never null, lives as long as this.
  const Binary* open(const Mapping& mapping, pid_t pid);

  // The kernel's code in every process, from this process's own.
  const Binary* vdso();

  // Generated code: that the perf map of a process describes, which user `owner` runs; null where
  // there is none yet.  `process_id` is the probe's.
  const Binary* perf_map(std::uint64_t process_id, pid_t pid, uid_t owner);
  // That no perf map describes.
  const Binary* generated_code();

  CodeReader& reader() { return reader_; }

  // What could not be read, a line each: binaries that were set aside, files that did not open.
  std::vector<std::string> unread() const;

  CodeReader::LayoutId new_layout() { return ++last_layout_; }

 private:
  struct PerfMapFile {
    const Binary* binary = nullptr;
    std::uint64_t next_look_ns = 0;
  };

  Binary& add();
  FileDescriptor file_of(CodeReader::BinaryId binary, FileKind kind, const std::string& name);

  OpenerProcess opener_;
  CodeReaderProcess reader_;
  CodeReader::LayoutId last_layout_ = 0;
  std::vector<std::unique_ptr<Binary>> binaries_;  // by id, from 1
  std::map<std::tuple<std::string, dev_t, std::uint64_t>, const Binary*> files_;
  std::map<std::uint64_t, PerfMapFile> perf_maps_;  // by process
  std::map<CodeReader::BinaryId, FileDescriptor> perf_map_files_;
  const Binary* vdso_ = nullptr;
  const Binary* generated_ = nullptr;
};

}  // namespace cowshed::cow
