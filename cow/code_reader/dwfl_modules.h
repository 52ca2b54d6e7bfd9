#pragma once

#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <memory>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/code_reader/elf_binary.h>

namespace cowshed::cow {

struct DwflEnd {
  void operator()(Dwfl* dwfl) const { ::dwfl_end(dwfl); }
};
using OwnDwfl = std::unique_ptr<Dwfl, DwflEnd>;

// A binary for the callbacks of libdwfl.
struct DwflBinary {
  CodeReader::BinaryId id = 0;
  const ElfBinary* elf = nullptr;
  const CodeReader::FileOf* file_of = nullptr;  // null: without debug information
};

// Reports to `dwfl` that `binary` is mapped there, between begin and end of a report.  Returns null
// if dwfl refuses it.  The binary must outlive the module.
Dwfl_Module* report_binary(Dwfl& dwfl, const DwflBinary& binary, std::uint64_t begin,
                           std::uint64_t end);

// Returns the binary that `module` was reported with, and in `begin` the begin of its mapping. Null
// for a module that was reported in another way.
const DwflBinary* binary_of(Dwfl_Module* module, std::uint64_t& begin);

// Returns callbacks for libdwfl that open files only by FileOf.
const Dwfl_Callbacks* dwfl_callbacks();

// Several binaries may share debug information, which dwz moves into one file.  This is that file
// of `module`, found by its build id.  It outlives the module.
class SharedDebugFile {
 public:
  explicit SharedDebugFile(Dwfl_Module* module);
  SharedDebugFile(const SharedDebugFile&) = delete;
  SharedDebugFile& operator=(const SharedDebugFile&) = delete;
  ~SharedDebugFile();

 private:
  FileDescriptor file_;
  Dwarf* dwarf_ = nullptr;
};

}  // namespace cowshed::cow
