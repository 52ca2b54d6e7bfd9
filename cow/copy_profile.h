#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Who copied and what, from samples: one copy in `period` of each thread.  An estimate is the
// process's exact number of copies, spread over its samples; in a sum over processes those with few
// samples are taken together, with those that have none.  Only the tracepoint backend samples.
namespace cowshed::cow {

// Of a path, what follows its last '/'.
inline std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

// A function in a stack.  What is not known is empty or 0.
struct Frame {
  // "[pread64(2)]": the kernel wrote, in that system call.  "generated code": of the program itself
  // (a JIT compiler's), that no perf map names.  "unknown code": of a program that ended, or
  // executed another, before anybody had seen what it maps.
  std::string function;
  std::string file;  // of the source
  int line = 0;
  std::string module;         // path of the program or library
  std::uint64_t address = 0;  // in the module, as its symbol table has it
  bool inlined = false;       // into the next frame
  bool operator==(const Frame&) const = default;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
  auto operator<=>(const Frame&) const = default;
};

// Frames, innermost first.  Never change, and copies share them: a thousand processes of one
// program have the same few stacks.
class Frames {
 public:
  Frames() : Frames(std::vector<Frame>()) {}
  // NOLINTNEXTLINE(google-explicit-constructor): it is the same
  Frames(std::vector<Frame> frames)
      : frames_(std::make_shared<const std::vector<Frame>>(std::move(frames))) {}
  Frames(std::initializer_list<Frame> frames) : Frames(std::vector<Frame>(frames)) {}

  using value_type = Frame;
  using const_iterator = std::vector<Frame>::const_iterator;
  const_iterator begin() const { return frames_->begin(); }
  const_iterator end() const { return frames_->end(); }
  std::size_t size() const { return frames_->size(); }
  bool empty() const { return frames_->empty(); }
  const Frame& operator[](std::size_t i) const { return (*frames_)[i]; }
  const Frame& front() const { return frames_->front(); }
  const Frame& back() const { return frames_->back(); }
  const std::vector<Frame>& all() const { return *frames_; }
  // Whether no copy shares them.
  bool is_only() const { return frames_.use_count() == 1; }

  bool operator==(const Frames& other) const {
    return frames_ == other.frames_ || *frames_ == *other.frames_;
  }
  std::strong_ordering operator<=>(const Frames& other) const {
    return frames_ == other.frames_ ? std::strong_ordering::equal : *frames_ <=> *other.frames_;
  }

 private:
  std::shared_ptr<const std::vector<Frame>> frames_;
};

// A place in the program: the innermost line that is not the C or C++ library's, and what it
// called.
struct CodeSite {
  Frames frames;  // the last is the place itself
  Frames stack;   // the most frequent one that goes through it
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool truncated = false;  // `stack` has more callers: the copy of it ended before them
  bool operator==(const CodeSite&) const = default;
};

struct MappingCopies {
  // "[heap]", "[stack]", "thread stack", "anonymous", "arena NAME", a path (its .data), a path with
  // " .bss"; "unknown" where nobody had seen the process's mappings.
  std::string name;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const MappingCopies&) const = default;
};

// Neighbouring 2 MiB of one mapping that are about equally hot.
struct RangeCopies {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string mapping;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const RangeCopies&) const = default;
};

// As flame graphs are drawn of (flamegraph.pl, speedscope): names from the outermost to the
// innermost, a ';' between each two.
struct FoldedStack {
  std::string folded;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const FoldedStack&) const = default;
};

// Each most copies first.
struct SampledCopies {
  std::uint64_t samples = 0;
  std::vector<CodeSite> sites;
  std::vector<MappingCopies> mappings;
  std::vector<RangeCopies> ranges;  // by copies per byte; of one process only
  // All that there were, so that their copies add up to exactly what the process copied; of one
  // process only.
  std::vector<FoldedStack> stacks;
  bool operator==(const SampledCopies&) const = default;
};

// Of the whole measurement.
struct SamplingSummary {
  std::uint32_t period = 0;
  std::uint64_t emitted = 0;
  std::uint64_t received = 0;
  // The kernel's buffer was full, or too many waited here; emitted == received + lost.
  std::uint64_t lost = 0;
  // Files that gave no names, a line each: the process that read them crashed or hung.  A sound
  // file does neither.
  std::vector<std::string> unread = {};
};

}  // namespace cowshed::cow
