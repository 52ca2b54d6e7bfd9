#pragma once

#include <cowshed/base/arch/contract.h>
#ifdef __x86_64__
#include <cowshed/base/arch/x86_64.h>
#elif defined(__aarch64__)
#include <cowshed/base/arch/aarch64.h>
#else
#error "Cowshed runs on x86-64 and arm64: for another CPU add a header like base/arch/x86_64.h"
#endif

// The constants.
namespace cowshed::arch {

// kPage: the usual page, which settle() and the counts need.  kLargestPage: the largest page that a
// kernel for this CPU may have; memory that is mapped or given back has whole ones.
static_assert(kPage == 4096 && kLargestPage % kPage == 0 && kHugePage % kLargestPage == 0);
static_assert(kApart % kCacheLine == 0);      // between words that different CPUs write to
static_assert(kEndOfAddresses % kPage == 0);  // of a process; some kernels have fewer
// Where arenas lie if the addresses from 0x200040000000 on are taken, or not to be had.
static_assert(std::uint64_t{kOtherArenas.first + kOtherArenas.count} << 30U <= kEndOfAddresses);
static_assert(requires { pause(); });  // for a loop that waits for another CPU

// Register has the general registers in the order of DWARF.  kKernelIndex says which word of the
// kernel's struct pt_regs has each of them, and kModeIndex and kModeMask where it has the mode.
static_assert(kKernelIndex.size() == kRegisters);
static_assert(static_cast<std::size_t>(Register::instruction_pointer) + 1 == kRegisters);
static_assert(kSystemCallIndex < kKernelRegisters && kModeIndex < kKernelRegisters);
static_assert((kModeOf32Bits & kModeMask) == kModeOf32Bits);

}  // namespace cowshed::arch
