#pragma once

#include <memory>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/code_reader/dwfl_modules.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Unwinds copied stacks of processes with the same binaries at the same addresses.  It uses call
// frame information, or frame pointers if there is none.
class StackWalker {
 public:
  struct Module {
    const DwflBinary* binary = nullptr;  // outlives this
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  // Called before the call frame information of a binary is read.
  using AtWorkOn = std::function<void(CodeReader::BinaryId)>;

  StackWalker(const std::vector<Module>& modules, AtWorkOn at_work_on);
  StackWalker(const StackWalker&) = delete;
  StackWalker& operator=(const StackWalker&) = delete;
  ~StackWalker();

  CodeReader::Walk walk(const CopySample& sample);

 private:
  struct Callbacks;
  struct State;

  CodeReader::Location located(std::uint64_t pc) const;

  std::unique_ptr<State> state_;  // the one argument that the callbacks ever get
  OwnDwfl dwfl_;
  bool attached_ = false;
};

}  // namespace cowshed::cow
