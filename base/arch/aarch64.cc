#include <algorithm>
#include <array>
#include <asm/sigcontext.h>
#include <cerrno>
#include <cstring>
#include <linux/futex.h>
#include <ucontext.h>

#include <cowshed/base/arch/contract.h>

// A handler returns to it by `ret`, which needs no landing pad (BTI) and no signature (PAC).
asm(R"(
.text
.globl cowshed_return_from_signal
.hidden cowshed_return_from_signal
.type cowshed_return_from_signal, @function
cowshed_return_from_signal:
  mov x8, #139
  svc #0
.size cowshed_return_from_signal, . - cowshed_return_from_signal
)");

namespace cowshed {

std::uintptr_t arch::interrupted_instruction(const void* context) {
  return static_cast<const ucontext_t*>(context)->uc_mcontext.pc;
}

// The record of the fault's syndrome, behind the registers, says so.
bool arch::is_interrupted_store(const void* context) {
  constexpr std::uint64_t kWrite = 1U << 6U;
  constexpr std::uint64_t kCacheMaintenance = 1U << 8U;  // counts as a write, and stores nothing
  const auto* at = static_cast<const ucontext_t*>(context)->uc_mcontext.__reserved;
  for (;;) {
    const auto* record = reinterpret_cast<const _aarch64_ctx*>(at);
    if (record->magic == ESR_MAGIC)
      return (reinterpret_cast<const esr_context*>(record)->esr & (kWrite | kCacheMaintenance)) ==
             kWrite;
    if (record->magic == 0 || record->size == 0) return false;
    at += record->size;
  }
}

bool arch::is_interrupted(const SystemCall& call, const void* context) {
  const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
  const auto& registers = machine.regs;
  // The first argument's register has the result.
  if (registers[0] != -std::uint64_t{EINTR} || registers[8] != call.number ||
      !std::equal(call.arguments.begin() + 1, call.arguments.end(), registers + 1) ||
      machine.sp != call.stack_pointer || machine.pc != call.next) {
    return false;
  }
  constexpr std::uint32_t kSystemCall = 0xd4000001;
  std::uint32_t instruction = 0;
  std::memcpy(&instruction, reinterpret_cast<const void*>(call.next - sizeof instruction),
              sizeof instruction);
  return instruction == kSystemCall;
}

void arch::call_again(const SystemCall& call, void* context) {
  auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  std::ranges::copy(call.arguments, machine.regs);
  machine.regs[8] = call.number;
  machine.pc = call.next - 4;
}

void arch::mark_and_sleep(std::uint32_t* ready, std::uint32_t mark, const std::uint32_t* gate,
                          std::uint32_t closed) {
  register const std::uint32_t* futex asm("x0") = gate;
  register std::uint64_t wait asm("x1") = FUTEX_WAIT_PRIVATE;
  register std::uint64_t value asm("x2") = closed;
  register std::uint64_t no_limit asm("x3") = 0;
  asm volatile(
      "stlr %w[mark], [%[ready]]\n"
      "mov x9, x0\n"
      "1: ldar w10, [x9]\n"
      "cmp w10, w2\n"
      "b.ne 2f\n"
      "mov x0, x9\n"
      "mov x8, #98\n"  // futex
      "svc #0\n"
      "b 1b\n"
      "2:"
      : "+r"(futex)
      : [ready] "r"(ready), [mark] "r"(mark), "r"(wait), "r"(value), "r"(no_limit)
      : "x8", "x9", "x10", "memory", "cc");
}

}  // namespace cowshed
