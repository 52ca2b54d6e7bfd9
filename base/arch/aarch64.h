#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <cowshed/base/arch/contract.h>

// See arch.h.
namespace cowshed::arch {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kLargestPage = std::size_t{64} << 10U;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20U;  // with pages of 4 KiB
inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kApart = 2 * kCacheLine;  // some CPUs have lines of 128 bytes
// The kernel gives addresses of 52 bits only to who asks for them.
inline constexpr std::uint64_t kEndOfAddresses = (std::uint64_t{1} << 48U) - kPage;
inline constexpr GibRange kOtherArenas = {64, 256};  // for kernels that give 39 bits

inline void pause() { asm volatile("yield"); }

// clang-format off
enum class Register : std::uint8_t {
  x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16, x17, x18, x19, x20, x21,
  x22, x23, x24, x25, x26, x27, x28, x29, x30, sp, pc,
  frame_pointer = x29, stack_pointer = sp, instruction_pointer = pc
};
// clang-format on
inline constexpr std::size_t kRegisters = 33;

inline constexpr std::array<std::size_t, kRegisters> kKernelIndex = [] {
  std::array<std::size_t, kRegisters> same{};
  for (std::size_t i = 0; i < kRegisters; ++i) same[i] = i;
  return same;
}();
inline constexpr std::size_t kSystemCallIndex = 35;
inline constexpr std::size_t kModeIndex = 33;  // pstate
inline constexpr std::uint64_t kModeMask = 0x10;
inline constexpr std::uint64_t kModeOf32Bits = 0x10;
inline constexpr std::size_t kKernelRegisters = 36;

}  // namespace cowshed::arch
