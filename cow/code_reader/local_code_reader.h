#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/code_reader/binary_names.h>
#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/code_reader/elf_binary.h>
#include <cowshed/cow/code_reader/perf_map.h>
#include <cowshed/cow/code_reader/stack_walker.h>

namespace cowshed::cow {

// A CodeReader that does its work here.
class LocalCodeReader : public CodeReader {
 public:
  // `at_work_on` is called before a binary is read.
  explicit LocalCodeReader(FileOf file_of, StackWalker::AtWorkOn at_work_on = [](BinaryId) {});

  std::optional<Extent> add_binary(BinaryId binary, const std::string& path) override;
  void add_layout(LayoutId layout, const std::vector<Module>& modules) override;
  void remove_layout(LayoutId layout) override { layouts_.erase(layout); }
  Walk walk(LayoutId layout, const CopySample& sample) override;
  std::vector<Frame> frames(BinaryId binary, std::uint64_t address) override;
  std::string generated_function(BinaryId binary, std::uint64_t address) override;
  void forget_names(BinaryId binary) override;
  std::vector<PythonLine> python_lines(const PythonCode& code) override {
    return parse_python_lines(code.first_line, code.lines);
  }
  std::map<CounterField, std::size_t> release_sites(BinaryId binary) override;
  std::optional<PythonLayout> python_layout(BinaryId binary) override;
  std::string name_at(BinaryId binary, std::uint64_t address) override;
  std::optional<FreeMemory> free_pages(const FileDescriptor& memory,
                                       const std::vector<HeapPart>& parts) override;

 private:
  const ElfBinary* open_binary(BinaryId binary);

  struct Known {
    std::optional<ElfBinary> elf;
    DwflBinary unwound;  // opens no file of debug information, which is not worth it for frames
    DwflBinary named;
  };

  FileOf file_of_;
  StackWalker::AtWorkOn at_work_on_;
  std::map<BinaryId, Known> binaries_;
  std::map<BinaryId, PerfMap> perf_maps_;
  std::map<BinaryId, BinaryNames> names_;
  std::map<LayoutId, StackWalker> layouts_;
};

}  // namespace cowshed::cow
