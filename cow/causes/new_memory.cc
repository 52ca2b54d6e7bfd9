#include <algorithm>
#include <fmt/format.h>
#include <initializer_list>
#include <string_view>

#include <cowshed/cow/causes/new_memory.h>

namespace cowshed::cow {
namespace {

bool is_import(const Frame& frame) {
  return frame.is_python && frame.function == "_find_and_load" &&
         frame.file == "<frozen importlib._bootstrap>";
}

bool is_of_importlib(const Frame& frame) { return frame.file.starts_with("<frozen importlib"); }

// "pkg.mod" is not known, because only its file is: "mod", or "pkg" of pkg/__init__.py.
std::string module_of(const Frame& frame) {
  std::string_view file = base_name(frame.file);
  if (file == "__init__.py") {
    const std::string_view folder =
        std::string_view(frame.file).substr(0, frame.file.size() - file.size() - 1);
    return std::string(base_name(folder));
  }
  return std::string(file.substr(0, file.rfind('.')));
}

std::string import_of(const std::vector<Frame>& stack, std::size_t import) {
  for (std::size_t i = import; i-- > 0;) {
    if (!stack[i].is_python || is_of_importlib(stack[i])) continue;
    if (stack[i].function == "<module>") return "import of " + module_of(stack[i]);
    break;
  }
  for (std::size_t i = import; i < stack.size(); ++i)
    if (stack[i].is_python && !is_of_importlib(stack[i]))
      return fmt::format("import at {}:{}", base_name(stack[i].file), stack[i].line);
  return "import";
}

using Names = std::initializer_list<std::string_view>;

bool is_any_of(std::string_view text, Names names) {
  return std::ranges::find(names, text) != names.end();
}

bool starts_with_any(std::string_view text, Names prefixes) {
  return std::ranges::any_of(prefixes, [&](auto prefix) { return text.starts_with(prefix); });
}

bool receives(const Frame& frame) {
  if (frame.is_python) {
    const std::string_view file = base_name(frame.file);
    const std::string_view all = frame.function;
    const std::string_view name = all.substr(all.rfind('.') + 1);
    // Of multiprocessing, billiard, loky and kombu.  What unpickles is a function of C.
    if (file == "connection.py") return starts_with_any(name, {"recv", "_recv"});
    if (file == "queues.py") return is_any_of(name, {"get", "get_payload"});
    return name == "pickle_loads" ||
           (is_any_of(file, {"reduction.py", "pickle.py", "serialization.py"}) &&
            name.find("load") != name.npos);
  }
  return starts_with_any(frame.function,
                         {"[recv", "_pickle_", "_Unpickler_", "R_Unserialize", "do_unserialize",
                          "rb_marshal_load", "php_var_unserialize", "v8::ValueDeserializer",
                          "v8::internal::ValueDeserializer"}) ||
         is_any_of(frame.function,
                   {"Unpickler_load", "R_unserialize", "ReadItem", "UnserializeItem"});
}

bool compiles(const Frame& frame) {
  return !frame.is_python &&
         (is_any_of(frame.function, {"builtin_compile", "zend_compile", "compile_file",
                                     "_PyAST_Compile", "Py_CompileStringObject"}) ||
          starts_with_any(frame.function, {"_PyPegen_", "llvm::", "v8::internal::Compiler",
                                           "v8::internal::compiler"}));
}

bool is_read(const Frame& frame) {
  return is_any_of(frame.function,
                   {"[read(2)]", "[pread64(2)]", "[readv(2)]", "[preadv(2)]", "[preadv2(2)]"});
}

// fread() copies from its buffer.
bool copies_from_buffer(const std::vector<Frame>& stack) {
  constexpr std::size_t kFrames = 4;  // fread() and what it calls
  return std::ranges::any_of(
      stack.begin(), stack.begin() + static_cast<std::ptrdiff_t>(std::min(stack.size(), kFrames)),
      [](const Frame& frame) {
        return is_any_of(frame.function, {"fread", "_IO_fread", "_IO_file_xsgetn"});
      });
}

}  // namespace

std::size_t imports_in(const std::vector<Frame>& stack) {
  return static_cast<std::size_t>(std::ranges::count_if(stack, is_import));
}

std::string cause_of_new_memory(const std::vector<Frame>& stack, std::size_t imports, NewPage page,
                                Descriptor descriptor) {
  if (page == NewPage::of_stack) return "thread stack";
  // The stack begins with the innermost frame: the imports of the fork come last.
  for (std::size_t i = stack.size(); i-- > 0;) {
    if (!is_import(stack[i])) continue;
    if (imports == 0) return import_of(stack, i);
    --imports;
  }
  if (std::ranges::any_of(stack, receives)) return "received";
  if (std::ranges::any_of(stack, compiles)) return "compiled code";
  const bool is_by_kernel = !stack.empty() && is_read(stack.front());
  if (is_by_kernel && descriptor == Descriptor::stream) return "received";
  if (is_by_kernel ? descriptor != Descriptor::other : copies_from_buffer(stack)) return "loaded";
  return page == NewPage::again ? "given back before" : "own data";
}

}  // namespace cowshed::cow
