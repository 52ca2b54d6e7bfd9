#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <cowshed/base/error.h>
#include <cowshed/probes/samples.h>

// How an instruction of x86-64, or of a 32-bit program, writes to memory: the faulting instruction
// of a copy says how the page was first written.
namespace cowshed::cow {

enum class StoreKind : std::uint8_t {
  unknown,   // not decoded, or it does not write where the fault was
  store,     // writes less than 16 bytes, whatever was there: mov, setcc, stos without rep, fstp
  add,       // add, sub, inc, dec, xadd: `amount` says by how much
  modify,    // reads and writes otherwise: or, and, xor, shifts, bts, adc
  exchange,  // xchg, cmpxchg, cmpxchg8b, cmpxchg16b
  vector,    // one store of 16 bytes or more
  fill,      // rep stos, or two vector stores of one register to adjacent memory
  copy,      // rep movs, or two vector stores of two registers to adjacent memory
  push,      // onto the stack
  call,      // the return address
};

using StoreRegisters = std::array<std::uint64_t, arch::kRegisters>;  // by Register

struct StoreInstruction {
  StoreKind kind = StoreKind::unknown;
  unsigned width = 0;  // bytes that one store writes; 0: unknown
  // For `add`: the added number, negative if it is subtracted.
  std::optional<std::int64_t> amount;
  // For `store`: the register or the constant that is stored, where it is one.
  std::optional<Register> source;
  std::optional<std::uint64_t> constant;
  // For a repeated `fill` or `copy`: the bytes that it has not written yet.
  std::optional<std::uint64_t> remaining;
  // If the operand is a field at a constant distance from one register: that distance.
  std::optional<std::int64_t> displacement;
  // Sets, clears or flips one bit, always the same: bts, or 8, and ~8.  Masks such as and ~7, which
  // round down to a multiple, do not count, and neither does and ~1.
  bool changes_bit = false;
  bool streams = false;  // bypasses the caches: movntdq, movntps, movntpd
  // What the next few instructions do, as far as they are given:
  bool releases = false;    // after an atomic -1: check whether zero is left
  bool walks_list = false;  // load that register from the memory that it points to: the next node
  bool advances = false;    // add a constant to that register: the next element
  bool locked = false;      // an atomic read-modify-write; xchg with memory always is
  std::string text;         // disassembled, in Intel's syntax; empty: cannot be decoded
};

// Copies share a capstone handle; not thread-safe.
class StoreDecoder {
 public:
  // Errors: unsupported, when capstone cannot disassemble x86.
  static Expected<StoreDecoder> open();

  // Decodes the faulting instruction, with which `code` begins.  Give some 16 bytes if you can: the
  // next few instructions tell a vector store from the beginning of a fill or copy, and a reference
  // count from other counters.  `address` is the address of the fault: the first byte that could
  // not be written.  (It is not the store's first byte if the store crosses a page.)  The kind is
  // unknown if the operands give another address.  Operands relative to fs or gs give none, and are
  // believed.
  //
  // It does not use capstone's access flags: capstone 4 calls movups, movntdq, cmpxchg16b, fstp and
  // other stores reads.
  StoreInstruction decode(std::span<const std::uint8_t> code, const StoreRegisters& registers,
                          std::uint64_t address, bool is_32_bit = false) const;

 private:
  explicit StoreDecoder(std::shared_ptr<std::size_t> capstone) : capstone_(std::move(capstone)) {}
  std::shared_ptr<std::size_t> capstone_;  // csh
};

}  // namespace cowshed::cow
