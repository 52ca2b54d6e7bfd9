#pragma once

#include <string_view>

// The causes of copies.  causes/copy_causes.h says when a copy has which; the tool's text/causes.h
// says what to do.
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

}  // namespace cowshed::cow
