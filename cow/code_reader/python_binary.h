#pragma once

#include <optional>

#include <cowshed/probes/python_layout.h>

struct Elf;

namespace cowshed::cow {

// Returns the layout of the CPython interpreter in an ELF file, with `runtime` as linked; nullopt:
// there is none, or none that the probes can read (3.11 to 3.15 with a lock).
std::optional<PythonLayout> python_layout(Elf* elf);

}  // namespace cowshed::cow
