#pragma once

#include <string_view>

// Names of causes that more than one rule gives; copy_causes.h explains them.
namespace cowshed::cow {

inline constexpr std::string_view kReferenceCount = "reference count";
inline constexpr std::string_view kGarbageCollector = "garbage collector";
inline constexpr std::string_view kFreeList = "allocator free list";
inline constexpr std::string_view kCachedHash = "cached hash";
inline constexpr std::string_view kAdaptiveInterpreter = "adaptive interpreter";
inline constexpr std::string_view kObjectFlags = "object flags";
inline constexpr std::string_view kOwnWrites = "own writes";
inline constexpr std::string_view kProgramExit = "program exit";
inline constexpr std::string_view kUnknown = "unknown";

}  // namespace cowshed::cow
