#include <algorithm>
#include <array>
#include <capstone/capstone.h>
#include <vector>

#include <cowshed/cow/store_table.h>

namespace cowshed::cow {
namespace {

struct Row {
  StoreKind kind;
  std::vector<unsigned> instructions;
};

// Every instruction that writes to memory as compilers and C libraries use them.  The memory is
// the first operand, except for xchg (either), push, call (the stack) and the string
// instructions ([rdi]).
const std::array kRows = {
    Row{StoreKind::store,
        {X86_INS_MOV,      X86_INS_MOVABS,     X86_INS_MOVNTI,  X86_INS_MOVBE,   X86_INS_SETAE,
         X86_INS_SETA,     X86_INS_SETBE,      X86_INS_SETB,    X86_INS_SETE,    X86_INS_SETGE,
         X86_INS_SETG,     X86_INS_SETLE,      X86_INS_SETL,    X86_INS_SETNE,   X86_INS_SETNO,
         X86_INS_SETNP,    X86_INS_SETNS,      X86_INS_SETO,    X86_INS_SETP,    X86_INS_SETS,
         X86_INS_MOVD,     X86_INS_MOVQ,       X86_INS_MOVSS,   X86_INS_MOVSD,   X86_INS_MOVLPS,
         X86_INS_MOVLPD,   X86_INS_MOVHPS,     X86_INS_MOVHPD,  X86_INS_MOVNTQ,  X86_INS_VMOVD,
         X86_INS_VMOVQ,    X86_INS_VMOVSS,     X86_INS_VMOVSD,  X86_INS_VMOVLPS, X86_INS_VMOVLPD,
         X86_INS_VMOVHPS,  X86_INS_VMOVHPD,    X86_INS_PEXTRB,  X86_INS_PEXTRW,  X86_INS_PEXTRD,
         X86_INS_PEXTRQ,   X86_INS_EXTRACTPS,  X86_INS_VPEXTRB, X86_INS_VPEXTRW, X86_INS_VPEXTRD,
         X86_INS_VPEXTRQ,  X86_INS_VEXTRACTPS, X86_INS_FST,     X86_INS_FSTP,    X86_INS_FIST,
         X86_INS_FISTP,    X86_INS_FISTTP,     X86_INS_FNSTCW,  X86_INS_FNSTSW,  X86_INS_STMXCSR,
         X86_INS_VSTMXCSR, X86_INS_STOSB,      X86_INS_STOSW,   X86_INS_STOSD,   X86_INS_STOSQ,
         X86_INS_MOVSB,    X86_INS_MOVSW,      X86_INS_MOVSQ}},
    Row{StoreKind::add, {X86_INS_ADD, X86_INS_SUB, X86_INS_INC, X86_INS_DEC, X86_INS_XADD}},
    Row{StoreKind::modify,
        {X86_INS_ADC, X86_INS_SBB, X86_INS_AND, X86_INS_OR, X86_INS_XOR, X86_INS_NOT, X86_INS_NEG,
         X86_INS_SHL, X86_INS_SHR, X86_INS_SAR, X86_INS_ROL, X86_INS_ROR, X86_INS_RCL, X86_INS_RCR,
         X86_INS_SHLD, X86_INS_SHRD, X86_INS_BTS, X86_INS_BTR, X86_INS_BTC}},
    Row{StoreKind::exchange,
        {X86_INS_XCHG, X86_INS_CMPXCHG, X86_INS_CMPXCHG8B, X86_INS_CMPXCHG16B}},
    Row{StoreKind::vector,
        {X86_INS_MOVUPS,       X86_INS_MOVUPD,       X86_INS_MOVAPS,     X86_INS_MOVAPD,
         X86_INS_MOVDQU,       X86_INS_MOVDQA,       X86_INS_MOVNTDQ,    X86_INS_MOVNTPS,
         X86_INS_MOVNTPD,      X86_INS_VMOVUPS,      X86_INS_VMOVUPD,    X86_INS_VMOVAPS,
         X86_INS_VMOVAPD,      X86_INS_VMOVDQU,      X86_INS_VMOVDQA,    X86_INS_VMOVDQU8,
         X86_INS_VMOVDQU16,    X86_INS_VMOVDQU32,    X86_INS_VMOVDQU64,  X86_INS_VMOVDQA32,
         X86_INS_VMOVDQA64,    X86_INS_VMOVNTDQ,     X86_INS_VMOVNTPS,   X86_INS_VMOVNTPD,
         X86_INS_VEXTRACTF128, X86_INS_VEXTRACTI128, X86_INS_VMASKMOVPS, X86_INS_VMASKMOVPD,
         X86_INS_VPMASKMOVD,   X86_INS_VPMASKMOVQ}},
    Row{StoreKind::push, {X86_INS_PUSH, X86_INS_PUSHFQ}},
    Row{StoreKind::call, {X86_INS_CALL}},
    Row{StoreKind::state,
        {X86_INS_FXSAVE, X86_INS_FXSAVE64, X86_INS_XSAVE, X86_INS_XSAVE64, X86_INS_XSAVEC,
         X86_INS_XSAVEC64, X86_INS_XSAVEOPT, X86_INS_XSAVEOPT64, X86_INS_FNSAVE, X86_INS_FNSTENV}},
};

}  // namespace

StoreKind store_kind_of(unsigned id) {
  for (const auto& [kind, instructions] : kRows)
    if (std::find(instructions.begin(), instructions.end(), id) != instructions.end()) return kind;
  return StoreKind::unknown;
}

}  // namespace cowshed::cow
