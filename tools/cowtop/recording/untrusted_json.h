#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <cowshed/tools/cowtop/recording/measurement_json.h>

// JSON that somebody else may have written.
namespace cowshed::cowtop {

// The values of a file may take so much memory, whatever its size.
inline constexpr std::size_t kMostWeight = 2UL << 30U;
// Copying a deeper value could overflow the stack.
inline constexpr std::size_t kMostDepth = 32;

// Returns about how much memory the values of a JSON text will take.  Errors: throws JsonFieldError
// if an object is deeper, or has more fields, than any that cowtop writes.
std::size_t weight_of(std::string_view json);

[[noreturn]] void throw_too_large();

// Throws Json::exception, and JsonFieldError for what weight_of() refuses or is above kMostWeight.
Json parse_untrusted(const std::string& json);

// Applies an operation of a JSON Patch: add, replace or remove.  Moves its value.  Throws the same.
void apply(Json& document, Json& operation);

}  // namespace cowshed::cowtop
