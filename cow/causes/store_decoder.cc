#include <algorithm>
#include <bit>
#include <capstone/capstone.h>
#include <initializer_list>

#include <cowshed/cow/causes/store_decoder.h>

namespace cowshed::cow {
namespace {

struct Row {
  StoreKind kind;
  std::initializer_list<unsigned> instructions;
};

// The instructions that do more than to write to their memory operand, and those that only read it.
// The memory is the first operand, except for xchg (either), push and call (the stack).
constexpr Row kRows[] = {
    {StoreKind::unknown, {X86_INS_CMP, X86_INS_TEST, X86_INS_BT}},
    {StoreKind::add, {X86_INS_ADD, X86_INS_SUB, X86_INS_INC, X86_INS_DEC, X86_INS_XADD}},
    {StoreKind::modify,
     {X86_INS_ADC, X86_INS_SBB, X86_INS_AND, X86_INS_OR, X86_INS_XOR, X86_INS_NOT, X86_INS_NEG,
      X86_INS_SHL, X86_INS_SHR, X86_INS_SAR, X86_INS_ROL, X86_INS_ROR, X86_INS_RCL, X86_INS_RCR,
      X86_INS_SHLD, X86_INS_SHRD, X86_INS_BTS, X86_INS_BTR, X86_INS_BTC}},
    {StoreKind::exchange, {X86_INS_XCHG, X86_INS_CMPXCHG, X86_INS_CMPXCHG8B, X86_INS_CMPXCHG16B}},
    {StoreKind::push, {X86_INS_PUSH, X86_INS_PUSHFQ, X86_INS_PUSHFD}},
    {StoreKind::call, {X86_INS_CALL}},
};

constexpr unsigned kVectorWidth = 16;  // the least
// What a repeated instruction may touch from its first byte in one step: the processor moves
// strings by up to a cache line.
constexpr unsigned kLine = arch::kCacheLine;

// Returns the index in StoreRegisters of a general register, whatever its width; else nullopt.
std::optional<std::size_t> position(x86_reg reg) {
  static constexpr x86_reg kNames[][4] = {
      {X86_REG_RAX, X86_REG_EAX, X86_REG_AX, X86_REG_AL},
      {X86_REG_RDX, X86_REG_EDX, X86_REG_DX, X86_REG_DL},
      {X86_REG_RCX, X86_REG_ECX, X86_REG_CX, X86_REG_CL},
      {X86_REG_RBX, X86_REG_EBX, X86_REG_BX, X86_REG_BL},
      {X86_REG_RSI, X86_REG_ESI, X86_REG_SI, X86_REG_SIL},
      {X86_REG_RDI, X86_REG_EDI, X86_REG_DI, X86_REG_DIL},
      {X86_REG_RBP, X86_REG_EBP, X86_REG_BP, X86_REG_BPL},
      {X86_REG_RSP, X86_REG_ESP, X86_REG_SP, X86_REG_SPL},
      {X86_REG_R8, X86_REG_R8D, X86_REG_R8W, X86_REG_R8B},
      {X86_REG_R9, X86_REG_R9D, X86_REG_R9W, X86_REG_R9B},
      {X86_REG_R10, X86_REG_R10D, X86_REG_R10W, X86_REG_R10B},
      {X86_REG_R11, X86_REG_R11D, X86_REG_R11W, X86_REG_R11B},
      {X86_REG_R12, X86_REG_R12D, X86_REG_R12W, X86_REG_R12B},
      {X86_REG_R13, X86_REG_R13D, X86_REG_R13W, X86_REG_R13B},
      {X86_REG_R14, X86_REG_R14D, X86_REG_R14W, X86_REG_R14B},
      {X86_REG_R15, X86_REG_R15D, X86_REG_R15W, X86_REG_R15B},
      {X86_REG_RIP, X86_REG_EIP, X86_REG_IP, X86_REG_INVALID},
  };
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (std::find(std::begin(kNames[i]), std::end(kNames[i]), reg) != std::end(kNames[i])) return i;
  return std::nullopt;
}

constexpr auto kRcx = static_cast<std::size_t>(Register::rcx);
constexpr auto kRdi = static_cast<std::size_t>(Register::rdi);
constexpr auto kRsp = static_cast<std::size_t>(Register::rsp);
constexpr auto kRip = static_cast<std::size_t>(Register::rip);

// Sign-extends the low `width` bytes.
std::int64_t signed_value(std::uint64_t value, unsigned width) {
  if (width == 0 || width >= sizeof value) return static_cast<std::int64_t>(value);
  const unsigned unused = 64 - 8 * width;
  return static_cast<std::int64_t>(value << unused) >> unused;
}

// Returns the address of an operand; nullopt: the registers do not tell it.
std::optional<std::uint64_t> operand_address(const cs_insn& instruction, const x86_op_mem& memory,
                                             const StoreRegisters& registers, bool is_32_bit) {
  if (memory.segment == X86_REG_FS || memory.segment == X86_REG_GS) return std::nullopt;
  auto address = static_cast<std::uint64_t>(memory.disp);
  if (memory.base != X86_REG_INVALID) {
    const auto base = position(memory.base);
    if (!base) return std::nullopt;
    address += registers[*base];
    if (*base == kRip) address += instruction.size;
  }
  if (memory.index != X86_REG_INVALID && memory.index != X86_REG_RIZ) {
    const auto index = position(memory.index);
    if (!index) return std::nullopt;
    address += registers[*index] * static_cast<std::uint64_t>(memory.scale);
  }
  return is_32_bit ? static_cast<std::uint32_t>(address) : address;
}

const cs_x86_op* written_operand(const cs_insn& instruction) {
  const cs_x86& detail = instruction.detail->x86;
  const auto is_memory = [&](std::size_t i) {
    return i < detail.op_count && detail.operands[i].type == X86_OP_MEM;
  };
  if (is_memory(0)) return &detail.operands[0];
  if (instruction.id == X86_INS_XCHG && is_memory(1)) return &detail.operands[1];
  return nullptr;
}

bool is_stos(unsigned id) {
  return id == X86_INS_STOSB || id == X86_INS_STOSW || id == X86_INS_STOSD || id == X86_INS_STOSQ;
}

// No other store has two operands in memory.
bool is_movs(const cs_insn& instruction) {
  const cs_x86& detail = instruction.detail->x86;
  return detail.op_count == 2 && detail.operands[0].type == X86_OP_MEM &&
         detail.operands[1].type == X86_OP_MEM;
}

// How the instruction writes to memory; `unknown` if its operands say that it does not.  The fault
// has shown that it writes, so what is not in the table is a store.
StoreKind store_kind_of(const cs_insn& instruction) {
  const unsigned id = instruction.id;
  for (const auto& [kind, instructions] : kRows)
    if (std::ranges::find(instructions, id) != instructions.end()) return kind;
  const cs_x86_op* operand = written_operand(instruction);
  if (operand == nullptr) return StoreKind::unknown;
  return operand->size < kVectorWidth ? StoreKind::store : StoreKind::vector;
}

std::optional<std::int64_t> added(const cs_insn& instruction, const StoreRegisters& registers) {
  switch (instruction.id) {
    case X86_INS_INC: return 1;
    case X86_INS_DEC: return -1;
    default: break;
  }
  const cs_x86& detail = instruction.detail->x86;
  if (detail.op_count != 2) return std::nullopt;
  const cs_x86_op& source = detail.operands[1];
  std::optional<std::int64_t> amount;
  if (source.type == X86_OP_IMM) {
    amount = signed_value(static_cast<std::uint64_t>(source.imm), detail.operands[0].size);
  } else if (source.type == X86_OP_REG) {
    const auto reg = position(source.reg);  // nullopt for ah to dh
    if (reg) amount = signed_value(registers[*reg], source.size);
  }
  if (amount && instruction.id == X86_INS_SUB)
    amount = static_cast<std::int64_t>(-static_cast<std::uint64_t>(*amount));
  return amount;
}

void note_stored_value(const cs_insn& instruction, StoreInstruction& store) {
  const cs_x86& detail = instruction.detail->x86;
  if (instruction.id != X86_INS_MOV || detail.op_count != 2) return;
  const cs_x86_op& source = detail.operands[1];
  if (source.type == X86_OP_IMM) store.constant = static_cast<std::uint64_t>(source.imm);
  if (source.type != X86_OP_REG) return;
  if (const auto reg = position(source.reg)) store.source = static_cast<Register>(*reg);
}

bool agrees(std::optional<std::uint64_t> begin, std::uint64_t width, std::uint64_t address) {
  return !begin || address - *begin < width;
}

// Owns the memory that cs_disasm_iter() writes to.
class Instruction {
 public:
  explicit Instruction(csh handle)
      : instruction_(cs_malloc(handle), [](cs_insn* owned) { cs_free(owned, 1); }) {}

  // Decodes the first instruction of `code`, and removes it from there.
  bool next(csh handle, std::span<const std::uint8_t>& code) {
    const std::uint8_t* bytes = code.data();
    std::size_t left = code.size();
    std::uint64_t ip = 0;
    if (!cs_disasm_iter(handle, &bytes, &left, &ip, instruction_.get())) return false;
    code = {bytes, left};
    return true;
  }
  const cs_insn& operator*() const { return *instruction_; }
  const cs_insn* operator->() const { return instruction_.get(); }

 private:
  std::unique_ptr<cs_insn, void (*)(cs_insn*)> instruction_;
};

// Whether two vector stores to adjacent memory store the same register; nullopt: they are not
// adjacent.
std::optional<bool> stores_same_again(const cs_insn& first, const cs_insn& second) {
  const cs_x86& one = first.detail->x86;
  const cs_x86& two = second.detail->x86;
  const std::uint8_t width = one.operands[0].size;
  if (store_kind_of(second) != StoreKind::vector || two.operands[0].size != width ||
      one.op_count != 2 || two.op_count != 2) {
    return std::nullopt;
  }
  const x86_op_mem& here = one.operands[0].mem;
  const x86_op_mem& there = two.operands[0].mem;
  const std::int64_t distance = there.disp - here.disp;
  const bool adjacent = here.base == there.base && here.index == there.index &&
                        here.scale == there.scale && here.segment == there.segment &&
                        (distance == width || distance == -width);
  if (!adjacent) return std::nullopt;
  return one.operands[1].reg == two.operands[1].reg;
}

bool is_field(const x86_op_mem& memory) {
  return memory.segment == X86_REG_INVALID && memory.index == X86_REG_INVALID &&
         memory.base != X86_REG_RIP && position(memory.base).has_value();
}

bool is_constant(const cs_x86& detail, std::size_t i) {
  return i < detail.op_count && detail.operands[i].type == X86_OP_IMM;
}

bool changes_bit(const cs_insn& instruction, unsigned width) {
  const cs_x86& detail = instruction.detail->x86;
  if (!is_constant(detail, 1)) return false;
  const std::uint64_t all = ~std::uint64_t{0} >> (64 - 8 * width);
  const auto constant = static_cast<std::uint64_t>(detail.operands[1].imm);
  switch (instruction.id) {
    case X86_INS_OR: return std::has_single_bit(constant & all);
    case X86_INS_AND: return std::has_single_bit(~constant & all) && (constant & 1) != 0;
    case X86_INS_BTS:
    case X86_INS_BTR:
    case X86_INS_BTC: return true;
    default: return false;
  }
}

bool streams(unsigned id) {
  return id == X86_INS_MOVNTDQ || id == X86_INS_MOVNTPS || id == X86_INS_MOVNTPD ||
         id == X86_INS_VMOVNTDQ || id == X86_INS_VMOVNTPS || id == X86_INS_VMOVNTPD;
}

bool writes_register(const cs_insn& instruction, x86_reg reg) {
  const cs_x86& detail = instruction.detail->x86;
  return detail.op_count > 0 && detail.operands[0].type == X86_OP_REG &&
         detail.operands[0].reg == reg;
}

// mov reg, [reg + n]
bool loads_through(const cs_insn& instruction, x86_reg reg) {
  const cs_x86& detail = instruction.detail->x86;
  return instruction.id == X86_INS_MOV && writes_register(instruction, reg) &&
         detail.op_count == 2 && detail.operands[1].type == X86_OP_MEM &&
         detail.operands[1].mem.base == reg && detail.operands[1].mem.index == X86_REG_INVALID;
}

bool adds_constant(const cs_insn& instruction, x86_reg reg) {
  const cs_x86& detail = instruction.detail->x86;
  if (!writes_register(instruction, reg)) return false;
  switch (instruction.id) {
    case X86_INS_INC:
    case X86_INS_DEC: return true;
    case X86_INS_ADD:
    case X86_INS_SUB: return is_constant(detail, 1);
    case X86_INS_LEA:
      return detail.op_count == 2 && detail.operands[1].mem.base == reg &&
             detail.operands[1].mem.index == X86_REG_INVALID;
    default: return false;
  }
}

bool is_jump(const cs_insn& instruction) {
  const cs_detail& detail = *instruction.detail;
  return std::any_of(detail.groups, detail.groups + detail.groups_count, [](std::uint8_t group) {
    return group == X86_GRP_JUMP || group == X86_GRP_CALL || group == X86_GRP_RET;
  });
}

// Examines the instructions from a store to a field of *base up to the next jump.
void look_ahead(csh handle, std::span<const std::uint8_t> code, x86_reg base,
                StoreInstruction& store) {
  Instruction next(handle);
  while (next.next(handle, code) && !is_jump(*next)) {
    if (loads_through(*next, base)) store.walks_list = true;
    if (adds_constant(*next, base)) store.advances = true;
    if (writes_register(*next, base)) return;
  }
}

// Whether the code tests for zero after an atomic -1: by je or jne; after xadd, which fetches the
// old value, by cmp 1 or sub 1.
bool asks_for_zero(csh handle, std::span<const std::uint8_t> code, const cs_insn& instruction) {
  Instruction next(handle);
  if (!next.next(handle, code)) return false;
  if (instruction.id != X86_INS_XADD) return next->id == X86_INS_JE || next->id == X86_INS_JNE;
  const cs_x86& detail = next->detail->x86;
  return (next->id == X86_INS_CMP || next->id == X86_INS_SUB) && is_constant(detail, 1) &&
         detail.operands[1].imm == 1 && detail.operands[0].type == X86_OP_REG &&
         detail.operands[0].reg == instruction.detail->x86.operands[1].reg;
}

}  // namespace

Expected<StoreDecoder> StoreDecoder::open() {
  csh handle = 0;
  if (const cs_err error = cs_open(CS_ARCH_X86, CS_MODE_64, &handle); error != CS_ERR_OK) {
    return make_error(ErrorCode::unsupported,
                      std::string("capstone cannot disassemble x86: ") + cs_strerror(error));
  }
  cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
  const auto close = [](csh* owned) {
    cs_close(owned);
    delete owned;
  };
  return StoreDecoder(std::shared_ptr<csh>(new csh(handle), close));
}

StoreInstruction StoreDecoder::decode(std::span<const std::uint8_t> code,
                                      const StoreRegisters& registers, std::uint64_t address,
                                      bool is_32_bit) const {
  StoreInstruction result;
  cs_option(*capstone_, CS_OPT_MODE, is_32_bit ? CS_MODE_32 : CS_MODE_64);
  Instruction instruction(*capstone_);
  if (!instruction.next(*capstone_, code)) return result;
  result.text = std::string(instruction->mnemonic) + (instruction->op_str[0] != '\0' ? " " : "") +
                instruction->op_str;
  const StoreKind kind = store_kind_of(*instruction);
  if (kind == StoreKind::unknown) return result;
  const cs_x86& detail = instruction->detail->x86;
  const cs_x86_op* operand = written_operand(*instruction);

  if (kind == StoreKind::push || kind == StoreKind::call) {
    const bool is_word = detail.prefix[2] == X86_PREFIX_OPSIZE;
    const unsigned width = kind == StoreKind::push && is_word ? 2 : is_32_bit ? 4 : 8;
    if (!agrees(registers[kRsp] - width, width, address)) return result;
    // The text would have a wrong target, because we decode as if the instruction was at address 0.
    if (kind == StoreKind::call && is_constant(detail, 0)) result.text = instruction->mnemonic;
    result.kind = kind;
    result.width = width;
    return result;
  }
  if (!operand) return result;  // a load, or only registers

  if (is_stos(instruction->id) || is_movs(*instruction)) {
    const bool repeated =
        detail.prefix[0] == X86_PREFIX_REP || detail.prefix[0] == X86_PREFIX_REPNE;
    if (!agrees(registers[kRdi], repeated ? kLine : operand->size, address)) return result;
    result.width = operand->size;
    result.kind = StoreKind::store;
    if (!repeated) return result;
    result.kind = is_stos(instruction->id) ? StoreKind::fill : StoreKind::copy;
    result.remaining = registers[kRcx] * operand->size;
    return result;
  }

  const unsigned width = operand->size;
  if (!agrees(operand_address(*instruction, operand->mem, registers, is_32_bit), width, address))
    return result;
  result.kind = kind;
  result.width = width;
  result.locked = detail.prefix[0] == X86_PREFIX_LOCK || instruction->id == X86_INS_XCHG;
  result.changes_bit = kind == StoreKind::modify && changes_bit(*instruction, width);
  result.streams = streams(instruction->id);
  note_stored_value(*instruction, result);
  if (kind == StoreKind::add) {
    result.amount = added(*instruction, registers);
    result.releases =
        result.locked && result.amount == -1 && asks_for_zero(*capstone_, code, *instruction);
  } else if (kind == StoreKind::vector) {
    Instruction next(*capstone_);
    if (next.next(*capstone_, code)) {
      const auto same = stores_same_again(*instruction, *next);
      if (same) result.kind = *same ? StoreKind::fill : StoreKind::copy;
    }
  }
  if (is_field(operand->mem)) {
    result.displacement = operand->mem.disp;
    look_ahead(*capstone_, code, operand->mem.base, result);
  }
  return result;
}

}  // namespace cowshed::cow
