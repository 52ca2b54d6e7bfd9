#pragma once

#include <array>
#include <compare>
#include <string>
#include <string_view>
#include <utility>

// The causes of copies and of new memory.  causes/copy_causes.h and causes/new_memory.h say when a
// page has which; the tool's text/causes.h says what to do against copies.
namespace cowshed::cow {

inline constexpr std::string_view kReferenceCount = "reference count";
inline constexpr std::string_view kGarbageCollector = "garbage collector";
inline constexpr std::string_view kFreeList = "allocator free list";
inline constexpr std::string_view kCachedHash = "cached hash";
inline constexpr std::string_view kAdaptiveInterpreter = "adaptive interpreter";
inline constexpr std::string_view kObjectFlags = "object flags";
inline constexpr std::string_view kOwnWrites = "own writes";
inline constexpr std::string_view kProgramExit = "program exit";
inline constexpr std::string_view kLockOrFlag = "lock or flag word";
inline constexpr std::string_view kBulkCopy = "bulk copy";
inline constexpr std::string_view kBulkFill = "bulk fill";
inline constexpr std::string_view kStack = "stack";
inline constexpr std::string_view kRelocation = "relocation";
inline constexpr std::string_view kSystemCall = "system call";
inline constexpr std::string_view kUnknown = "unknown";

// Of new memory.
inline constexpr std::string_view kImport = "import";
inline constexpr std::string_view kReceived = "received";
inline constexpr std::string_view kLoaded = "loaded";
inline constexpr std::string_view kCompiledCode = "compiled code";
inline constexpr std::string_view kThreadStack = "thread stack";
inline constexpr std::string_view kGivenBackSince = "given back since";
inline constexpr std::string_view kFreeInMalloc = "free in malloc";
inline constexpr std::string_view kFreeInPymalloc = "free in pymalloc";
inline constexpr std::string_view kOwnData = "own data";
inline constexpr std::array kNewMemoryCauses = {kImport,       kReceived,       kLoaded,
                                                kCompiledCode, kThreadStack,    kGivenBackSince,
                                                kFreeInMalloc, kFreeInPymalloc, kOwnData};

// Why memory is new.  An import has its module or, until the module's code runs, the line that
// imports it.
struct NewMemoryCause {
  std::string kind;         // one of the above; of a later version's recording, perhaps another
  std::string module = {};  // "shop"
  std::string line = {};    // "shop.py:7"
  auto operator<=>(const NewMemoryCause&) const = default;
};

// The names of imports: "import of shop", "import at shop.py:7".
inline constexpr std::array kImports = {std::pair("import of ", &NewMemoryCause::module),
                                        std::pair("import at ", &NewMemoryCause::line)};

inline std::string name_of(const NewMemoryCause& cause) {
  for (const auto& [words, subject] : kImports)
    if (!(cause.*subject).empty()) return words + cause.*subject;
  return cause.kind;
}

// Returns true: a name may also be another kind than those above.
inline bool from_name(const std::string& name, NewMemoryCause& cause) {
  cause = {name};
  for (const auto& [words, subject] : kImports) {
    if (!name.starts_with(words)) continue;
    cause.kind = kImport;
    cause.*subject = name.substr(std::string_view(words).size());
  }
  return true;
}

}  // namespace cowshed::cow
