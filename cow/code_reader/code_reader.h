#pragma once

// Room cow/code_reader: reads ELF, DWARF, perf maps and stacks in such a child process.  May use
// cow, cow/sandbox, probes.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/sandbox/file_opener.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Reads what measured programs have written: ELF and DWARF, stacks, perf maps, machine code.  Who
// calls it gives numbers to binaries and layouts, and opens the files.  One thread at a time.
class CodeReader {
 public:
  using BinaryId = std::uint32_t;  // not 0
  using LayoutId = std::uint32_t;

  static constexpr std::size_t kMostFrames = 128;

  // A descriptor of a file of the binary, which the reader closes; -1: none.
  using FileOf =
      std::function<FileDescriptor(BinaryId binary, FileKind kind, const std::string& name)>;

  // What a binary's program headers load: link-time addresses.
  struct Extent {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  struct Module {
    BinaryId binary = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  struct Location {
    BinaryId binary = 0;        // 0: in no file
    std::uint64_t address = 0;  // in the binary, else in the process
    std::uint64_t pc = 0;       // in the process
  };
  struct Walk {
    std::vector<Location> locations;  // innermost first; at least one
    bool truncated = false;
  };

  CodeReader() = default;
  CodeReader(const CodeReader&) = delete;
  CodeReader& operator=(const CodeReader&) = delete;
  virtual ~CodeReader() = default;

  // nullopt: it cannot be read.
  virtual std::optional<Extent> add_binary(BinaryId binary, const std::string& path) = 0;
  virtual std::optional<Extent> add_vdso(BinaryId binary) = 0;

  // BinaryCache as processes have them mapped, by address.
  virtual void add_layout(LayoutId layout, const std::vector<Module>& modules) = 0;
  virtual void remove_layout(LayoutId layout) = 0;
  virtual Walk walk(LayoutId layout, const CopySample& sample) = 0;

  // The function at an address and those that it is inlined into, innermost first; at least one,
  // empty where nothing is known.  Keeps debug information open until forget_names().
  virtual std::vector<Frame> frames(BinaryId binary, std::uint64_t address) = 0;
  // Of generated code, by the perf map that `binary` stands for; empty: not known.
  virtual std::string generated_function(BinaryId binary, std::uint64_t address) = 0;
  virtual void forget_names(BinaryId binary) = 0;

  virtual std::map<CounterField, std::size_t> release_sites(BinaryId binary) = 0;
};

}  // namespace cowshed::cow
