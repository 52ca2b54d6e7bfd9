#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cowshed::cow {

// The line of all instructions of a Python function from one to the next PythonLine's.
struct PythonLine {
  std::uint32_t instruction = 0;  // in code units of 2 bytes
  std::int32_t line = 0;          // 0: unknown
};

// Parses the co_linetable of a code object of CPython 3.11 or newer whose first line is
// `first_line`.  The table may be cut off or forged: the first entry has instruction 0, the last
// one line 0, and there are at most kMostPythonLines of them.
std::vector<PythonLine> parse_python_lines(int first_line, std::span<const std::uint8_t> table);
inline constexpr std::size_t kMostPythonLines = 6000;

// Returns the index of the entry with an instruction; 0 if there is none.
std::size_t line_index(const std::vector<PythonLine>& lines, std::uint32_t instruction);

}  // namespace cowshed::cow
