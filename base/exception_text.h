#pragma once

#include <cxxabi.h>
#include <exception>
#include <string>
#include <string_view>

// Text as one line, and exceptions as such text.
namespace cowshed::internal {

// What pthread_exit() and the cancellation of a thread unwind with.  libc++ shows it to no handler.
#ifdef __GLIBCXX__
using ForcedUnwind = abi::__forced_unwind;
#else
struct ForcedUnwind {};
#endif

// Replaces control characters by spaces.
std::string without_controls(std::string text);
// Also cuts the text off at 2 KiB.
std::string one_line(std::string_view text);
// Returns a mangled name as in the source; any other text unchanged.
std::string demangled(const char* name);
// Returns what() in one line, or the exception's type if what() is null.
std::string text_of(const std::exception& exception);
// The same for the exception that is being handled.  Lets the cancellation of a thread go on.
std::string text_of_current_exception();

}  // namespace cowshed::internal
