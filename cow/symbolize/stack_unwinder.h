#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/cow/symbolize/binary_cache.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// An instruction by where it is in its file: at the same place in every process.
struct CodeAddress {
  const Binary* binary = nullptr;  // null: in no file; the address is then the process's own
  std::uint64_t address = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
  auto operator<=>(const CodeAddress&) const = default;
};

// Innermost first.  A caller's address is that of its call.
struct CodeStack {
  std::vector<CodeAddress> addresses;
  bool truncated = false;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
  auto operator<=>(const CodeStack&) const = default;
};

// Unwinds copied stacks of processes that have the same code mapped at the same places, by their
// call frame information, and by frame pointers where there is none.  The processes may be gone.
// Stacks that have the same return addresses cost a fraction after the first.  One thread at a
// time.
class StackUnwinder {
 public:
  // Of `mappings` only those of files count; `pid` is where their files are looked for.
  StackUnwinder(const std::vector<Mapping>& mappings, pid_t pid, BinaryCache& binaries);
  StackUnwinder(const StackUnwinder&) = delete;
  StackUnwinder& operator=(const StackUnwinder&) = delete;
  ~StackUnwinder();

  const CodeStack& unwind(const CopySample& sample);

  // Where code is mapped: equal for mappings that one unwinder serves.
  static std::string code_layout(const std::vector<Mapping>& mappings);

 private:
  struct Code {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    bool of_file = false;
  };

  std::vector<CodeReader::Module> modules_of(const std::vector<Mapping>& mappings, pid_t pid,
                                             BinaryCache& binaries);
  const Code* code_at(std::uint64_t word) const;
  bool is_code(std::uint64_t word) const;
  bool is_of_file(std::uint64_t pc) const;
  std::size_t fingerprint(const CopySample& sample) const;
  CodeAddress known_address(const CodeReader::Location& location) const;
  CodeStack walk(const CopySample& sample);

  std::vector<Code> code_;  // sorted
  CodeReader* reader_;
  CodeReader::LayoutId layout_ = 0;
  std::map<CodeReader::BinaryId, const Binary*> binaries_;
  std::unordered_map<std::size_t, CodeStack> known_;  // by fingerprint
};

}  // namespace cowshed::cow
