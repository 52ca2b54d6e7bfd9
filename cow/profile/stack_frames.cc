#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <string_view>

#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/profile/stack_frames.h>
#include <cowshed/cow/symbolize/syscall_names.h>

namespace cowshed::cow {
namespace {

bool is_nameless(const Frame& frame) { return frame.function.empty(); }

// Elsewhere lies no site: the site is the line that called it.
bool is_of_program(const Frame& frame) {
  const bool is_kernel = frame.module.empty() && frame.function.starts_with('[');
  return !is_kernel && !is_runtime_library(frame.module);
}

// A header of the system or the standard library, whose templates are compiled into the program.
bool is_system_source(std::string_view file) {
  return file.starts_with("/usr/include/") || file.starts_with("/usr/lib/") ||
         file.find("/include/c++/") != file.npos || file.starts_with("/rustc/");
}

using Position = std::vector<Frame>::const_iterator;

Position native_site(const std::vector<Frame>& stack) {
  const auto is_own_line = [](const Frame& frame) {
    return is_of_program(frame) && !frame.file.empty() && !is_system_source(frame.file);
  };
  const auto is_own_function = [](const Frame& frame) {
    return is_of_program(frame) && !frame.inlined;
  };
  const auto is_named_function = [](const Frame& frame) {
    return is_of_program(frame) && !frame.inlined && !is_nameless(frame);
  };
  const auto function = std::ranges::find_if(stack, is_own_function);
  if (function == stack.end()) return function;
  // What a library without lines copies is not its caller's line, if the function has a name.
  if (function->file.empty() && !is_nameless(*function)) return function;
  const auto line = std::ranges::find_if(stack, is_own_line);
  if (line != stack.end()) return line;
  const auto named = std::ranges::find_if(stack, is_named_function);
  return named == stack.end() ? function : named;
}

// A file of packages that were installed: pip's, or Debian's.
bool is_of_package(std::string_view file) {
  return file.find("/site-packages/") != file.npos || file.find("/dist-packages/") != file.npos;
}

bool is_of_python_library(std::string_view file) {
  return file.starts_with("<frozen ") ||
         (!is_of_package(file) &&
          (file.find("/lib/python3.") != file.npos || file.find("/lib64/python3.") != file.npos));
}

// The script by which a package is started, as /usr/bin/gunicorn, or the command by which
// multiprocessing starts a process, which calls `inner`.
bool is_starter(const Frame& frame, const Frame& inner) {
  if (frame.function != "<module>") return false;
  if (frame.file == "<string>") {
    return inner.file.ends_with("/multiprocessing/forkserver.py") ||
           inner.file.ends_with("/multiprocessing/spawn.py");
  }
  const std::string_view file = frame.file;
  const std::string_view name = base_name(file);
  return name.find('.') == name.npos &&
         file.substr(0, file.size() - name.size()).ends_with("/bin/");
}

// The program's own line; else one of a package; else one of Python's library.  A text that is no
// file, as the "<string>" that makes a namedtuple, has the program's lines if it is the program:
// that of -c or of a prompt.
Position python_site(const std::vector<Frame>& stack, Position innermost) {
  Position own = stack.end();
  Position package = stack.end();
  Position outermost = stack.end();
  Position file = stack.end();
  auto inner = innermost;
  for (auto frame = innermost; frame != stack.end() && frame->is_python; inner = frame++) {
    const bool is_text = frame->file.starts_with('<');
    if (!is_text && file == stack.end()) file = frame;
    if (is_of_python_library(frame->file) || is_starter(*frame, *inner)) continue;
    outermost = frame;
    Position& found = is_of_package(frame->file) ? package : own;
    if (!is_text && found == stack.end()) found = frame;
  }
  if (own != stack.end()) return own;
  if (outermost != stack.end() && outermost->file.starts_with('<'))
    return std::ranges::find(innermost, stack.end(), outermost->file, &Frame::file);
  if (package != stack.end()) return package;
  return file == stack.end() ? innermost : file;
}

bool runs_python(const Frame& frame) {
  return frame.function.starts_with("_PyEval_EvalFrame") || frame.function == "PyEval_EvalCode" ||
         frame.function.starts_with("_TAIL_CALL_");  // CPython 3.14, compiled by clang
}

bool is_of_interpreter(const Frame& frame) { return is_python(language_of_file(frame.module)); }

// The innermost frame of an interpreter that runs Python, with the functions that are inlined into
// it.  In a file without symbols, that is any function without a name.
Position interpreter_in(const std::vector<Frame>& native) {
  auto found = std::ranges::find_if(native, [&](const Frame& frame) {
    return runs_python(frame) || (is_nameless(frame) && is_of_interpreter(frame));
  });
  // An interpreter that is linked into a program.
  if (found == native.end())
    found = std::ranges::find_if(native, [](const Frame& frame) {
      return is_nameless(frame) && !is_working_library(frame.module);
    });
  while (found != native.end() && found != native.begin() && std::prev(found)->inlined) --found;
  return found;
}

// Frame::function of the kernel.
std::string kernel_name(const std::optional<std::uint64_t>& system_call) {
  if (!system_call) return "[kernel]";
  const std::string name = system_call_name(*system_call);
  return name.empty() ? fmt::format("[system call {}]", *system_call)
                      : fmt::format("[{}(2)]", name);
}

}  // namespace

std::vector<Frame> with_python_frames(std::vector<Frame> native,
                                      const std::vector<const Frame*>& python) {
  const auto interpreter = interpreter_in(native);
  std::string module;
  for (auto frame = interpreter; frame != native.end() && module.empty(); ++frame)
    if (runs_python(*frame) || is_of_interpreter(*frame)) module = frame->module;
  std::vector<Frame> ending;
  std::copy_if(interpreter, Position(native.end()), std::back_inserter(ending),
               [](const Frame& frame) { return ends_program(frame.function); });
  // Of a file without symbols, the exported function that compiles tells what the others do.
  std::vector<Frame> compiler;
  for (auto frame = interpreter; frame != native.end() && !runs_python(*frame); ++frame)
    if (is_compiler(*frame)) compiler = {*frame};
  native.erase(interpreter, native.end());
  std::erase_if(native, [](const Frame& frame) { return frame.function == "unknown code"; });
  native.insert(native.end(), compiler.begin(), compiler.end());
  for (const Frame* each : python) native.emplace_back(*each).module = module;
  native.insert(native.end(), ending.begin(), ending.end());
  return native;
}

std::vector<Frame> frames_of(const Tally::Stack& stack, Symbolizer& symbols) {
  std::vector<Frame> frames;
  if (stack.kernel) frames.emplace_back().function = kernel_name(*stack.kernel);
  for (const CodeAddress& address : stack.code.addresses) {
    const std::vector<Frame>& here = symbols.frames(address);
    frames.insert(frames.end(), here.begin(), here.end());
  }
  return stack.python.empty() ? frames : with_python_frames(std::move(frames), stack.python);
}

std::vector<Frame> site_frames(const std::vector<Frame>& stack) {
  const auto python = std::ranges::find_if(stack, &Frame::is_python);
  const auto line = python == stack.end() ? native_site(stack) : python_site(stack, python);
  std::vector<Frame> site;
  for (auto frame = stack.begin(); frame != stack.end(); ++frame) {
    site.push_back(*frame);
    // All instructions of one place are equal, and of what it called.
    if (!is_nameless(*frame) || (frame != line && line != stack.end())) site.back().address = 0;
    if (frame == line) break;
  }
  return site;
}

std::string fold(const std::vector<Frame>& stack, bool truncated) {
  std::string text = truncated ? "[callers not seen]" : "";
  for (auto frame = stack.rbegin(); frame != stack.rend(); ++frame)
    text += (text.empty() ? "" : ";") + folded_text(*frame);
  return text;
}

}  // namespace cowshed::cow
