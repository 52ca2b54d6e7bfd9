#include <linux/futex.h>
#include <ucontext.h>

#include <cowshed/base/arch/x86_64.h>

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

std::uintptr_t cowshed::arch::thread_pointer() {
  std::uintptr_t pointer = 0;
  asm("movq %%fs:0, %0" : "=r"(pointer));
  return pointer;
}
