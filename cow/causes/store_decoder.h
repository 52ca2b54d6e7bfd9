#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/probes/samples.h>

// How an x86-64 instruction writes to memory: the faulting instruction of a copy says how the page
// was first written.
namespace cowshed::cow {

enum class StoreKind : std::uint8_t {
  unknown,   // not an instruction of the table, or one that does not write where the fault was
  store,     // writes up to 8 bytes, whatever was there: mov, setcc, stos without rep, fstp
  add,       // add, sub, inc, dec, xadd: `amount` says by how much
  modify,    // reads and writes otherwise: or, and, xor, shifts, bts, adc
  exchange,  // xchg, cmpxchg, cmpxchg8b, cmpxchg16b
  vector,    // one store of 16 bytes or more
  fill,      // rep stos, or two vector stores of one register to adjacent memory
  copy,      // rep movs, or two vector stores of two registers to adjacent memory
  push,      // onto the stack
  call,      // the return address
  state,     // fxsave, xsave, fnsave, fnstenv
};

using StoreRegisters = std::array<std::uint64_t, kRegisters>;  // by Register

struct StoreInstruction {
  StoreKind kind = StoreKind::unknown;
  unsigned width = 0;  // bytes that one store writes; 0: not known
  // Of `add`: what is added, negative where it is subtracted.
  std::optional<std::int64_t> amount;
  // Of `fill` and `copy` by a repeated instruction: bytes that are still to be written.
  std::optional<std::uint64_t> remaining;
  // Where the operand is a field of what one general register points to: its distance from there.
  std::optional<std::int64_t> displacement;
  // Sets, clears or flips one bit, always the same: bts, or 8, and ~8.  Not and ~7 and the like,
  // which round down to a multiple, and ~1 among them.
  bool changes_bit = false;
  bool streams = false;  // past the caches: movntdq, movntps, movntpd
  // What the next few instructions do, as far as they were given:
  bool releases = false;    // of an atomic -1: ask whether that left zero
  bool walks_list = false;  // load that register from where it points to: the next node
  bool advances = false;    // add a constant to it: the next element
  bool locked = false;      // an atomic read-modify-write; xchg with memory always is
  std::string text;  // as a disassembler writes it, in Intel's syntax; empty: cannot be decoded
};

// Copies share a capstone handle; not thread-safe.
class StoreDecoder {
 public:
  // Errors: unsupported, when capstone cannot disassemble x86-64.
  static Expected<StoreDecoder> open();

  // `code` begins with the faulting instruction.  The next few tell a vector store from the
  // beginning of a fill or copy, and a count of references from any other, so give some 16 bytes
  // where there are.  `address` is
  // that of the fault: the first byte that could not be written, which is not the store's first
  // where the store crosses a page.  The address that the operands give has to agree with it, else
  // the kind is unknown; operands relative to fs or gs give none and are believed.
  //
  // What capstone 4 says of an operand's access is not used: it calls movups, movntdq, cmpxchg16b,
  // fstp and other stores reads, and push and call have no operand for what they write.
  StoreInstruction decode(std::span<const std::uint8_t> code, const StoreRegisters& registers,
                          std::uint64_t address) const;

 private:
  explicit StoreDecoder(std::shared_ptr<std::size_t> capstone) : capstone_(std::move(capstone)) {}
  std::shared_ptr<std::size_t> capstone_;  // csh
};

}  // namespace cowshed::cow
