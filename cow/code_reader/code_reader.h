#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/code_reader/heaps.h>
#include <cowshed/cow/code_reader/python_lines.h>
#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/sandbox/file_opener.h>
#include <cowshed/probes/python_layout.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Reads data of measured programs: ELF and DWARF, stacks, perf maps, machine code, heaps.  The
// caller numbers binaries and layouts, and opens the files.  One thread at a time.
class CodeReader {
 public:
  using BinaryId = std::uint32_t;  // not 0
  using LayoutId = std::uint32_t;

  static constexpr std::size_t kMostFrames = 128;
  // The path of the vDSO, the kernel's code in every process, which is no file.
  static constexpr const char* kVdso = "[vdso]";

  // Returns a descriptor of a file of the binary, which the reader closes; -1: none.
  using FileOf =
      std::function<FileDescriptor(BinaryId binary, FileKind kind, const std::string& name)>;

  // The link-time addresses that a binary's program headers load, and whose symbols it exports.
  struct Extent {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    Language interpreter = Language::native;
  };
  struct Module {
    BinaryId binary = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  struct Location {
    BinaryId binary = 0;        // 0: none
    std::uint64_t address = 0;  // in the binary, else in the process
    std::uint64_t pc = 0;       // in the process
    // The bytes from the stack pointer to the word that the address was read from.
    std::uint64_t depth = kNotOnStack;
    static constexpr std::uint64_t kNotOnStack = ~std::uint64_t{0};
  };
  struct Walk {
    std::vector<Location> locations;  // innermost first; at least one
    bool truncated = false;
  };

  CodeReader() = default;
  CodeReader(const CodeReader&) = delete;
  CodeReader& operator=(const CodeReader&) = delete;
  virtual ~CodeReader() = default;

  // Returns the extent of a binary; nullopt: it cannot be read.
  virtual std::optional<Extent> add_binary(BinaryId binary, const std::string& path) = 0;

  // Adds a layout: the mapped binaries of a process, by address.
  virtual void add_layout(LayoutId layout, const std::vector<Module>& modules) = 0;
  virtual void remove_layout(LayoutId layout) = 0;
  virtual Walk walk(LayoutId layout, const CopySample& sample) = 0;

  // Returns the function at an address and the functions that it is inlined into, innermost first:
  // at least one, empty if unknown.  Keeps debug information open until forget_names().
  virtual std::vector<Frame> frames(BinaryId binary, std::uint64_t address) = 0;
  // Returns the name of generated code in the perf map `binary`; empty: unknown.
  virtual std::string generated_function(BinaryId binary, std::uint64_t address) = 0;
  virtual void forget_names(BinaryId binary) = 0;

  // Returns the lines of a Python function, by instruction; empty: unknown.
  virtual std::vector<PythonLine> python_lines(const PythonCode& code) = 0;

  virtual std::map<CounterField, std::size_t> release_sites(BinaryId binary) = 0;

  // Returns the layout of the CPython interpreter in a binary, with its runtime's address in the
  // binary; nullopt: none.
  virtual std::optional<PythonLayout> python_layout(BinaryId binary) = 0;
  // Returns the text in a binary's read-only data that begins at an address and ends within
  // kLongestName bytes; empty: none.
  virtual std::string name_at(BinaryId binary, std::uint64_t address) = 0;
  static constexpr std::size_t kLongestName = 63;

  // As free_pages_of_glibc() and free_pages_of_python(), by a process's open /proc/PID/mem: the
  // largest ranges, in order.
  virtual std::optional<FreeMemory> free_pages(const FileDescriptor& memory,
                                               const std::vector<HeapPart>& parts) = 0;
  static constexpr std::size_t kMostParts = 1500;
  static constexpr std::size_t kMostFreeRanges = 20'000;
};

}  // namespace cowshed::cow
