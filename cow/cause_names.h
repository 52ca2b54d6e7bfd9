#pragma once

#include <array>
#include <string_view>

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
inline constexpr std::string_view kImport = "import";  // or "import of NAME", "import at FILE:LINE"
inline constexpr std::string_view kReceived = "received";
inline constexpr std::string_view kLoaded = "loaded";
inline constexpr std::string_view kCompiledCode = "compiled code";
inline constexpr std::string_view kThreadStack = "thread stack";
inline constexpr std::string_view kGivenBackBefore = "given back before";
inline constexpr std::string_view kOwnData = "own data";
inline constexpr std::array kNewMemoryCauses = {
    kImport, kReceived, kLoaded, kCompiledCode, kThreadStack, kGivenBackBefore, kOwnData};

}  // namespace cowshed::cow
