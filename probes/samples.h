#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Single copies, picked at random, with all that says who made them.
namespace cowshed {

struct SamplingOptions {
  // One of so many copies of each thread is taken, at a random place among them.  1: all of them;
  // 0: none, and then sampling costs nothing.
  std::uint32_t period = 0;
  std::uint32_t stack_bytes = 8192;      // of each, at most; no more than 16384
  std::uint32_t buffer_bytes = 4 << 20;  // for what was not taken yet; a power of two of pages
};

// Registers in DWARF's order on x86-64.
enum class Register : std::uint8_t {
  rax,
  rdx,
  rcx,
  rbx,
  rsi,
  rdi,
  rbp,
  rsp,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  rip,  // NOLINT
};
inline constexpr std::size_t kRegisters = 17;

enum class CopyClass : std::uint8_t { anonymous, file };

// A copy as it was made.  A plain value.
struct CopySample {
  std::uint64_t process_id = 0;  // ProcessCounts::id
  int pid = 0;                   // as ProcessCounts::pid
  int tid = 0;                   // likewise
  std::uint64_t execs = 0;       // of the process until then: tells its images apart
  std::uint64_t time_ns = 0;     // CLOCK_MONOTONIC
  std::uint64_t address = 0;     // that was written to
  CopyClass copy_class = CopyClass::anonymous;
  // Of the mapping, as of the fault; 0 where it was not found out.
  std::uint64_t mapping_begin = 0;
  std::uint64_t mapping_end = 0;
  // Of a frozen arena, as in ArenaCount: the memfd's inode and name, or just that it may be one.
  std::uint64_t arena_inode = 0;
  std::string arena;
  bool user_mode = true;  // else the kernel wrote, on the program's behalf
  // The number, for a copy that the kernel made in a system call.  Nothing where it made it on
  // another occasion, such as when it delivers a signal.
  std::optional<std::uint64_t> system_call;
  // The user's: of the instruction that wrote, or where it entered the kernel (rip is then the
  // instruction after it, and rcx and r11 are lost).
  std::array<std::uint64_t, kRegisters> registers{};
  // At rip, of user-mode copies: what could be read of the instruction and those after it.
  std::array<std::uint8_t, 16> instruction{};
  std::size_t instruction_bytes = 0;
  std::vector<std::uint8_t> stack;  // from rsp upwards, as far as it could be read

  std::uint64_t operator[](Register name) const {
    return registers[static_cast<std::size_t>(name)];  // NOLINT(*-constant-array-index)
  }
};

// Of all samples since the probes were loaded.  emitted == received + lost once all were taken.
struct SampleCounts {
  std::uint64_t emitted = 0;
  std::uint64_t received = 0;
  std::uint64_t lost = 0;  // the buffer was full
};

}  // namespace cowshed
