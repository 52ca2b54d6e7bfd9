#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <cowshed/base/arch/contract.h>

// See arch.h.
namespace cowshed::arch {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kLargestPage = kPage;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20U;
inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kApart = 2 * kCacheLine;  // the CPU fetches cache lines in pairs
// With page tables of four levels.
inline constexpr std::uint64_t kEndOfAddresses = (std::uint64_t{1} << 47U) - kPage;
inline constexpr GibRange kOtherArenas = {0x7e8000000000 >> 30U, 0x1fc};  // for ThreadSanitizer

inline void pause() { __builtin_ia32_pause(); }

// clang-format off
enum class Register : std::uint8_t {
  rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
  frame_pointer = rbp, stack_pointer = rsp, instruction_pointer = rip
};
// clang-format on
inline constexpr std::size_t kRegisters = 17;

inline constexpr std::array<std::size_t, kRegisters> kKernelIndex = {
    10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16};
inline constexpr std::size_t kSystemCallIndex = 15;
inline constexpr std::size_t kModeIndex = 17;  // the code segment; FRED has more bits above
inline constexpr std::uint64_t kModeMask = 0xffff;
inline constexpr std::uint64_t kModeOf32Bits = 0x23;
inline constexpr std::size_t kKernelRegisters = 21;

}  // namespace cowshed::arch
