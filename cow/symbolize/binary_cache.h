#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <tuple>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/sandbox/file_opener.h>

namespace cowshed::cow {

// A program, a library, or generated code.
struct Binary {
  CodeReader* reader = nullptr;
  CodeReader::BinaryId id = 0;  // in the reader
  FileRequest file;
  std::string path;  // empty: generated code without a perf map
  bool is_generated = false;
  bool is_readable = false;
  // The link-time addresses that its program headers load.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  Language interpreter = Language::native;  // of which language, by name or exports
  std::optional<PythonLayout> python;       // of its interpreter, with an address as linked
};

// Opens each binary once for all processes, and reads it in child processes, because the measured
// program may be hostile.  One thread at a time.
class BinaryCache {
 public:
  explicit BinaryCache(ProcFiles proc);
  BinaryCache(const BinaryCache&) = delete;
  BinaryCache& operator=(const BinaryCache&) = delete;

  // Returns the file of `mapping` in process `pid`, by device and inode, or the vDSO.  Finds a file
  // by /proc/PID/map_files, or by its path in the root of the process or in ours.  Never null;
  // lives as long as the cache.
  const Binary* open(const Mapping& mapping, pid_t pid);

  // Returns the perf map of a process that `owner` runs; null: none yet.  `process_id` is that of
  // the probe.  Looks again now and then, and if it has not since `since_ns`.
  const Binary* perf_map(std::uint64_t process_id, pid_t pid, uid_t owner, std::uint64_t since_ns);
  // Returns the generated code without a perf map.
  const Binary* generated_code();

  CodeReader& reader() { return reader_; }

  // Returns a line for each binary that was set aside and each file that did not open.
  std::vector<std::string> unread() const;

  CodeReader::LayoutId new_layout() { return ++last_layout_; }

 private:
  struct PerfMapFile {
    const Binary* binary = nullptr;
    std::uint64_t look_ns = 0;
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
  const Binary* generated_ = nullptr;
};

}  // namespace cowshed::cow
