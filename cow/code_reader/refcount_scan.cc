#include <cstring>
#include <optional>

#include <cowshed/cow/code_reader/refcount_scan.h>

namespace cowshed::cow {
namespace {

using Code = std::span<const std::uint8_t>;

constexpr std::uint8_t kRexW = 0x08;
constexpr std::uint8_t kGroup1Imm8 = 0x83;  // a group of opcodes with add and sub
constexpr std::uint8_t kGroup5 = 0xff;      // a group with dec
constexpr std::uint8_t kTwoBytes = 0x0f;
constexpr std::uint8_t kLea = 0x8d;
constexpr std::uint8_t kMovToMemory = 0x89;
constexpr std::uint8_t kXadd = 0xc1;
constexpr unsigned kAdd = 0;
constexpr unsigned kDec = 1;
constexpr unsigned kSub = 5;
constexpr unsigned kStackPointer = 4;  // as r/m: a SIB byte follows

struct Operand {
  std::int64_t displacement = 0;
  unsigned extension = 0;  // selects the opcode in its group, or the other register
  std::size_t length = 0;
};

// Decodes a ModRM byte that is a register with a displacement.
std::optional<Operand> field_operand(Code code) {
  if (code.size() < 3) return std::nullopt;
  const unsigned mode = code[0] >> 6U;
  const unsigned base = code[0] & 7U;
  Operand operand{0, (code[0] >> 3U) & 7U, 1};
  if (base == kStackPointer) {
    constexpr std::uint8_t kNoIndex = 0x24;  // r12
    if (code[1] != kNoIndex) return std::nullopt;
    operand.length = 2;
  }
  if (mode == 1) {
    constexpr int kSignBit = 0x80;
    operand.displacement = (code[operand.length] ^ kSignBit) - kSignBit;
    ++operand.length;
    return operand;
  }
  if (mode == 2) {
    std::int32_t displacement = 0;
    if (code.size() < operand.length + sizeof displacement) return std::nullopt;
    std::memcpy(&displacement, code.data() + operand.length, sizeof displacement);
    operand.displacement = displacement;
    operand.length += sizeof displacement;
    return operand;
  }
  constexpr unsigned kRipRelative = 5;
  return mode == 0 && base != kRipRelative ? std::optional(operand) : std::nullopt;
}

bool is_jump_on_zero(Code code) {
  constexpr std::uint8_t kShortEqual = 0x74;
  constexpr std::uint8_t kNearEqual = 0x84;
  if (code.size() < 2) return false;
  if ((code[0] | 1U) == (kShortEqual | 1U)) return true;
  return code[0] == kTwoBytes && (code[1] | 1U) == (kNearEqual | 1U);
}

bool is_rex(std::uint8_t byte) { return (byte & 0xf0U) == 0x40U; }

// Whether the code compares the old value with 1: by cmp 1, or by sub 1.
bool is_compare_with_one(Code code) {
  if (!code.empty() && is_rex(code[0])) code = code.subspan(1);
  constexpr unsigned kCompareRegister = 0xf8;
  constexpr unsigned kSubtractFromRegister = 0xe8;
  return code.size() >= 3 && code[0] == kGroup1Imm8 && code[2] == 1 &&
         ((code[1] & 0xf8U) == kCompareRegister || (code[1] & 0xf8U) == kSubtractFromRegister);
}

// lea -1(%a),%b; mov %b,(counter); cmp $1,%a; je: as g++ compiles std::shared_ptr in a program that
// has one thread.
std::optional<CounterField> stored_release_at(Code code) {
  constexpr std::size_t kLeaBytes = 3;
  constexpr std::uint8_t kMinusOne = 0xff;
  if (code.size() <= kLeaBytes + 1 || code[1] >> 6U != 1 || code[2] != kMinusOne)
    return std::nullopt;
  const std::uint8_t prefix = is_rex(code[kLeaBytes]) ? code[kLeaBytes] : 0;
  code = code.subspan(prefix == 0 ? kLeaBytes : kLeaBytes + 1);
  if (code[0] != kMovToMemory) return std::nullopt;
  const auto operand = field_operand(code.subspan(1));
  if (!operand) return std::nullopt;
  code = code.subspan(1 + operand->length);
  if (!is_compare_with_one(code)) return std::nullopt;
  constexpr std::size_t kCompareBytes = 3;
  if (!is_jump_on_zero(code.subspan(is_rex(code[0]) ? kCompareBytes + 1 : kCompareBytes)))
    return std::nullopt;
  return CounterField{operand->displacement, (prefix & kRexW) != 0 ? 8U : 4U};
}

std::optional<CounterField> release_at(Code code, unsigned width) {
  if (code.size() < 2) return std::nullopt;
  const std::uint8_t opcode = code[0];
  if (opcode == kTwoBytes && code[1] == kXadd) {
    const auto operand = field_operand(code.subspan(2));
    if (!operand || !is_compare_with_one(code.subspan(2 + operand->length))) return std::nullopt;
    return CounterField{operand->displacement, width};
  }
  if (opcode != kGroup1Imm8 && opcode != kGroup5) return std::nullopt;
  const auto operand = field_operand(code.subspan(1));
  if (!operand) return std::nullopt;
  Code rest = code.subspan(1 + operand->length);
  if (opcode == kGroup1Imm8) {
    const bool by_one = !rest.empty() && ((operand->extension == kSub && rest[0] == 1) ||
                                          (operand->extension == kAdd && rest[0] == 0xff));
    if (!by_one) return std::nullopt;
    rest = rest.subspan(1);
  } else if (operand->extension != kDec) {
    return std::nullopt;
  }
  if (!is_jump_on_zero(rest)) return std::nullopt;
  return CounterField{operand->displacement, width};
}

}  // namespace

std::map<CounterField, std::size_t> release_sites(Code code) {
  std::map<CounterField, std::size_t> sites;
  for (std::size_t i = 0; i < code.size(); ++i) {
    const std::uint8_t byte = code[i];
    if (byte == kLea) {
      if (const auto field = stored_release_at(code.subspan(i))) ++sites[*field];
      continue;
    }
    if (byte != kGroup1Imm8 && byte != kGroup5 && byte != kTwoBytes) continue;
    const std::uint8_t before = i > 0 ? code[i - 1] : 0;
    const bool is_wide = is_rex(before) && (before & kRexW) != 0;
    // Without a prefix, these bytes are too often the end of a call and the beginning of a mov.
    constexpr std::uint8_t kLock = 0xf0;
    if (byte == kGroup5 && !is_wide && before != kLock) continue;
    if (const auto field = release_at(code.subspan(i), is_wide ? 8 : 4)) ++sites[*field];
  }
  return sites;
}

}  // namespace cowshed::cow
