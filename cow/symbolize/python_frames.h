#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <cowshed/cow/code_reader/code_reader.h>
#include <cowshed/cow/copy_profile.h>
#include <cowshed/probes/samples.h>

namespace cowshed::cow {

// Makes frames of the calls of Python functions in samples.  It asks the reader once for the lines
// of each code object; equal ones of many processes are one.  One thread at a time.
class PythonFrames {
 public:
  // Returns the frame of a call, which lives as long as this.  Its code could not be read: one
  // frame, "unknown Python code".  Beyond the limit of memory: "further Python code".
  const Frame* frame(const PythonFrame& call, CodeReader& reader);

 private:
  struct Lines {
    std::vector<PythonLine> lines;
    std::vector<const Frame*> frames;  // by line of `lines`; null: not made yet
  };
  struct Known {
    std::shared_ptr<const PythonCode> code;  // keeps its address from being another's
    Lines* lines = nullptr;
  };
  struct ByContent {
    bool operator()(const PythonCode* a, const PythonCode* b) const {
      return std::tie(a->first_line, a->function, a->file, a->lines) <
             std::tie(b->first_line, b->function, b->file, b->lines);
    }
  };

  // Limits of memory.
  static constexpr std::size_t kMostCodes = 1 << 14;
  static constexpr std::size_t kMostLines = 1 << 20;
  static constexpr std::size_t kMostFrames = 1 << 15;

  Lines& lines_of(const std::shared_ptr<const PythonCode>& code, CodeReader& reader);
  const Frame* shared(const PythonCode& code, int line);

  std::unordered_map<const PythonCode*, Known> known_;
  std::map<const PythonCode*, Lines, ByContent> codes_;  // each key is kept by `known_`
  std::size_t all_lines_ = 0;
  std::set<Frame> frames_;
};

}  // namespace cowshed::cow
