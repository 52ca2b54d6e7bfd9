#include <algorithm>
#include <cctype>
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

bool is_of_importlib(const Frame& frame) {
  return frame.file.starts_with("<frozen importlib") ||
         frame.file.ends_with("/importlib/__init__.py");  // import_module()
}

using Names = std::initializer_list<std::string_view>;

bool is_any_of(std::string_view text, Names names) {
  return std::ranges::find(names, text) != names.end();
}

// Whether Python finds modules by their path below a folder, as far as its path shows.
bool has_modules(std::string_view path) {
  const std::string_view folder = base_name(path);
  if (is_any_of(folder, {"site-packages", "dist-packages", "lib-dynload"})) return true;
  if (folder.ends_with(".egg")) return true;
  constexpr std::string_view kPython = "python";  // lib/python3.11
  return folder.starts_with(kPython) && folder.size() > kPython.size() &&
         std::isdigit(static_cast<unsigned char>(folder[kPython.size()])) != 0 &&
         base_name(path.substr(0, path.size() - folder.size() - 1)).starts_with("lib");
}

// "pkg.mod" of site-packages/pkg/mod.py.  Elsewhere the folder that imports begin at is not known:
// "mod", or "pkg" of pkg/__init__.py.
std::string module_of(std::string_view file) {
  std::string_view module = file.substr(0, file.size() - base_name(file).size());
  if (base_name(file).starts_with("__init__.") && module.size() > 1) module.remove_suffix(1);
  else module = file.substr(0, file.find('.', module.size()));
  for (std::size_t end = module.rfind('/'); end != module.npos && end > 0;
       end = module.rfind('/', end - 1)) {
    if (!has_modules(module.substr(0, end))) continue;
    std::string name(module.substr(end + 1));
    std::ranges::replace(name, '/', '.');
    return name;
  }
  return std::string(base_name(module));
}

NewMemoryCause import_of(const std::vector<Frame>& stack, std::size_t import) {
  for (std::size_t i = import; i-- > 0;)
    if (stack[i].is_python && stack[i].function == "<module>" && !stack[i].file.starts_with('<'))
      return {std::string(kImport), module_of(stack[i].file)};
  for (std::size_t i = import; i < stack.size(); ++i)
    if (stack[i].is_python && !is_of_importlib(stack[i]))
      return {std::string(kImport), "",
              fmt::format("{}:{}", base_name(stack[i].file), stack[i].line)};
  return {std::string(kImport)};
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

NewMemoryCause cause_of_new_memory(const std::vector<Frame>& stack, std::size_t imports,
                                   NewPage page, Descriptor descriptor) {
  if (page == NewPage::of_stack) return {std::string(kThreadStack)};
  // The stack begins with the innermost frame: the imports of the fork come last.
  for (std::size_t i = stack.size(); i-- > 0;) {
    if (!is_import(stack[i])) continue;
    if (imports == 0) return import_of(stack, i);
    --imports;
  }
  if (std::ranges::any_of(stack, receives)) return {std::string(kReceived)};
  if (std::ranges::any_of(stack, compiles)) return {std::string(kCompiledCode)};
  const bool is_by_kernel = !stack.empty() && is_read(stack.front());
  if (is_by_kernel && descriptor == Descriptor::stream) return {std::string(kReceived)};
  if (is_by_kernel ? descriptor != Descriptor::other : copies_from_buffer(stack))
    return {std::string(kLoaded)};
  return {std::string(page == NewPage::given_back ? kGivenBackSince : kOwnData)};
}

}  // namespace cowshed::cow
