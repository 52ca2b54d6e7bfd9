#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <initializer_list>
#include <string_view>

#include <cowshed/cow/causes/new_memory.h>
#include <cowshed/cow/language.h>

namespace cowshed::cow {
namespace {

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

// The file without its ending, or the folder of __init__.py.
std::string_view module_path(std::string_view file) {
  const std::string_view folder = file.substr(0, file.size() - base_name(file).size());
  if (base_name(file).starts_with("__init__.") && folder.size() > 1)
    return folder.substr(0, folder.size() - 1);
  return file.substr(0, file.find('.', folder.size()));
}

// "pkg.mod" of site-packages/pkg/mod.py; "" elsewhere.
std::string installed_module(std::string_view file) {
  const std::string_view module = module_path(file);
  for (std::size_t end = module.rfind('/'); end != module.npos && end > 0;
       end = module.rfind('/', end - 1)) {
    if (!has_modules(module.substr(0, end))) continue;
    std::string name(module.substr(end + 1));
    std::ranges::replace(name, '/', '.');
    return name;
  }
  return {};
}

// Elsewhere the folder that imports begin at is not known: "mod".
std::string module_of(std::string_view file) {
  std::string name = installed_module(file);
  return name.empty() ? std::string(base_name(module_path(file))) : name;
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

bool contains_any(std::string_view text, Names parts) {
  return std::ranges::any_of(parts, [&](auto part) { return text.find(part) != text.npos; });
}

// What unpickles is mostly a function of C.
bool receives_in_python(const Frame& frame) {
  const std::string module = installed_module(frame.file);
  const std::string_view package = std::string_view(module).substr(0, module.find('.'));
  // Of packages, some names are nobody else's.
  const bool is_of_library =
      is_any_of(package, {"multiprocessing", "pickle", "multiprocess", "distributed"}) ||
      contains_any(frame.file, {"/billiard/", "/loky/", "/kombu/"});
  if (!is_of_library) return false;
  const std::string_view file = base_name(frame.file);
  const std::string_view all = frame.function;
  const std::string_view name = all.substr(all.rfind('.') + 1);
  if (file == "connection.py") return starts_with_any(name, {"recv", "_recv"});
  if (file == "queues.py") return is_any_of(name, {"get", "get_payload"});
  return name == "pickle_loads" ||
         (is_any_of(file, {"reduction.py", "pickle.py", "serialization.py"}) &&
          name.find("load") != name.npos);
}

bool receives(const Frame& frame) {
  if (frame.is_python) return receives_in_python(frame);
  const std::string_view name = frame.function;
  // Other programs may have functions of these names.
  if (is_any_of(name, {"R_unserialize", "ReadItem", "UnserializeItem"}))
    return language_of_file(frame.module) == Language::r;
  if (name == "do_unserialize") return language_of_file(frame.module) == Language::php;
  return name == "Unpickler_load" ||
         starts_with_any(name, {"[recv", "_pickle_load", "_pickle_Unpickler_", "_Unpickler_",
                                "R_Unserialize", "rb_marshal_load", "php_var_unserialize",
                                "v8::ValueDeserializer", "v8::internal::ValueDeserializer"});
}

// What an interpreter runs, as in a BEGIN block of Perl, is not the compiler's.
bool runs_code(const Frame& frame) {
  return is_any_of(frame.function, {"PyEval_EvalCode", "Perl_runops_standard", "Perl_runops_debug",
                                    "rb_vm_exec", "vm_exec", "execute_ex"}) ||
         starts_with_any(frame.function, {"_PyEval_EvalFrame", "_TAIL_CALL_"});
}

bool is_compiled(const std::vector<Frame>& stack) {
  const auto found = std::ranges::find_if(stack, [](const Frame& frame) {
    return frame.is_python || is_compiler(frame) || runs_code(frame);
  });
  if (found == stack.end()) return false;
  if (found->is_python) return found->function == "parse" && installed_module(found->file) == "ast";
  return is_compiler(*found);
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

bool is_compiler(const Frame& frame) {
  const std::string_view name = frame.function;
  if (frame.is_python) return false;
  // Other programs may have such names: these are of Ruby's parser prism and of PHP.
  if (name.starts_with("pm_")) return language_of_file(frame.module) == Language::ruby;
  if (is_any_of(name, {"zend_compile", "compile_file", "compile_string"}))
    return language_of_file(frame.module) == Language::php;
  return is_any_of(name, {"builtin_compile", "_PyAST_Compile", "_PyArena_Malloc", "PyAST_mod2obj",
                          "PyRun_StringFlags", "Perl_yyparse", "perl_parse", "ruby_yyparse",
                          "rb_node_init"}) ||
         starts_with_any(name, {"Py_CompileString", "_PyPegen_", "_PyParser_", "llvm::",
                                "v8::internal::Compiler", "v8::internal::compiler", "rb_ast_new",
                                "rb_iseq_new", "rb_iseq_compile_", "rb_iseq_build_", "rb_iseq_load",
                                "rb_parser_", "rb_ruby_parser_", "iseq_compile", "ibf_load_"});
}

std::string maker_of(const std::vector<Frame>& site) {
  const bool has_line = site.empty() || site.back().is_python || !site.back().file.empty();
  const auto works = [&](const Frame& frame) {
    return is_working_library(frame.module) && !(has_line && &frame == &site.back());
  };
  if (const auto found = std::ranges::find_if(site, works); found != site.end()) {
    const std::string module = installed_module(found->module);
    return module.empty() || base_name(found->module).starts_with("lib")
               ? std::string(base_name(found->module))
               : module;
  }
  return has_line ? "" : std::string(base_name(site.back().module));
}

std::size_t imports_in(const std::vector<Frame>& stack) {
  return static_cast<std::size_t>(std::ranges::count_if(stack, is_import));
}

NewMemoryCause cause_of_new_memory(const std::vector<Frame>& stack, std::size_t imports,
                                   NewPage page, Descriptor descriptor) {
  if (page == NewPage::missed) return {std::string(kUnknown)};
  if (page == NewPage::of_stack) return {std::string(kThreadStack)};
  if (page == NewPage::free) return {std::string(kFreeInMalloc)};
  if (page == NewPage::free_in_pymalloc) return {std::string(kFreeInPymalloc)};
  // The stack begins with the innermost frame: the imports of the fork come last.
  for (std::size_t i = stack.size(); i-- > 0;) {
    if (!is_import(stack[i])) continue;
    if (imports == 0) return import_of(stack, i);
    --imports;
  }
  if (std::ranges::any_of(stack, receives)) return {std::string(kReceived)};
  if (is_compiled(stack)) return {std::string(kCompiledCode)};
  const bool is_by_kernel = !stack.empty() && is_read(stack.front());
  if (is_by_kernel && descriptor == Descriptor::stream) return {std::string(kReceived)};
  if (is_by_kernel ? descriptor != Descriptor::other : copies_from_buffer(stack))
    return {std::string(kLoaded)};
  return {std::string(page == NewPage::given_back ? kGivenBackSince : kOwnData)};
}

}  // namespace cowshed::cow
