#include <array>
#include <cerrno>
#include <cstring>
#include <linux/futex.h>
#include <ucontext.h>

#include <cowshed/base/arch/contract.h>

asm(R"(
.text
.globl cowshed_return_from_signal
.hidden cowshed_return_from_signal
.type cowshed_return_from_signal, @function
cowshed_return_from_signal:
  movl $15, %eax
  syscall
.size cowshed_return_from_signal, . - cowshed_return_from_signal
)");

std::uintptr_t cowshed::arch::interrupted_instruction(const void* context) {
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  return static_cast<std::uintptr_t>(registers[REG_RIP]);
}

bool cowshed::arch::is_interrupted_store(const void* context) {
  constexpr greg_t kWrite = 2;  // of the page fault's error code
  return (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWrite) != 0;
}

namespace {
constexpr std::array kArgumentRegisters = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
}

bool cowshed::arch::is_interrupted(const SystemCall& call, const void* context) {
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  const auto value = [&](int index) { return static_cast<std::uint64_t>(registers[index]); };
  bool is_same = registers[REG_RAX] == -EINTR && value(REG_RIP) == call.next &&
                 value(REG_RSP) == call.stack_pointer;
  for (std::size_t i = 0; i < kArgumentRegisters.size(); ++i)
    is_same = is_same && value(kArgumentRegisters[i]) == call.arguments[i];
  constexpr std::uint16_t kSystemCall = 0x050f;
  std::uint16_t instruction = 0;
  if (is_same)
    std::memcpy(&instruction, reinterpret_cast<const void*>(call.next - sizeof instruction),
                sizeof instruction);
  return instruction == kSystemCall;
}

void cowshed::arch::call_again(const SystemCall& call, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  registers[REG_RAX] = static_cast<greg_t>(call.number);
  registers[REG_RIP] = static_cast<greg_t>(call.next - 2);
  for (std::size_t i = 0; i < kArgumentRegisters.size(); ++i)
    registers[kArgumentRegisters[i]] = static_cast<greg_t>(call.arguments[i]);
}

void cowshed::arch::mark_and_sleep(std::uint32_t* ready, std::uint32_t mark,
                                   const std::uint32_t* gate, std::uint32_t closed) {
  asm volatile(
      "movl %[mark], (%[ready])\n"
      "1: cmpl %%edx, (%%rdi)\n"
      "jne 2f\n"
      "movl $202, %%eax\n"     // futex(gate, ...
      "xorl %%r10d, %%r10d\n"  // without a time limit
      "syscall\n"
      "jmp 1b\n"
      "2:"
      :
      : [ready] "r"(ready), [mark] "r"(mark), "D"(gate), "S"(FUTEX_WAIT_PRIVATE), "d"(closed)
      : "rax", "rcx", "r10", "r11", "memory", "cc");
}
