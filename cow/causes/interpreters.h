#pragma once

#include <cstdint>
#include <string_view>

namespace cowshed::cow {

// Whose objects a binary writes.
enum class Interpreter : std::uint8_t { none, python, ruby, php, perl, r, other };

// Returns the interpreter by the name of its executable or library; `none` for other binaries.
Interpreter interpreter_of(std::string_view path);

// Whether the binary is the C library or the dynamic linker.
bool is_c_library(std::string_view path);
bool is_dynamic_linker(std::string_view path);

}  // namespace cowshed::cow
