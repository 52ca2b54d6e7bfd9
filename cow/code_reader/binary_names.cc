#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <sys/time.h>
#include <utility>

#include <cowshed/cow/code_reader/binary_names.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kLongestName = 4096;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// A name in a hostile file may have megabytes.
std::string shortened(const char* name) {
  return name == nullptr ? std::string() : std::string(name, ::strnlen(name, kLongestName));
}

// While it lives, so much CPU time ends the process: a few hundred bytes can demangle to gigabytes.
class DemanglingTime {
 public:
  DemanglingTime() {
    constexpr itimerval kHalfASecond{{0, 0}, {0, 500'000}};
    ::setitimer(ITIMER_PROF, &kHalfASecond, &before_);
  }
  DemanglingTime(const DemanglingTime&) = delete;
  DemanglingTime& operator=(const DemanglingTime&) = delete;
  ~DemanglingTime() { ::setitimer(ITIMER_PROF, &before_, nullptr); }

 private:
  itimerval before_{};
};

std::string demangled(const char* any_name) {
  std::string name = shortened(any_name);
  if (!name.starts_with("_Z") || name.size() == kLongestName) return name;
  const DemanglingTime limit;
  int status = 0;
  const std::unique_ptr<char, Free> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status));
  return text ? shortened(text.get()) : name;
}

std::string function_name(Dwarf_Die& function) {
  Dwarf_Attribute attribute;
  for (const unsigned which : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name})
    if (const char* name = ::dwarf_formstring(::dwarf_attr_integrate(&function, which, &attribute)))
      return demangled(name);
  return shortened(::dwarf_diename(&function));
}

int call_line(Dwarf_Die& inlined) {
  Dwarf_Attribute attribute;
  Dwarf_Word line = 0;
  if (::dwarf_formudata(::dwarf_attr(&inlined, DW_AT_call_line, &attribute), &line) != 0) return 0;
  return static_cast<int>(line);
}

// Removes "/../", which the paths of clang's own headers have.
std::string file_name(const char* name) {
  return std::filesystem::path(shortened(name)).lexically_normal().string();
}

std::string call_file(Dwarf_Die& unit, Dwarf_Die& inlined) {
  Dwarf_Attribute attribute;
  Dwarf_Word index = 0;
  Dwarf_Files* files = nullptr;
  if (::dwarf_formudata(::dwarf_attr(&inlined, DW_AT_call_file, &attribute), &index) != 0 ||
      ::dwarf_getsrcfiles(&unit, &files, nullptr) != 0) {
    return {};
  }
  return file_name(::dwarf_filesrc(files, index, nullptr, nullptr));
}

// Finds the first child of `parent` that has one of these kinds and contains `address`.  Looks into
// namespaces, too.
bool find_child(Dwarf_Die parent, std::uint64_t address, std::initializer_list<int> kinds,
                Dwarf_Die& found) {
  Dwarf_Die child;
  if (::dwarf_child(&parent, &child) != 0) return false;
  do {
    const int kind = ::dwarf_tag(&child);
    if (kind == DW_TAG_namespace) {
      if (find_child(child, address, kinds, found)) return true;
    } else if (std::ranges::find(kinds, kind) != kinds.end() &&
               ::dwarf_haspc(&child, address) == 1) {
      found = child;
      return true;
    }
  } while (::dwarf_siblingof(&child, &child) == 0);
  return false;
}

// Returns the function at `address` and the functions that are inlined there, outermost first.
// dwarf_getscopes() does not look into namespaces (libdw/dwarf_getscopes.c), where clang puts
// functions.
std::vector<Dwarf_Die> scopes_at(Dwarf_Die unit, std::uint64_t address) {
  std::vector<Dwarf_Die> functions;
  Dwarf_Die scope;
  if (!find_child(unit, address, {DW_TAG_subprogram}, scope)) return functions;
  functions.push_back(scope);
  while (find_child(
      scope, address,
      {DW_TAG_inlined_subroutine, DW_TAG_lexical_block, DW_TAG_try_block, DW_TAG_catch_block},
      scope)) {
    if (::dwarf_tag(&scope) == DW_TAG_inlined_subroutine) functions.push_back(scope);
  }
  return functions;
}

}  // namespace

BinaryNames::BinaryNames(const DwflBinary& binary) : dwfl_(::dwfl_begin(dwfl_callbacks())) {
  if (!dwfl_ || binary.elf == nullptr) return;
  const CodeReader::Extent extent = binary.elf->extent();
  ::dwfl_report_begin(dwfl_.get());
  // At its link-time addresses, so that addresses need no correction.
  module_ = report_binary(*dwfl_, binary, extent.begin, extent.end);
  ::dwfl_report_end(dwfl_.get(), nullptr, nullptr);
  // No line of theirs is ever the program's.  To read their debug information takes 50 ms.
  const std::string_view name = base_name(binary.elf->path());
  has_lines_ = !name.starts_with("libc.so") && !name.starts_with("ld-linux");
  if (module_ != nullptr && has_lines_) shared_.emplace(module_);
}

BinaryNames::~BinaryNames() = default;

std::vector<Frame> BinaryNames::frames(std::uint64_t address) {
  if (module_ == nullptr) return {Frame{}};
  std::vector<Frame> frames;
  if (has_lines_) frames = from_dwarf(address);
  if (frames.empty()) frames.emplace_back();
  if (Frame& outermost = frames.back(); outermost.function.empty())
    outermost.function = from_symbol_table(address);
  return frames;
}

// Not all compilers write .debug_aranges.
Dwarf_Die* BinaryNames::unit_of(std::uint64_t address, Dwarf_Addr& bias) {
  if (Dwarf_Die* unit = ::dwfl_module_addrdie(module_, address, &bias)) return unit;
  for (Dwarf_Die* unit = nullptr; (unit = ::dwfl_module_nextcu(module_, unit, &bias)) != nullptr;)
    if (::dwarf_haspc(unit, address - bias) == 1) return unit;
  return nullptr;
}

std::vector<Frame> BinaryNames::from_dwarf(std::uint64_t address) {
  Dwarf_Addr bias = 0;
  Dwarf_Die* unit = unit_of(address, bias);
  if (unit == nullptr) return {};
  Frame next;  // its line is known before its function
  if (Dwarf_Line* line = ::dwarf_getsrc_die(unit, address - bias)) {
    next.file = file_name(::dwarf_linesrc(line, nullptr, nullptr));
    ::dwarf_lineno(line, &next.line);
  }
  std::vector<Frame> frames;
  const std::vector<Dwarf_Die> scopes = scopes_at(*unit, address - bias);
  for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
    Dwarf_Die function = *scope;
    const bool inlined = ::dwarf_tag(&function) == DW_TAG_inlined_subroutine;
    next.function = function_name(function);
    next.inlined = inlined;
    frames.push_back(std::exchange(next, {}));
    if (!inlined || frames.size() == CodeReader::kMostFrames) return frames;
    next.file = call_file(*unit, function);
    next.line = call_line(function);
  }
  // There is no function, as in hand-written assembly, but perhaps a line.
  frames.push_back(std::move(next));
  return frames;
}

std::string BinaryNames::from_symbol_table(std::uint64_t address) {
  GElf_Off offset = 0;
  GElf_Sym symbol;
  const char* name =
      ::dwfl_module_addrinfo(module_, address, &offset, &symbol, nullptr, nullptr, nullptr);
  // In a stripped binary, the nearest symbol below the address may be unrelated.
  if (name == nullptr || (symbol.st_size != 0 && offset >= symbol.st_size)) return {};
  return demangled(name);
}

}  // namespace cowshed::cow
