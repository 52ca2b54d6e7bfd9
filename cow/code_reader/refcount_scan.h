#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <tuple>

namespace cowshed::cow {

// A counter by where code finds it: in a word of `width` bytes, so many bytes behind what a
// register points to.
struct CounterField {
  std::int64_t displacement = 0;
  unsigned width = 0;
  bool operator==(const CounterField&) const = default;
  friend bool operator<(const CounterField& a, const CounterField& b) {
    return std::tie(a.displacement, a.width) < std::tie(b.displacement, b.width);
  }
};

// Counts the places in x86-64 machine code that take 1 off a counter in memory and jump on whether
// that left zero (`lock dec`, `sub 1`, `add -1`, with je or jne; `lock xadd` with a compare with
// 1): how a reference is released, and the code of hardly anything else.  Only fields nearer than
// 128 bytes are looked for.  Finds byte patterns, whatever else lies between: no disassembly, a few
// ms for a large binary.
std::map<CounterField, std::size_t> release_sites(std::span<const std::uint8_t> code);

}  // namespace cowshed::cow
