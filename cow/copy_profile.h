#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cowshed/cow/cause_names.h>
#include <cowshed/probes/samples.h>

// The code that made copies and the memory that was copied, from samples: one copy in `period`,
// which becomes longer while processes copy much.  An estimate spreads a process's exact number of
// copies over its samples: more to those of longer periods.  In a sum over processes, those with
// few or no samples are estimated together.  Only the tracepoint backend samples copies.  All types
// here are values and may cross threads.
namespace cowshed::cow {

// Returns the part of a path after the last '/'.
inline std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

// A function in a stack.  Unknown fields are empty or 0.
struct Frame {
  // "[pread64(2)]": the kernel wrote in that system call.  "generated code": code of a JIT compiler
  // that no perf map names.  "unknown code": the program ended, or executed another, before its
  // mappings were read.
  std::string function;
  std::string file;  // source file
  int line = 0;
  std::string module;         // path of the program or library
  std::uint64_t address = 0;  // in the module, as in its symbol table
  bool inlined = false;       // into the next frame
  // A function of Python, by its qualified name.  `module` is its interpreter.  "unknown Python
  // code": it could not be read.
  bool is_python = false;
  bool operator==(const Frame&) const = default;
  auto operator<=>(const Frame&) const = default;
};

// Returns "total (pool.py:4)" for a frame of Python.
inline std::string python_text(const Frame& frame) {
  if (frame.file.empty()) return frame.function;
  // Every package has one.
  std::string_view file = base_name(frame.file);
  if (const auto folder = frame.file.size() - file.size();
      folder > 1 && (file == "__init__.py" || file == "__main__.py")) {
    const std::string_view rest = std::string_view(frame.file).substr(0, folder - 1);
    file = std::string_view(frame.file).substr(rest.rfind('/') + 1);
  }
  std::string text = frame.function + " (" + std::string(file);
  if (frame.line > 0) text += ":" + std::to_string(frame.line);
  return text + ")";
}

// Returns the frame's part of FoldedStack::folded.  One without a symbol is named by its file.
inline std::string folded_text(const Frame& frame) {
  std::string text = frame.is_python ? python_text(frame) : frame.function;
  if (text.empty() && !frame.module.empty())
    text = "[" + std::string(base_name(frame.module)) + "]";
  if (text.empty()) text = "[unknown]";
  std::ranges::replace(text, ';', ':');
  return text;
}

// Frames, innermost first.  Immutable; copies share one vector, because a thousand processes of one
// program have the same few stacks.
class Frames {
 public:
  Frames() : Frames(std::vector<Frame>()) {}
  // NOLINTNEXTLINE(google-explicit-constructor): same value
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
  // Whether no other copy shares the vector.
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

// A line of the program that made copies: the innermost line outside the C and C++ libraries, and
// the functions that it called.  In a thread of Python: the innermost line of Python outside its
// standard library and, if possible, outside site-packages.
struct CodeSite {
  Frames frames;  // the last is the line itself
  Frames stack;   // its most frequent full stack
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool truncated = false;  // `stack` lacks its outermost callers
  bool operator==(const CodeSite&) const = default;
};

// Whether a function ends the program, by its name: an interpreter or the C library frees or
// destroys there what the program holds.
inline bool ends_program(std::string_view function) {
  constexpr std::array<std::string_view, 14> kNames = {
      "exit",      "quick_exit",    "__run_exit_handlers", "Py_FinalizeEx", "Py_Finalize",
      "Py_Exit",   "ruby_cleanup",  "rb_ec_cleanup",       "perl_destruct", "php_module_shutdown",
      "R_CleanUp", "caml_shutdown", "ruby_stop",           "Perl_my_exit"};
  return std::ranges::find(kNames, function) != kNames.end();
}

// Whether Python imports a module there.
inline bool is_import(const Frame& frame) {
  return frame.is_python && frame.function == "_find_and_load" &&
         frame.file == "<frozen importlib._bootstrap>";
}

// How many ends of programs are in a stack.  What Py_RunMain() calls at the end has no name in a
// stripped Python 3.13: it is one if no code of Python runs.
inline std::size_t ends_of_program(const std::vector<Frame>& stack) {
  std::size_t ends = 0;
  bool is_main = false;
  bool runs_code = false;
  for (const Frame& frame : stack) {
    const std::string_view name = frame.function;
    // The end of a request of a server is not its program's.
    const bool is_php = name == "php_request_shutdown" &&
                        base_name(frame.module).starts_with("php") &&
                        frame.module.find("-fpm") == std::string::npos;
    const bool is_freeze =
        frame.is_python && name == "end_process" && frame.file.ends_with("cowshed/freezing.py");
    if ((!frame.is_python && ends_program(name)) || is_php || is_freeze) ++ends;
    is_main = is_main || name == "Py_RunMain";
    runs_code =
        runs_code || frame.is_python || name.starts_with("PyEval_") || name.starts_with("_PyEval_");
  }
  return is_main && !runs_code ? std::max<std::size_t>(ends, 1) : ends;
}

// The copies by writes to the heads of Python objects of one type: to their reference counts,
// links of the collector and cached hashes.
struct TypeCopies {
  std::string name;  // "further types": there are too many
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const TypeCopies&) const = default;
};

inline constexpr std::string_view kArena = "arena ";  // before an arena's name

struct MappingCopies {
  // "[heap]", "[stack]", "thread stack", "anonymous", "arena NAME", "heap, settled", a path (its
  // .data), a path with " .bss", or "unknown" if the mappings were not read in time.
  std::string name;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const MappingCopies&) const = default;
};

// An address range of whole 2 MiB in one mapping, with about the same density of copies.
struct RangeCopies {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string mapping;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  bool operator==(const RangeCopies&) const = default;
};

// An access that the kernel answered with SIGSEGV or SIGBUS.
struct FailedAccess {
  std::uint64_t address = 0;
  std::string mapping;  // as MappingCopies::name; empty: nothing is mapped there
  AccessFailure reason = AccessFailure::other;
  bool handled = false;  // the program had a handler for the signal, so this did not end it
  Frames frames;         // as CodeSite::frames
  Frames stack;
  bool operator==(const FailedAccess&) const = default;
};

// A stack in the format of flamegraph.pl and speedscope: names from the outermost to the innermost,
// separated by ';'.  A list has a stack once for each of its causes and objects.
struct FoldedStack {
  std::string folded;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  // As CopyPattern::pattern, or as the name of a NewMemoryCause; empty: not known.
  std::string cause = {};
  std::string object = {};  // as TypeCopies::name; empty: none
  bool operator==(const FoldedStack&) const = default;
};

// The sampled copies of one process, or of all.  Each list has the most copies first.
struct SampledCopies {
  std::uint64_t samples = 0;
  std::vector<CodeSite> sites;
  std::vector<MappingCopies> mappings;
  std::vector<TypeCopies> types;
  // Samples of Python whose line is not known, because their Python frames could not be read.
  std::uint64_t python_unread = 0;
  std::vector<RangeCopies> ranges;  // by copies per byte; only for one process
  // All stacks: their copies add up to the process's exact number.  Only for one process.
  std::vector<FoldedStack> stacks;
  std::vector<FailedAccess> failures;  // the first few; only for one process
  bool operator==(const SampledCopies&) const = default;
};

struct NewCause {
  NewMemoryCause cause;
  std::uint64_t samples = 0;
  std::uint64_t estimated_copies = 0;
  std::uint64_t unforked_copies = 0;  // of processes that run a program that they executed
  std::uint64_t most_copies = 0;      // of one other process; 0: not known
  // Of own data, also if it was given back since: whose code touched most of it first, as
  // maker_of() returns it.  Empty: the program's own lines, or several libraries.
  std::string library = {};
  bool operator==(const NewCause&) const = default;
};

// The sampled pages of new anonymous memory of processes, since their fork or last exec.  Here an
// estimated copy is a page that the process holds or, if it has ended, that it held when it held
// most: they add up to ForkCopies::new_bytes.  Each list has the most pages first.
struct NewMemory {
  std::uint64_t samples = 0;
  std::vector<CodeSite> sites;
  std::vector<MappingCopies> mappings;
  std::vector<NewCause> causes;
  std::vector<FoldedStack> stacks;
  std::uint64_t python_unread = 0;
  bool operator==(const NewMemory&) const = default;
};

// The sampling of the whole measurement; emitted == received + lost.
struct SamplingSummary {
  std::uint32_t period = 0;  // at first
  std::uint64_t emitted = 0;
  std::uint64_t received = 0;
  // The kernel's buffer was full, or too many samples waited in cowtop.
  std::uint64_t lost = 0;
  // Files without names, a line each: the process that read the file crashed or hung.
  std::vector<std::string> unread = {};
  std::uint64_t longest_period = 0;
};

}  // namespace cowshed::cow
