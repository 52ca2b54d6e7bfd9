#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace cowshed::arch {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20U;
inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kApart = 2 * kCacheLine;  // the CPU fetches cache lines in pairs
// Of a process, with page tables of four levels.
inline constexpr std::uint64_t kEndOfAddresses = (std::uint64_t{1} << 47U) - kPage;

// Call it in a loop that waits for another CPU.
inline void pause() { __builtin_ia32_pause(); }

// Stores `mark` to *ready, then sleeps while *gate is `closed`, a private futex.  In between it
// stores to no memory, so that others may replace even the thread's stack.
void mark_and_sleep(std::uint32_t* ready, std::uint32_t mark, const std::uint32_t* gate,
                    std::uint32_t closed);

// Returns the address of the thread's control block, which lies behind its thread-local variables.
std::uintptr_t thread_pointer();

// Where a signal handler returns to, for rt_sigaction(2).
extern "C" void cowshed_return_from_signal();

// `context` is the third argument of a handler of SIGSEGV.
std::uintptr_t interrupted_instruction(const void* context);
bool is_interrupted_store(const void* context);

// A system call, as /proc/PID/syscall has it.
struct SystemCall {
  std::uint64_t number = 0;
  std::array<std::uint64_t, 6> arguments = {};
  std::uint64_t stack_pointer = 0;
  std::uint64_t next = 0;  // the instruction behind it
};
// Whether the handler of a signal, whose third argument is `context`, makes this call fail with
// EINTR.
bool is_interrupted(const SystemCall& call, const void* context);
// Makes the thread call `call` in that place once the handler returns.
void call_again(const SystemCall& call, void* context);

// clang-format off
enum class Register : std::uint8_t {  // in the order of DWARF
  rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
  frame_pointer = rbp, stack_pointer = rsp, instruction_pointer = rip
};
// clang-format on
inline constexpr std::size_t kRegisters = 17;

// Where the words of the kernel's struct pt_regs have each Register, and more.
inline constexpr std::array<std::size_t, kRegisters> kKernelIndex = {
    10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16};
inline constexpr std::size_t kSystemCallIndex = 15;
inline constexpr std::size_t kCodeSegmentIndex = 17;
inline constexpr std::size_t kKernelRegisters = 21;
inline constexpr std::uint16_t kCodeSegmentOf32Bits = 0x23;  // FRED has more bits above

}  // namespace cowshed::arch
