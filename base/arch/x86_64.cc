#include <ucontext.h>

#include <cowshed/base/arch/x86_64.h>

std::uintptr_t cowshed::arch::interrupted_instruction(const void* context) {
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  return static_cast<std::uintptr_t>(registers[REG_RIP]);
}

bool cowshed::arch::is_interrupted_store(const void* context) {
  constexpr greg_t kWrite = 2;  // of the page fault's error code
  return (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWrite) != 0;
}
