#pragma once

#include <utility>

#include <cowshed/base/error.h>

// Returns the error of an Expected from the calling function.  For source files; not installed.
//
//   TRY(auto mapping, map_new_arena(options));  // declares the value
//   TRY(core.mapping, map_new_arena(options));
//   TRY_VOID(register_membarrier(name));
//
// TRY is more than one statement, so put braces around it.
#define TRY(declaration, ...) TRY_AT(__LINE__, declaration, __VA_ARGS__)
#define TRY_AT(line, ...) TRY_IN(line, __VA_ARGS__)  // the line as a number
#define TRY_IN(line, ...) TRY_AS(try_result_##line, __VA_ARGS__)
#define TRY_AS(result, declaration, ...)                   \
  auto result = __VA_ARGS__;                               \
  if (!result) {                                           \
    return tl::make_unexpected(std::move(result).error()); \
  }                                                        \
  declaration = *std::move(result) /* NOLINT(bugprone-macro-parentheses): declares */

#define TRY_VOID(...)                                            \
  do {                                                           \
    if (auto try_result = __VA_ARGS__; !try_result) {            \
      return tl::make_unexpected(std::move(try_result).error()); \
    }                                                            \
  } while (false)
