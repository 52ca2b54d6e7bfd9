#include <csetjmp>
#include <ucontext.h>

#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/tests/cow/machine_code.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

// Instructions as in AT&T's syntax, and the code that an assembler made of each; before them the
// kind, the width and the amount of all in the line.
constexpr const char* kTable = R"(
store 1: movb $1,(%rdi) = c6 07 01 | movb %ah,(%rdi) = 88 27
store 1: pextrb $1,%xmm0,(%rdi) = 66 0f 3a 14 07 01 | vpextrb $1,%xmm0,(%rdi) = c4 e3 79 14 07 01
store 1: stosb = aa | movsb = a4
store 2: movw $1,(%rdi) = 66 c7 07 01 00 | pextrw $1,%xmm0,(%rdi) = 66 0f 3a 15 07 01
store 2: vpextrw $1,%xmm0,(%rdi) = c4 e3 79 15 07 01 | fists (%rdi) = df 17
store 2: fistps (%rdi) = df 1f | fisttps (%rdi) = df 0f | fnstcw (%rdi) = d9 3f
store 2: stosw = 66 ab | movsw = 66 a5
store 4: movl $1,(%rdi) = c7 07 01 00 00 00 | movntil %eax,(%rdi) = 0f c3 07
store 4: movd %xmm0,(%rdi) = 66 0f 7e 07 | movd %mm0,(%rdi) = 0f 7e 07
store 4: movss %xmm0,(%rdi) = f3 0f 11 07 | vmovd %xmm0,(%rdi) = c5 f9 7e 07
store 4: vmovss %xmm0,(%rdi) = c5 fa 11 07 | pextrd $1,%xmm0,(%rdi) = 66 0f 3a 16 07 01
store 4: extractps $1,%xmm0,(%rdi) = 66 0f 3a 17 07 01
store 4: vpextrd $1,%xmm0,(%rdi) = c4 e3 79 16 07 01
store 4: vextractps $1,%xmm0,(%rdi) = c4 e3 79 17 07 01 | fsts (%rdi) = d9 17
store 4: fstps (%rdi) = d9 1f | fistl (%rdi) = db 17 | fistpl (%rdi) = db 1f
store 4: fisttpl (%rdi) = db 0f | stmxcsr (%rdi) = 0f ae 1f | vstmxcsr (%rdi) = c5 f8 ae 1f
store 4: stosl = ab | movsl = a5
store 8: movq $1,(%rdi) = 48 c7 07 01 00 00 00 | movq %rax,8(%rdi) = 48 89 47 08
store 8: movq %rax,(%rdi,%rcx,8) = 48 89 04 cf | movntiq %rax,(%rdi) = 48 0f c3 07
store 8: movbeq %rax,(%rdi) = 48 0f 38 f1 07 | movq %xmm0,(%rdi) = 66 0f d6 07
store 8: movq %mm0,(%rdi) = 0f 7f 07 | movsd %xmm0,(%rdi) = f2 0f 11 07
store 8: movlps %xmm0,(%rdi) = 0f 13 07 | movlpd %xmm0,(%rdi) = 66 0f 13 07
store 8: movhps %xmm0,(%rdi) = 0f 17 07 | movhpd %xmm0,(%rdi) = 66 0f 17 07
store 8: movntq %mm0,(%rdi) = 0f e7 07 | vmovq %xmm0,(%rdi) = c5 f9 d6 07
store 8: vmovsd %xmm0,(%rdi) = c5 fb 11 07 | vmovlps %xmm0,(%rdi) = c5 f8 13 07
store 8: vmovlpd %xmm0,(%rdi) = c5 f9 13 07 | vmovhps %xmm0,(%rdi) = c5 f8 17 07
store 8: vmovhpd %xmm0,(%rdi) = c5 f9 17 07 | pextrq $1,%xmm0,(%rdi) = 66 48 0f 3a 16 07 01
store 8: vpextrq $1,%xmm0,(%rdi) = c4 e3 f9 16 07 01 | fstl (%rdi) = dd 17 | fstpl (%rdi) = dd 1f
store 8: fistpll (%rdi) = df 3f | fisttpll (%rdi) = dd 0f | stosq = 48 ab | movsq = 48 a5
store 10: fstpt (%rdi) = db 3f
add 4 1: addl $1,(%rdi) = 83 07 01 | incl (%rdi) = ff 07 | lock addl $1,(%rdi) = f0 83 07 01
add 8 1: addq $1,(%rdi) = 48 83 07 01 | incq (%rdi) = 48 ff 07 | lock incq (%rdi) = f0 48 ff 07
add 8 1: xaddq %rbx,(%rdi) = 48 0f c1 1f
add 8 -1: addq $-1,(%rdi) = 48 83 07 ff | subq $1,(%rdi) = 48 83 2f 01 | decq (%rdi) = 48 ff 0f
add 8 -1: subq %rbx,(%rdi) = 48 29 1f
add 1 -1: addb $255,(%rdi) = 80 07 ff
add 4 1000: addl $1000,(%rdi) = 81 07 e8 03 00 00
add 4 -1: subl $1,(%rdi) = 83 2f 01 | addl %edx,(%rdi) = 01 17 | lock subl $1,(%rdi) = f0 83 2f 01
add 4 -1: lock decl (%rdi) = f0 ff 0f | lock xaddl %edx,(%rdi) = f0 0f c1 17
add 2 -1: decw (%rdi) = 66 ff 0f
modify 4: adcl $1,(%rdi) = 83 17 01 | andl $1,(%rdi) = 83 27 01 | xorl %eax,(%rdi) = 31 07
modify 4: negl (%rdi) = f7 1f | shll $1,(%rdi) = d1 27 | sarl %cl,(%rdi) = d3 3f
modify 4: roll $3,(%rdi) = c1 07 03 | rcll $1,(%rdi) = d1 17 | rcrl $1,(%rdi) = d1 1f
modify 4: shrdl $3,%eax,(%rdi) = 0f ac 07 03 | btsl $3,(%rdi) = 0f ba 2f 03
modify 4: lock btsl $3,(%rdi) = f0 0f ba 2f 03 | btrl $3,(%rdi) = 0f ba 37 03
modify 4: btcl $3,(%rdi) = 0f ba 3f 03
modify 8: sbbq %rax,(%rdi) = 48 19 07 | lock orq $1,(%rdi) = f0 48 83 0f 01
modify 8: notq (%rdi) = 48 f7 17 | shrq $3,(%rdi) = 48 c1 2f 03 | rorq %cl,(%rdi) = 48 d3 0f
modify 8: shldq $3,%rax,(%rdi) = 48 0f a4 07 03
modify 1: orb $1,(%rdi) = 80 0f 01
exchange 4: xchgl %eax,(%rdi) = 87 07 | cmpxchgl %edx,(%rdi) = 0f b1 17
exchange 4: lock cmpxchgl %edx,(%rdi) = f0 0f b1 17
exchange 8: xchgq %rax,(%rdi) = 48 87 07 | lock cmpxchgq %rdx,(%rdi) = f0 48 0f b1 17
exchange 8: lock cmpxchg8b (%rdi) = f0 0f c7 0f
exchange 16: lock cmpxchg16b (%rdi) = f0 48 0f c7 0f
vector 16: movups %xmm0,(%rdi) = 0f 11 07 | movupd %xmm0,(%rdi) = 66 0f 11 07
vector 16: movaps %xmm0,(%rdi) = 0f 29 07 | movapd %xmm0,(%rdi) = 66 0f 29 07
vector 16: movdqu %xmm0,(%rdi) = f3 0f 7f 07 | movdqa %xmm0,(%rdi) = 66 0f 7f 07
vector 16: movntdq %xmm0,(%rdi) = 66 0f e7 07 | movntps %xmm0,(%rdi) = 0f 2b 07
vector 16: movntpd %xmm0,(%rdi) = 66 0f 2b 07 | vmovups %xmm0,(%rdi) = c5 f8 11 07
vector 16: vmovupd %xmm0,(%rdi) = c5 f9 11 07 | vmovaps %xmm0,(%rdi) = c5 f8 29 07
vector 16: vmovapd %xmm0,(%rdi) = c5 f9 29 07 | vmovdqu %xmm0,(%rdi) = c5 fa 7f 07
vector 16: vmovdqa %xmm0,(%rdi) = c5 f9 7f 07 | vmovntdq %xmm0,(%rdi) = c5 f9 e7 07
vector 16: vmovntps %xmm0,(%rdi) = c5 f8 2b 07 | vmovntpd %xmm0,(%rdi) = c5 f9 2b 07
vector 16: vextractf128 $1,%ymm0,(%rdi) = c4 e3 7d 19 07 01
vector 16: vextracti128 $1,%ymm0,(%rdi) = c4 e3 7d 39 07 01
vector 16: movups %xmm0,(%rdi); movups %xmm0,0x40(%rdi) = 0f 11 07 0f 11 47 40
vector 16: movups %xmm0,(%rdi); movups %xmm1,0x10(%rsi) = 0f 11 07 0f 11 4e 10
vector 32: vmovups %ymm0,(%rdi) = c5 fc 11 07 | vmovupd %ymm0,(%rdi) = c5 fd 11 07
vector 32: vmovaps %ymm0,(%rdi) = c5 fc 29 07 | vmovapd %ymm0,(%rdi) = c5 fd 29 07
vector 32: vmovdqu %ymm0,(%rdi) = c5 fe 7f 07 | vmovdqa %ymm0,(%rdi) = c5 fd 7f 07
vector 32: vmovntdq %ymm0,(%rdi) = c5 fd e7 07 | vmovntps %ymm0,(%rdi) = c5 fc 2b 07
vector 32: vmovntpd %ymm0,(%rdi) = c5 fd 2b 07 | vmovdqu8 %ymm16,(%rdi) = 62 e1 7f 28 7f 07
vector 32: vmovdqu64 %ymm16,(%rdi) = 62 e1 fe 28 7f 07
vector 32: vmovdqa64 %ymm16,(%rdi) = 62 e1 fd 28 7f 07
vector 32: vmaskmovps %ymm0,%ymm1,(%rdi) = c4 e2 75 2e 07
vector 32: vmaskmovpd %ymm0,%ymm1,(%rdi) = c4 e2 75 2f 07
vector 32: vpmaskmovd %ymm0,%ymm1,(%rdi) = c4 e2 75 8e 07
vector 32: vpmaskmovq %ymm0,%ymm1,(%rdi) = c4 e2 f5 8e 07
vector 64: vmovdqu8 %zmm0,(%rdi) = 62 f1 7f 48 7f 07 | vmovdqu16 %zmm0,(%rdi) = 62 f1 ff 48 7f 07
vector 64: vmovdqu32 %zmm0,(%rdi) = 62 f1 7e 48 7f 07 | vmovdqu64 %zmm0,(%rdi) = 62 f1 fe 48 7f 07
vector 64: vmovdqa32 %zmm0,(%rdi) = 62 f1 7d 48 7f 07 | vmovdqa64 %zmm0,(%rdi) = 62 f1 fd 48 7f 07
vector 64: vmovups %zmm0,(%rdi) = 62 f1 7c 48 11 07 | vmovntdq %zmm0,(%rdi) = 62 f1 7d 48 e7 07
fill 1: rep stosb = f3 aa
fill 8: rep stosq = f3 48 ab
copy 1: rep movsb = f3 a4
copy 8: rep movsq = f3 48 a5
copy 4: rep movsl = f3 a5
fill 32: vmovdqa %ymm0,(%rdi); vmovdqa %ymm0,0x20(%rdi) = c5 fd 7f 07 c5 fd 7f 47 20
copy 32: vmovdqa %ymm1,(%rdi); vmovdqa %ymm2,0x20(%rdi) = c5 fd 7f 0f c5 fd 7f 57 20
fill 16: movups %xmm0,(%rdi); movups %xmm0,-0x10(%rdi) = 0f 11 07 0f 11 47 f0
push 8: pushq %rax = 50 | pushq $1 = 6a 01 | pushq (%rsi) = ff 36 | pushfq = 9c
push 2: pushw %ax = 66 50
call 8: call .+5 = e8 00 00 00 00 | call *%rax = ff d0 | call *(%rsi) = ff 16
)";

const std::map<std::string, StoreKind> kinds = {
    {"store", StoreKind::store},   {"add", StoreKind::add},   {"modify", StoreKind::modify},
    {"vector", StoreKind::vector}, {"fill", StoreKind::fill}, {"copy", StoreKind::copy},
    {"push", StoreKind::push},     {"call", StoreKind::call}, {"exchange", StoreKind::exchange}};

struct Row {
  std::string assembly;
  std::string code;
  std::string kind;
  unsigned width = 0;
  std::optional<std::int64_t> amount;

  bool locked() const { return assembly.starts_with("lock ") || assembly.starts_with("xchg"); }
};

std::vector<Row> rows_of(const char* text) {
  std::vector<Row> result;
  std::istringstream table(text + 1);
  for (std::string line; std::getline(table, line);) {
    Row row;
    const std::size_t colon = line.find(':');
    std::istringstream head(line.substr(0, colon));
    head >> row.kind >> row.width;
    if (std::int64_t amount = 0; head >> amount) row.amount = amount;
    for (std::size_t begin = colon + 2; begin < line.size();) {
      const std::size_t equals = line.find(" = ", begin);
      const std::size_t end = std::min(line.find(" | ", begin), line.size());
      row.assembly = line.substr(begin, equals - begin);
      row.code = line.substr(equals + 3, end - equals - 3);
      result.push_back(row);
      begin = end + 3;
    }
  }
  return result;
}

std::vector<Row> rows() {
  std::vector<Row> result = rows_of(kTable);
  for (const char digit : std::string_view("0123456789abcdef"))
    result.push_back({"setcc (%rdi)", std::string("0f 9") + digit + " 07", "store", 1, {}});
  return result;
}

StoreInstruction decode(std::string_view code, const StoreRegisters& registers,
                        std::uint64_t address, bool is_32_bit = false) {
  static const StoreDecoder decoder = StoreDecoder::open().value();
  return decoder.decode(bytes_of(code), registers, address, is_32_bit);
}

constexpr std::size_t kOnePage = arch::kPage;
constexpr std::size_t kRdx = 1;
constexpr std::size_t kRcx = 2;
constexpr std::size_t kRbx = 3;
constexpr std::size_t kRdi = 5;
constexpr std::size_t kRsp = 7;
constexpr std::size_t kRip = 16;

struct Fault {
  int signal = 0;
  bool is_write = false;
  std::uint64_t address = 0;
  StoreRegisters registers{};
};

Fault caught;
sigjmp_buf back;
bool has_avx2 = false;

void catch_fault(int signal, siginfo_t* /*info*/, void* context) {
  const auto* machine = &static_cast<const ucontext_t*>(context)->uc_mcontext;
  constexpr int kOrder[] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                            REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                            REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
  caught.signal = signal;
  constexpr long long kWrite = 2;  // of the page fault's error code
  caught.is_write = (machine->gregs[REG_ERR] & kWrite) != 0;
  caught.address = static_cast<std::uint64_t>(machine->gregs[REG_CR2]);
  for (std::size_t i = 0; i < caught.registers.size(); ++i)
    caught.registers[i] = static_cast<std::uint64_t>(machine->gregs[kOrder[i]]);
  siglongjmp(back, 1);
}

// Runs instructions of which the first must fault.
class Processor {
 public:
  Processor() {
    has_avx2 = __builtin_cpu_supports("avx2") != 0;
    code_ = map(PROT_READ | PROT_WRITE | PROT_EXEC);
    readable_ = map(PROT_READ);
    target_ = map(PROT_READ);
    stack_t own{};
    own.ss_sp = signal_stack_.data();
    own.ss_size = signal_stack_.size();
    ::sigaltstack(&own, &stack_before_);
    struct sigaction action{};
    action.sa_sigaction = catch_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &segv_before_);
    ::sigaction(SIGILL, &action, &ill_before_);
  }
  Processor(const Processor&) = delete;
  Processor& operator=(const Processor&) = delete;
  ~Processor() {
    ::sigaction(SIGSEGV, &segv_before_, nullptr);
    ::sigaction(SIGILL, &ill_before_, nullptr);
    ::sigaltstack(&stack_before_, nullptr);
    for (std::uint8_t* page : {code_, readable_, target_}) ::munmap(page, kOnePage);
  }

  StoreRegisters registers() const {
    StoreRegisters values{};
    values.fill(reinterpret_cast<std::uintptr_t>(readable_));
    values[kRdx] = ~std::uint64_t{0};
    values[kRcx] = 16;
    values[kRbx] = 1;
    values[kRdi] = target();
    values[kRsp] = target() + 64;
    values[kRip] = reinterpret_cast<std::uintptr_t>(code_);
    return values;
  }
  std::uint64_t target() const { return reinterpret_cast<std::uintptr_t>(target_) + kOnePage / 2; }

  const Fault& run(const Bytes& code) {
    constexpr int kNoInstruction = 0x06;
    std::memset(code_, kNoInstruction, kOnePage);
    std::memcpy(code_, code.data(), code.size());
    caught = {};
    const StoreRegisters values = registers();
    if (sigsetjmp(back, 1) == 0) enter(values.data());
    asm volatile("emms; cld" ::: "memory");
    return caught;
  }

 private:
  static std::uint8_t* map(int protection) {
    return static_cast<std::uint8_t*>(
        ::mmap(nullptr, kOnePage, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  static void enter(const std::uint64_t* values) {
    asm volatile(
        "mov %0, %%r15\n\t"
        "mov 0(%%r15), %%rax\n\t"
        "mov 8(%%r15), %%rdx\n\t"
        "mov 16(%%r15), %%rcx\n\t"
        "mov 24(%%r15), %%rbx\n\t"
        "mov 32(%%r15), %%rsi\n\t"
        "mov 40(%%r15), %%rdi\n\t"
        "mov 48(%%r15), %%rbp\n\t"
        "mov 56(%%r15), %%rsp\n\t"
        "cmpb $0, %1\n\t"
        "je 1f\n\t"
        "vpcmpeqd %%ymm1, %%ymm1, %%ymm1\n\t"  // the mask of masked stores
        "1:\n\t"
        "jmp *128(%%r15)"
        :
        : "r"(values), "m"(has_avx2)
        : "memory");
    __builtin_unreachable();
  }

  std::uint8_t* code_;
  std::uint8_t* readable_;
  std::uint8_t* target_;
  std::vector<std::uint8_t> signal_stack_ = std::vector<std::uint8_t>(std::size_t{256} * 1024);
  stack_t stack_before_{};
  struct sigaction segv_before_{};
  struct sigaction ill_before_{};
};

// Where an instruction writes that this processor does not have.
Fault imagined(const Processor& processor) {
  return {SIGSEGV, true, processor.target(), processor.registers()};
}

// The oracle is the processor: each row faults on a write, and its registers and address are given
// to the decoder.
TEST(StoreInstruction, EveryRowIsToldFromItsFault) {
  Processor processor;
  int run = 0;
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.assembly + ": " + row.code);
    Fault fault = processor.run(bytes_of(row.code));
    if (fault.signal == SIGILL) fault = imagined(processor);
    else ++run;
    ASSERT_EQ(fault.signal, SIGSEGV);
    ASSERT_TRUE(fault.is_write);
    ASSERT_EQ(fault.registers[kRip], processor.registers()[kRip]);
    const StoreInstruction told = decode(row.code, fault.registers, fault.address);
    EXPECT_EQ(told.kind, kinds.at(row.kind)) << told.text;
    EXPECT_EQ(told.width, row.width) << told.text;
    EXPECT_EQ(told.amount, row.amount) << told.text;
    EXPECT_EQ(told.locked, row.locked()) << told.text;
    EXPECT_FALSE(told.text.empty());
  }
  EXPECT_GT(run, 130);
}

TEST(StoreInstruction, AnotherAddressThanTheOperandsIsNotBelieved) {
  const Processor processor;
  constexpr std::uint64_t kFar = 1 << 20;
  for (const Row& row : rows()) {
    EXPECT_EQ(decode(row.code, processor.registers(), processor.target() + kFar).kind,
              StoreKind::unknown)
        << row.assembly;
  }
}

TEST(StoreInstruction, WhatDoesNotWriteToMemoryIsUnknown) {
  const Processor processor;
  constexpr const char* kOthers = R"(
unknown 0: mov (%rdi),%rax = 48 8b 07 | cmpq $1,(%rdi) = 48 83 3f 01 | testb $1,(%rdi) = f6 07 01
unknown 0: add (%rdi),%rax = 48 03 07 | movdqu (%rdi),%xmm0 = f3 0f 6f 07
unknown 0: btq $3,(%rdi) = 48 0f ba 27 03 | mov %rdi,%rax = 48 89 f8 | ud2 = 0f 0b
unknown 0: half an instruction = 0f | nothing = )";
  for (const Row& row : rows_of(kOthers))
    EXPECT_EQ(decode(row.code, processor.registers(), processor.target()).kind, StoreKind::unknown)
        << row.assembly;
}

TEST(StoreInstruction, TheCodeOfA32BitProgramIsDecodedAsSuch) {
  StoreRegisters registers{};
  registers[kRcx] = 0xffffffff;
  registers[kRdi] = 0x10000;
  registers[kRsp] = 0x20000;
  const auto told = [&](const std::string& code, std::uint64_t address) {
    const StoreInstruction store = decode(code, registers, address, true);
    return store.text + ": " + std::to_string(store.width);
  };
  EXPECT_EQ(told("ff 07", 0x10000), "inc dword ptr [edi]: 4");
  EXPECT_EQ(told("a3 44 33 22 11", 0x11223344), "mov dword ptr [0x11223344], eax: 4");
  EXPECT_EQ(told("89 04 8f", 0xfffc), "mov dword ptr [edi + ecx*4], eax: 4") << "the sum wraps";
  EXPECT_EQ(told("50", 0x1fffc), "push eax: 4");
  EXPECT_EQ(told("9c", 0x1fffc), "pushfd: 4");
  EXPECT_EQ(told("e8 00 00 00 00", 0x1fffc), "call: 4");
  EXPECT_EQ(decode("ff 07", registers, 0x10000).text, "inc dword ptr [rdi]") << "not from then on";
}

TEST(StoreInstruction, AStoreThatCrossesAPageFaultsBehindItsBeginning) {
  StoreRegisters registers{};
  registers[kRdi] = 2 * kOnePage - 3;
  constexpr const char* kMov = "48 89 07";  // mov %rax,(%rdi)
  EXPECT_EQ(decode(kMov, registers, 2 * kOnePage).kind, StoreKind::store);
  EXPECT_EQ(decode(kMov, registers, 2 * kOnePage + 5).kind, StoreKind::unknown);
}

TEST(StoreInstruction, RipRelativeOperandsCountFromTheNextInstruction) {
  StoreRegisters registers{};
  registers[kRip] = 0x401000;
  constexpr const char* kAddAhead = "48 83 05 10 00 00 00 01";  // addq $1,0x10(%rip)
  EXPECT_EQ(decode(kAddAhead, registers, 0x401018).kind, StoreKind::add);
  EXPECT_EQ(decode(kAddAhead, registers, 0x401010).kind, StoreKind::unknown);
}

// Where fs points is not among the registers.
TEST(StoreInstruction, ThreadLocalOperandsAreBelieved) {
  const auto told = decode("64 89 04 25 10 00 00 00", {}, 0x7f0000000010);  // mov %eax,%fs:0x10
  EXPECT_EQ(told.kind, StoreKind::store);
  EXPECT_EQ(told.width, 4U);
}

StoreRegisters at_a_page() {
  StoreRegisters registers{};
  registers[kRdi] = kOnePage;
  registers[kRdx] = ~std::uint64_t{0};
  registers[kRcx] = 100;
  return registers;
}

// A list is told from an array by what follows.
TEST(StoreInstruction, TheNextInstructionsTellWhatTheFieldIs) {
  const struct {
    const char* assembly;
    const char* code;
    std::optional<std::int64_t> displacement;
    bool walks_list;
    bool advances;
  } cases[] = {
      {"subq $1,(%rdi); je", "48 83 2f 01 74 05", 0, false, false},
      {"addq $1,(%rdi); add $8,%rdi", "48 83 07 01 48 83 c7 08", 0, false, true},
      {"mov %rax,8(%rdi); mov (%rdi),%rdi", "48 89 47 08 48 8b 3f", 8, true, false},
      {"mov %rax,8(%rdi); mov (%rsi),%rdi", "48 89 47 08 48 8b 3e", 8, false, false},
      {"mov %rax,8(%rdi); jmp; mov (%rdi),%rdi", "48 89 47 08 eb 00 48 8b 3f", 8, false, false},
      {"addq $1,(%rdi,%rcx,8)", "48 83 04 cf 01", std::nullopt, false, false},
  };
  StoreRegisters registers{};
  registers[kRdi] = kOnePage;
  for (const auto& each : cases) {
    const auto told = decode(each.code, registers,
                             kOnePage + static_cast<std::uint64_t>(each.displacement.value_or(0)));
    EXPECT_NE(told.kind, StoreKind::unknown) << each.assembly;
    EXPECT_EQ(told.displacement, each.displacement) << each.assembly;
    EXPECT_EQ(told.walks_list, each.walks_list) << each.assembly;
    EXPECT_EQ(told.advances, each.advances) << each.assembly;
  }
}

// One property of an instruction that writes to (%rdi).
TEST(StoreInstruction, AReleaseABitAndAStreamAreTold) {
  // A release is what separates a count of references from another counter; a bit is no mask; a
  // stream goes past the caches.  1: it has the property.
  constexpr const char* kProperties = R"(
releases 1: lock subl $1,(%rdi); je = f0 83 2f 01 74 05
releases 1: lock decq (%rdi); jne = f0 48 ff 0f 75 05
releases 1: lock xaddl %edx,(%rdi); subl $1,%edx = f0 0f c1 17 83 ea 01
releases 1: lock xaddl %edx,(%rdi); cmpl $1,%edx = f0 0f c1 17 83 fa 01
releases 0: lock decq (%rdi); js = f0 48 ff 0f 78 05 | lock incq (%rdi); je = f0 48 ff 07 74 05
releases 0: subl $1,(%rdi); je = 83 2f 01 74 05
releases 0: lock xaddl %edx,(%rdi); cmpl $1,%eax = f0 0f c1 17 83 f8 01
releases 0: lock xaddl %edx,(%rdi); addl $1,%edx = f0 0f c1 17 83 c2 01
changes_bit 1: orb $1,(%rdi) = 80 0f 01 | orb $0x80,(%rdi) = 80 0f 80
changes_bit 1: orl $0x80000000,(%rdi) = 81 0f 00 00 00 80 | andl $~4,(%rdi) = 83 27 fb
changes_bit 1: andq $~4,(%rdi) = 48 83 27 fb | andb $0x7f,(%rdi) = 80 27 7f
changes_bit 1: btsl $3,(%rdi) = 0f ba 2f 03 | btrl $3,(%rdi) = 0f ba 37 03
changes_bit 0: orq $-1,(%rdi) = 48 83 0f ff | orl $7,(%rdi) = 83 0f 07 | orl $0,(%rdi) = 83 0f 00
changes_bit 0: or %al,(%rdi) = 08 07 | andq $-2,(%rdi) = 48 83 27 fe
changes_bit 0: andq $-8,(%rdi) = 48 83 27 f8 | andl $-16,(%rdi) = 83 27 f0
changes_bit 0: andl $0xff,(%rdi) = 81 27 ff 00 00 00 | andl $0,(%rdi) = 83 27 00
changes_bit 0: xorl $4,(%rdi) = 83 37 04 | addl $4,(%rdi) = 83 07 04
streams 1: vmovntdq %ymm0,(%rdi) = c5 fd e7 07
streams 0: vmovdqu %ymm0,(%rdi) = c5 fe 7f 07)";
  const std::map<std::string, bool StoreInstruction::*> properties = {
      {"releases", &StoreInstruction::releases},
      {"changes_bit", &StoreInstruction::changes_bit},
      {"streams", &StoreInstruction::streams}};
  for (const Row& row : rows_of(kProperties))
    EXPECT_EQ(decode(row.code, at_a_page(), kOnePage).*properties.at(row.kind), row.width == 1)
        << row.kind << ": " << row.assembly;
}

TEST(StoreInstruction, ARepeatedInstructionSaysHowMuchIsLeft) {
  EXPECT_EQ(decode("f3 48 ab", at_a_page(), kOnePage).remaining, 800U);
  EXPECT_EQ(decode("f3 a4", at_a_page(), kOnePage).remaining, 100U);
  EXPECT_EQ(decode("48 ab", at_a_page(), kOnePage).remaining, std::nullopt);
}

// A relative target would be told from 0.
TEST(StoreInstruction, WhereACallGoesToIsNotShown) {
  StoreRegisters registers{};
  registers[kRsp] = kOnePage + 8;
  EXPECT_EQ(decode("e8 00 01 00 00", registers, kOnePage).text, "call");
  EXPECT_EQ(decode("ff d0", registers, kOnePage).text, "call rax");
}

}  // namespace
}  // namespace cowshed::cow
