#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

namespace cowshed::cow {

// A counter in an object: a word of `width` bytes at `displacement` from the pointer in a register.
struct CounterField {
  std::int64_t displacement = 0;
  unsigned width = 0;
  auto operator<=>(const CounterField&) const = default;
};

// Counts, by counter, the sites in x86-64 code that release a reference: they subtract 1 from a
// counter in memory and jump if the result is zero (`lock dec`, `sub 1`, `add -1`, with je or jne;
// `lock xadd`, or `lea -1` and a store, with a compare with 1).  Hardly any other code does that.
// Only displacements below 128 bytes count.  It finds byte patterns without disassembly, in a few
// ms for a large binary.
std::map<CounterField, std::size_t> release_sites(std::span<const std::uint8_t> code);

}  // namespace cowshed::cow
