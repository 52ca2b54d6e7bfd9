#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// What a port to another CPU owes: base/arch/NAME.cc has these functions, and base/arch/NAME.h
// the constants that arch.h checks.  docs/where-do-i-put.md says what else it needs.
namespace cowshed::arch {

// Addresses, in GiB.
struct GibRange {
  std::uint32_t first;
  std::uint32_t count;
};

// Stores `mark` to *ready, then sleeps while *gate is `closed`, a private futex.  In between it
// stores to no memory, so that others may replace even the thread's stack.  Another thread that
// sees the mark sees all that this thread stored before.  After the sleep this thread sees all that
// was stored before the gate was opened.
void mark_and_sleep(std::uint32_t* ready, std::uint32_t mark, const std::uint32_t* gate,
                    std::uint32_t closed);

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

}  // namespace cowshed::arch
