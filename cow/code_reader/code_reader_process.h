#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/sandbox/helper_process.h>
#include <cowshed/cow/sandbox/wire.h>

namespace cowshed::cow {

// A CodeReader that works in a process without rights.  The process may crash, or be killed because
// it takes too much time or memory.  Then its current binary is set aside, and a new process
// continues with the others.  After some such deaths nothing more is read.  A binary that is not
// read has no names, and a stack in it ends with its first frame.
class CodeReaderProcess : public CodeReader {
 public:
  explicit CodeReaderProcess(FileOf file_of);
  ~CodeReaderProcess() override;

  std::optional<Extent> add_binary(BinaryId binary, const std::string& path) override;
  void add_layout(LayoutId layout, const std::vector<Module>& modules) override;
  void remove_layout(LayoutId layout) override;
  Walk walk(LayoutId layout, const CopySample& sample) override;
  std::vector<Frame> frames(BinaryId binary, std::uint64_t address) override;
  std::string generated_function(BinaryId binary, std::uint64_t address) override;
  void forget_names(BinaryId binary) override;
  std::vector<PythonLine> python_lines(const PythonCode& code) override;
  std::map<CounterField, std::size_t> release_sites(BinaryId binary) override;
  std::optional<PythonLayout> python_layout(BinaryId binary) override;
  std::string name_at(BinaryId binary, std::uint64_t address) override;
  std::optional<FreeMemory> free_pages(const FileDescriptor& memory,
                                       const std::vector<HeapPart>& parts) override;

  // The binaries that were set aside.
  const std::set<BinaryId>& set_aside() const { return set_aside_; }
  bool has_given_up() const;

 private:
  static constexpr std::size_t kMostDeaths = 8;

  struct Known {
    std::string path;
    std::chrono::milliseconds took{0};
  };

  // Returns the reply; nullopt: none.
  std::optional<std::string> ask(const WireWriter& request, BinaryId binary, int file = -1);
  std::optional<std::string> reply_to(const WireWriter& request, BinaryId binary, int file);
  std::optional<Extent> tell_binary(BinaryId binary);
  // Whether the process can be asked about the binary, after it was told of it.
  bool is_told(BinaryId binary);
  bool tell_layout(LayoutId layout);
  bool start();
  void end(BinaryId at_work_on);
  void took_long(BinaryId binary, std::chrono::milliseconds time);

  FileOf file_of_;
  std::atomic<BinaryId>* at_work_on_;  // shared with the process
  std::unique_ptr<HelperProcess> process_;
  std::map<BinaryId, Known> binaries_;
  std::map<LayoutId, std::vector<Module>> layouts_;
  // Known to the process.
  std::set<BinaryId> told_binaries_;
  std::set<LayoutId> told_layouts_;
  std::set<BinaryId> set_aside_;
  std::size_t deaths_ = 0;
  std::chrono::milliseconds took_{0};
};

}  // namespace cowshed::cow
