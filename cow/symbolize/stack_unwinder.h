#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/symbolize/binary_cache.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// An instruction by its address in its file, the same in every process.
struct CodeAddress {
  const Binary* binary = nullptr;  // null: none; then the address is in the process
  std::uint64_t address = 0;
  auto operator<=>(const CodeAddress&) const = default;
};

// Innermost first.  A caller's address is that of its call.
struct CodeStack {
  std::vector<CodeAddress> addresses;
  bool truncated = false;
  auto operator<=>(const CodeStack&) const = default;
};

// Unwinds copied stacks of processes with the same code at the same addresses.  It uses call frame
// information, or frame pointers if there is none.  The processes may have ended.  A stack with the
// return addresses of an earlier one, at the same places, costs a fraction.  One thread at a time.
class StackUnwinder {
 public:
  // Only `mappings` of files count.  Their files are opened in process `pid`.
  StackUnwinder(const std::vector<Mapping>& mappings, pid_t pid, BinaryCache& binaries);
  StackUnwinder(const StackUnwinder&) = delete;
  StackUnwinder& operator=(const StackUnwinder&) = delete;
  ~StackUnwinder();

  // The result is valid until the next call.
  const CodeStack& unwind(const CopySample& sample);

  // Returns the CPython interpreter in one of the files, with its address in the processes;
  // nullopt: none.
  const std::optional<PythonLayout>& python() const { return python_; }
  // Returns the text at an address of a file, as far as CodeReader::name_at() does.
  const std::string& name_at(std::uint64_t address);

  // Returns a text that is equal for mappings with the same code at the same addresses.
  static std::string code_layout(const std::vector<Mapping>& mappings);

 private:
  struct Code {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    bool of_file = false;
  };

  std::vector<CodeReader::Module> modules_of(const std::vector<Mapping>& mappings, pid_t pid,
                                             BinaryCache& binaries);
  const Code* code_at(std::uint64_t address) const;
  CodeAddress known_address(const CodeReader::Location& location) const;

  struct Walked {
    CodeStack stack;
    std::vector<CodeReader::Location> callers;
    std::size_t stack_bytes = 0;    // of the sample
    std::uint64_t frame_depth = 0;  // of its frame pointer
  };
  Walked walk(const CopySample& sample);
  static bool is_same(const Walked& known, const CopySample& sample);

  std::vector<Code> code_;  // sorted
  CodeReader* reader_;
  CodeReader::LayoutId layout_ = 0;
  std::map<CodeReader::BinaryId, const Binary*> binaries_;
  std::vector<CodeReader::Module> modules_;
  std::optional<PythonLayout> python_;
  std::unordered_map<std::uint64_t, std::vector<Walked>> known_;  // by rip, the latest last
  std::size_t walks_ = 0;                                         // in known_
  std::map<std::uint64_t, std::string> names_;                    // by address
};

}  // namespace cowshed::cow
