#include <csetjmp>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#include <cowshed/cow/store_instruction.h>

namespace cowshed::cow {
namespace {

using Bytes = std::vector<std::uint8_t>;

struct Row {
  const char* assembly;  // AT&T, from which an assembler made the bytes
  Bytes code;
  StoreKind kind;
  unsigned width;
  std::optional<std::int64_t> amount;
  bool locked;
};

const Row rows[] = {
    {"movb $1,(%rdi)", Bytes{0xc6, 0x07, 0x01}, StoreKind::store, 1, std::nullopt, false},
    {"movw $1,(%rdi)", Bytes{0x66, 0xc7, 0x07, 0x01, 0x00}, StoreKind::store, 2, std::nullopt,
     false},
    {"movl $1,(%rdi)", Bytes{0xc7, 0x07, 0x01, 0x00, 0x00, 0x00}, StoreKind::store, 4, std::nullopt,
     false},
    {"movq $1,(%rdi)", Bytes{0x48, 0xc7, 0x07, 0x01, 0x00, 0x00, 0x00}, StoreKind::store, 8,
     std::nullopt, false},
    {"movq %rax,8(%rdi)", Bytes{0x48, 0x89, 0x47, 0x08}, StoreKind::store, 8, std::nullopt, false},
    {"movb %ah,(%rdi)", Bytes{0x88, 0x27}, StoreKind::store, 1, std::nullopt, false},
    {"movq %rax,(%rdi,%rcx,8)", Bytes{0x48, 0x89, 0x04, 0xcf}, StoreKind::store, 8, std::nullopt,
     false},
    {"movntiq %rax,(%rdi)", Bytes{0x48, 0x0f, 0xc3, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"movntil %eax,(%rdi)", Bytes{0x0f, 0xc3, 0x07}, StoreKind::store, 4, std::nullopt, false},
    {"movbeq %rax,(%rdi)", Bytes{0x48, 0x0f, 0x38, 0xf1, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"setae (%rdi)", Bytes{0x0f, 0x93, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"seta (%rdi)", Bytes{0x0f, 0x97, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setbe (%rdi)", Bytes{0x0f, 0x96, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setb (%rdi)", Bytes{0x0f, 0x92, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"sete (%rdi)", Bytes{0x0f, 0x94, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setge (%rdi)", Bytes{0x0f, 0x9d, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setg (%rdi)", Bytes{0x0f, 0x9f, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setle (%rdi)", Bytes{0x0f, 0x9e, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setl (%rdi)", Bytes{0x0f, 0x9c, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setne (%rdi)", Bytes{0x0f, 0x95, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setno (%rdi)", Bytes{0x0f, 0x91, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setnp (%rdi)", Bytes{0x0f, 0x9b, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setns (%rdi)", Bytes{0x0f, 0x99, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"seto (%rdi)", Bytes{0x0f, 0x90, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"setp (%rdi)", Bytes{0x0f, 0x9a, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"sets (%rdi)", Bytes{0x0f, 0x98, 0x07}, StoreKind::store, 1, std::nullopt, false},
    {"movd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x7e, 0x07}, StoreKind::store, 4, std::nullopt, false},
    {"movq %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0xd6, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"movd %mm0,(%rdi)", Bytes{0x0f, 0x7e, 0x07}, StoreKind::store, 4, std::nullopt, false},
    {"movq %mm0,(%rdi)", Bytes{0x0f, 0x7f, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"movss %xmm0,(%rdi)", Bytes{0xf3, 0x0f, 0x11, 0x07}, StoreKind::store, 4, std::nullopt, false},
    {"movsd %xmm0,(%rdi)", Bytes{0xf2, 0x0f, 0x11, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"movlps %xmm0,(%rdi)", Bytes{0x0f, 0x13, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"movlpd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x13, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"movhps %xmm0,(%rdi)", Bytes{0x0f, 0x17, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"movhpd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x17, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"movntq %mm0,(%rdi)", Bytes{0x0f, 0xe7, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"vmovd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x7e, 0x07}, StoreKind::store, 4, std::nullopt, false},
    {"vmovq %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0xd6, 0x07}, StoreKind::store, 8, std::nullopt, false},
    {"vmovss %xmm0,(%rdi)", Bytes{0xc5, 0xfa, 0x11, 0x07}, StoreKind::store, 4, std::nullopt,
     false},
    {"vmovsd %xmm0,(%rdi)", Bytes{0xc5, 0xfb, 0x11, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"vmovlps %xmm0,(%rdi)", Bytes{0xc5, 0xf8, 0x13, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"vmovlpd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x13, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"vmovhps %xmm0,(%rdi)", Bytes{0xc5, 0xf8, 0x17, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"vmovhpd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x17, 0x07}, StoreKind::store, 8, std::nullopt,
     false},
    {"pextrb $1,%xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x3a, 0x14, 0x07, 0x01}, StoreKind::store, 1,
     std::nullopt, false},
    {"pextrw $1,%xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x3a, 0x15, 0x07, 0x01}, StoreKind::store, 2,
     std::nullopt, false},
    {"pextrd $1,%xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x3a, 0x16, 0x07, 0x01}, StoreKind::store, 4,
     std::nullopt, false},
    {"pextrq $1,%xmm0,(%rdi)", Bytes{0x66, 0x48, 0x0f, 0x3a, 0x16, 0x07, 0x01}, StoreKind::store, 8,
     std::nullopt, false},
    {"extractps $1,%xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x3a, 0x17, 0x07, 0x01}, StoreKind::store, 4,
     std::nullopt, false},
    {"vpextrb $1,%xmm0,(%rdi)", Bytes{0xc4, 0xe3, 0x79, 0x14, 0x07, 0x01}, StoreKind::store, 1,
     std::nullopt, false},
    {"vpextrw $1,%xmm0,(%rdi)", Bytes{0xc4, 0xe3, 0x79, 0x15, 0x07, 0x01}, StoreKind::store, 2,
     std::nullopt, false},
    {"vpextrd $1,%xmm0,(%rdi)", Bytes{0xc4, 0xe3, 0x79, 0x16, 0x07, 0x01}, StoreKind::store, 4,
     std::nullopt, false},
    {"vpextrq $1,%xmm0,(%rdi)", Bytes{0xc4, 0xe3, 0xf9, 0x16, 0x07, 0x01}, StoreKind::store, 8,
     std::nullopt, false},
    {"vextractps $1,%xmm0,(%rdi)", Bytes{0xc4, 0xe3, 0x79, 0x17, 0x07, 0x01}, StoreKind::store, 4,
     std::nullopt, false},
    {"fsts (%rdi)", Bytes{0xd9, 0x17}, StoreKind::store, 4, std::nullopt, false},
    {"fstl (%rdi)", Bytes{0xdd, 0x17}, StoreKind::store, 8, std::nullopt, false},
    {"fstps (%rdi)", Bytes{0xd9, 0x1f}, StoreKind::store, 4, std::nullopt, false},
    {"fstpl (%rdi)", Bytes{0xdd, 0x1f}, StoreKind::store, 8, std::nullopt, false},
    {"fstpt (%rdi)", Bytes{0xdb, 0x3f}, StoreKind::store, 10, std::nullopt, false},
    {"fists (%rdi)", Bytes{0xdf, 0x17}, StoreKind::store, 2, std::nullopt, false},
    {"fistl (%rdi)", Bytes{0xdb, 0x17}, StoreKind::store, 4, std::nullopt, false},
    {"fistps (%rdi)", Bytes{0xdf, 0x1f}, StoreKind::store, 2, std::nullopt, false},
    {"fistpl (%rdi)", Bytes{0xdb, 0x1f}, StoreKind::store, 4, std::nullopt, false},
    {"fistpll (%rdi)", Bytes{0xdf, 0x3f}, StoreKind::store, 8, std::nullopt, false},
    {"fisttps (%rdi)", Bytes{0xdf, 0x0f}, StoreKind::store, 2, std::nullopt, false},
    {"fisttpl (%rdi)", Bytes{0xdb, 0x0f}, StoreKind::store, 4, std::nullopt, false},
    {"fisttpll (%rdi)", Bytes{0xdd, 0x0f}, StoreKind::store, 8, std::nullopt, false},
    {"fnstcw (%rdi)", Bytes{0xd9, 0x3f}, StoreKind::store, 2, std::nullopt, false},
    {"fnstsw (%rdi)", Bytes{0xdd, 0x3f}, StoreKind::store, 2, std::nullopt, false},
    {"stmxcsr (%rdi)", Bytes{0x0f, 0xae, 0x1f}, StoreKind::store, 4, std::nullopt, false},
    {"vstmxcsr (%rdi)", Bytes{0xc5, 0xf8, 0xae, 0x1f}, StoreKind::store, 4, std::nullopt, false},
    {"stosb", Bytes{0xaa}, StoreKind::store, 1, std::nullopt, false},
    {"stosw", Bytes{0x66, 0xab}, StoreKind::store, 2, std::nullopt, false},
    {"stosl", Bytes{0xab}, StoreKind::store, 4, std::nullopt, false},
    {"stosq", Bytes{0x48, 0xab}, StoreKind::store, 8, std::nullopt, false},
    {"movsb", Bytes{0xa4}, StoreKind::store, 1, std::nullopt, false},
    {"movsw", Bytes{0x66, 0xa5}, StoreKind::store, 2, std::nullopt, false},
    {"movsl", Bytes{0xa5}, StoreKind::store, 4, std::nullopt, false},
    {"movsq", Bytes{0x48, 0xa5}, StoreKind::store, 8, std::nullopt, false},
    {"addl $1,(%rdi)", Bytes{0x83, 0x07, 0x01}, StoreKind::add, 4, 1, false},
    {"addq $1,(%rdi)", Bytes{0x48, 0x83, 0x07, 0x01}, StoreKind::add, 8, 1, false},
    {"addq $-1,(%rdi)", Bytes{0x48, 0x83, 0x07, 0xff}, StoreKind::add, 8, -1, false},
    {"addb $255,(%rdi)", Bytes{0x80, 0x07, 0xff}, StoreKind::add, 1, -1, false},
    {"addl $1000,(%rdi)", Bytes{0x81, 0x07, 0xe8, 0x03, 0x00, 0x00}, StoreKind::add, 4, 1000,
     false},
    {"subl $1,(%rdi)", Bytes{0x83, 0x2f, 0x01}, StoreKind::add, 4, -1, false},
    {"subq $1,(%rdi)", Bytes{0x48, 0x83, 0x2f, 0x01}, StoreKind::add, 8, -1, false},
    {"incl (%rdi)", Bytes{0xff, 0x07}, StoreKind::add, 4, 1, false},
    {"incq (%rdi)", Bytes{0x48, 0xff, 0x07}, StoreKind::add, 8, 1, false},
    {"decw (%rdi)", Bytes{0x66, 0xff, 0x0f}, StoreKind::add, 2, -1, false},
    {"decq (%rdi)", Bytes{0x48, 0xff, 0x0f}, StoreKind::add, 8, -1, false},
    {"addl %edx,(%rdi)", Bytes{0x01, 0x17}, StoreKind::add, 4, -1, false},
    {"subq %rbx,(%rdi)", Bytes{0x48, 0x29, 0x1f}, StoreKind::add, 8, -1, false},
    {"lock addl $1,(%rdi)", Bytes{0xf0, 0x83, 0x07, 0x01}, StoreKind::add, 4, 1, true},
    {"lock subl $1,(%rdi)", Bytes{0xf0, 0x83, 0x2f, 0x01}, StoreKind::add, 4, -1, true},
    {"lock incq (%rdi)", Bytes{0xf0, 0x48, 0xff, 0x07}, StoreKind::add, 8, 1, true},
    {"lock decl (%rdi)", Bytes{0xf0, 0xff, 0x0f}, StoreKind::add, 4, -1, true},
    {"lock xaddl %edx,(%rdi)", Bytes{0xf0, 0x0f, 0xc1, 0x17}, StoreKind::add, 4, -1, true},
    {"xaddq %rbx,(%rdi)", Bytes{0x48, 0x0f, 0xc1, 0x1f}, StoreKind::add, 8, 1, false},
    {"adcl $1,(%rdi)", Bytes{0x83, 0x17, 0x01}, StoreKind::modify, 4, std::nullopt, false},
    {"sbbq %rax,(%rdi)", Bytes{0x48, 0x19, 0x07}, StoreKind::modify, 8, std::nullopt, false},
    {"andl $1,(%rdi)", Bytes{0x83, 0x27, 0x01}, StoreKind::modify, 4, std::nullopt, false},
    {"orb $1,(%rdi)", Bytes{0x80, 0x0f, 0x01}, StoreKind::modify, 1, std::nullopt, false},
    {"lock orq $1,(%rdi)", Bytes{0xf0, 0x48, 0x83, 0x0f, 0x01}, StoreKind::modify, 8, std::nullopt,
     true},
    {"xorl %eax,(%rdi)", Bytes{0x31, 0x07}, StoreKind::modify, 4, std::nullopt, false},
    {"notq (%rdi)", Bytes{0x48, 0xf7, 0x17}, StoreKind::modify, 8, std::nullopt, false},
    {"negl (%rdi)", Bytes{0xf7, 0x1f}, StoreKind::modify, 4, std::nullopt, false},
    {"shll $1,(%rdi)", Bytes{0xd1, 0x27}, StoreKind::modify, 4, std::nullopt, false},
    {"shrq $3,(%rdi)", Bytes{0x48, 0xc1, 0x2f, 0x03}, StoreKind::modify, 8, std::nullopt, false},
    {"sarl %cl,(%rdi)", Bytes{0xd3, 0x3f}, StoreKind::modify, 4, std::nullopt, false},
    {"roll $3,(%rdi)", Bytes{0xc1, 0x07, 0x03}, StoreKind::modify, 4, std::nullopt, false},
    {"rorq %cl,(%rdi)", Bytes{0x48, 0xd3, 0x0f}, StoreKind::modify, 8, std::nullopt, false},
    {"rcll $1,(%rdi)", Bytes{0xd1, 0x17}, StoreKind::modify, 4, std::nullopt, false},
    {"rcrl $1,(%rdi)", Bytes{0xd1, 0x1f}, StoreKind::modify, 4, std::nullopt, false},
    {"shldq $3,%rax,(%rdi)", Bytes{0x48, 0x0f, 0xa4, 0x07, 0x03}, StoreKind::modify, 8,
     std::nullopt, false},
    {"shrdl $3,%eax,(%rdi)", Bytes{0x0f, 0xac, 0x07, 0x03}, StoreKind::modify, 4, std::nullopt,
     false},
    {"btsl $3,(%rdi)", Bytes{0x0f, 0xba, 0x2f, 0x03}, StoreKind::modify, 4, std::nullopt, false},
    {"lock btsl $3,(%rdi)", Bytes{0xf0, 0x0f, 0xba, 0x2f, 0x03}, StoreKind::modify, 4, std::nullopt,
     true},
    {"btsq %rbp,(%rdi)", Bytes{0x48, 0x0f, 0xab, 0x2f}, StoreKind::modify, 8, std::nullopt, false},
    {"btrl $3,(%rdi)", Bytes{0x0f, 0xba, 0x37, 0x03}, StoreKind::modify, 4, std::nullopt, false},
    {"btcl $3,(%rdi)", Bytes{0x0f, 0xba, 0x3f, 0x03}, StoreKind::modify, 4, std::nullopt, false},
    {"xchgl %eax,(%rdi)", Bytes{0x87, 0x07}, StoreKind::exchange, 4, std::nullopt, true},
    {"xchgq %rax,(%rdi)", Bytes{0x48, 0x87, 0x07}, StoreKind::exchange, 8, std::nullopt, true},
    {"cmpxchgl %edx,(%rdi)", Bytes{0x0f, 0xb1, 0x17}, StoreKind::exchange, 4, std::nullopt, false},
    {"lock cmpxchgl %edx,(%rdi)", Bytes{0xf0, 0x0f, 0xb1, 0x17}, StoreKind::exchange, 4,
     std::nullopt, true},
    {"lock cmpxchgq %rdx,(%rdi)", Bytes{0xf0, 0x48, 0x0f, 0xb1, 0x17}, StoreKind::exchange, 8,
     std::nullopt, true},
    {"lock cmpxchg8b (%rdi)", Bytes{0xf0, 0x0f, 0xc7, 0x0f}, StoreKind::exchange, 8, std::nullopt,
     true},
    {"lock cmpxchg16b (%rdi)", Bytes{0xf0, 0x48, 0x0f, 0xc7, 0x0f}, StoreKind::exchange, 16,
     std::nullopt, true},
    {"movups %xmm0,(%rdi)", Bytes{0x0f, 0x11, 0x07}, StoreKind::vector, 16, std::nullopt, false},
    {"movupd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x11, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"movaps %xmm0,(%rdi)", Bytes{0x0f, 0x29, 0x07}, StoreKind::vector, 16, std::nullopt, false},
    {"movapd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x29, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"movdqu %xmm0,(%rdi)", Bytes{0xf3, 0x0f, 0x7f, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"movdqa %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x7f, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"movntdq %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0xe7, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"movntps %xmm0,(%rdi)", Bytes{0x0f, 0x2b, 0x07}, StoreKind::vector, 16, std::nullopt, false},
    {"movntpd %xmm0,(%rdi)", Bytes{0x66, 0x0f, 0x2b, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovups %xmm0,(%rdi)", Bytes{0xc5, 0xf8, 0x11, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovups %ymm0,(%rdi)", Bytes{0xc5, 0xfc, 0x11, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovupd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x11, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovupd %ymm0,(%rdi)", Bytes{0xc5, 0xfd, 0x11, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovaps %xmm0,(%rdi)", Bytes{0xc5, 0xf8, 0x29, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovaps %ymm0,(%rdi)", Bytes{0xc5, 0xfc, 0x29, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovapd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x29, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovapd %ymm0,(%rdi)", Bytes{0xc5, 0xfd, 0x29, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovdqu %xmm0,(%rdi)", Bytes{0xc5, 0xfa, 0x7f, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovdqu %ymm0,(%rdi)", Bytes{0xc5, 0xfe, 0x7f, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovdqa %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x7f, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovdqa %ymm0,(%rdi)", Bytes{0xc5, 0xfd, 0x7f, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovntdq %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0xe7, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovntdq %ymm0,(%rdi)", Bytes{0xc5, 0xfd, 0xe7, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovntps %xmm0,(%rdi)", Bytes{0xc5, 0xf8, 0x2b, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovntps %ymm0,(%rdi)", Bytes{0xc5, 0xfc, 0x2b, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovntpd %xmm0,(%rdi)", Bytes{0xc5, 0xf9, 0x2b, 0x07}, StoreKind::vector, 16, std::nullopt,
     false},
    {"vmovntpd %ymm0,(%rdi)", Bytes{0xc5, 0xfd, 0x2b, 0x07}, StoreKind::vector, 32, std::nullopt,
     false},
    {"vmovdqu8 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0x7f, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqu16 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0xff, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqu32 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0x7e, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqu64 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqa32 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0x7d, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqa64 %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0xfd, 0x48, 0x7f, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovups %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0x7c, 0x48, 0x11, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovntdq %zmm0,(%rdi)", Bytes{0x62, 0xf1, 0x7d, 0x48, 0xe7, 0x07}, StoreKind::vector, 64,
     std::nullopt, false},
    {"vmovdqu8 %ymm16,(%rdi)", Bytes{0x62, 0xe1, 0x7f, 0x28, 0x7f, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vmovdqu64 %ymm16,(%rdi)", Bytes{0x62, 0xe1, 0xfe, 0x28, 0x7f, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vmovdqa64 %ymm16,(%rdi)", Bytes{0x62, 0xe1, 0xfd, 0x28, 0x7f, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vextractf128 $1,%ymm0,(%rdi)", Bytes{0xc4, 0xe3, 0x7d, 0x19, 0x07, 0x01}, StoreKind::vector,
     16, std::nullopt, false},
    {"vextracti128 $1,%ymm0,(%rdi)", Bytes{0xc4, 0xe3, 0x7d, 0x39, 0x07, 0x01}, StoreKind::vector,
     16, std::nullopt, false},
    {"vmaskmovps %ymm0,%ymm1,(%rdi)", Bytes{0xc4, 0xe2, 0x75, 0x2e, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vmaskmovpd %ymm0,%ymm1,(%rdi)", Bytes{0xc4, 0xe2, 0x75, 0x2f, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vpmaskmovd %ymm0,%ymm1,(%rdi)", Bytes{0xc4, 0xe2, 0x75, 0x8e, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"vpmaskmovq %ymm0,%ymm1,(%rdi)", Bytes{0xc4, 0xe2, 0xf5, 0x8e, 0x07}, StoreKind::vector, 32,
     std::nullopt, false},
    {"rep stosb", Bytes{0xf3, 0xaa}, StoreKind::fill, 1, std::nullopt, false},
    {"rep stosq", Bytes{0xf3, 0x48, 0xab}, StoreKind::fill, 8, std::nullopt, false},
    {"rep movsb", Bytes{0xf3, 0xa4}, StoreKind::copy, 1, std::nullopt, false},
    {"rep movsq", Bytes{0xf3, 0x48, 0xa5}, StoreKind::copy, 8, std::nullopt, false},
    {"rep movsl", Bytes{0xf3, 0xa5}, StoreKind::copy, 4, std::nullopt, false},
    {"vmovdqa %ymm0,(%rdi); vmovdqa %ymm0,0x20(%rdi)",
     Bytes{0xc5, 0xfd, 0x7f, 0x07, 0xc5, 0xfd, 0x7f, 0x47, 0x20}, StoreKind::fill, 32, std::nullopt,
     false},
    {"vmovdqa %ymm1,(%rdi); vmovdqa %ymm2,0x20(%rdi)",
     Bytes{0xc5, 0xfd, 0x7f, 0x0f, 0xc5, 0xfd, 0x7f, 0x57, 0x20}, StoreKind::copy, 32, std::nullopt,
     false},
    {"movups %xmm0,(%rdi); movups %xmm0,-0x10(%rdi)",
     Bytes{0x0f, 0x11, 0x07, 0x0f, 0x11, 0x47, 0xf0}, StoreKind::fill, 16, std::nullopt, false},
    {"movups %xmm0,(%rdi); movups %xmm0,0x40(%rdi)",
     Bytes{0x0f, 0x11, 0x07, 0x0f, 0x11, 0x47, 0x40}, StoreKind::vector, 16, std::nullopt, false},
    {"movups %xmm0,(%rdi); movups %xmm1,0x10(%rsi)",
     Bytes{0x0f, 0x11, 0x07, 0x0f, 0x11, 0x4e, 0x10}, StoreKind::vector, 16, std::nullopt, false},
    {"pushq %rax", Bytes{0x50}, StoreKind::push, 8, std::nullopt, false},
    {"pushq $1", Bytes{0x6a, 0x01}, StoreKind::push, 8, std::nullopt, false},
    {"pushq (%rsi)", Bytes{0xff, 0x36}, StoreKind::push, 8, std::nullopt, false},
    {"pushw %ax", Bytes{0x66, 0x50}, StoreKind::push, 2, std::nullopt, false},
    {"pushfq", Bytes{0x9c}, StoreKind::push, 8, std::nullopt, false},
    {"call .+5", Bytes{0xe8, 0x00, 0x00, 0x00, 0x00}, StoreKind::call, 8, std::nullopt, false},
    {"call *%rax", Bytes{0xff, 0xd0}, StoreKind::call, 8, std::nullopt, false},
    {"call *(%rsi)", Bytes{0xff, 0x16}, StoreKind::call, 8, std::nullopt, false},
    {"fxsave (%rdi)", Bytes{0x0f, 0xae, 0x07}, StoreKind::state, 0, std::nullopt, false},
    {"fxsave64 (%rdi)", Bytes{0x48, 0x0f, 0xae, 0x07}, StoreKind::state, 0, std::nullopt, false},
    {"xsave (%rdi)", Bytes{0x0f, 0xae, 0x27}, StoreKind::state, 0, std::nullopt, false},
    {"xsave64 (%rdi)", Bytes{0x48, 0x0f, 0xae, 0x27}, StoreKind::state, 0, std::nullopt, false},
    {"xsavec (%rdi)", Bytes{0x0f, 0xc7, 0x27}, StoreKind::state, 0, std::nullopt, false},
    {"xsavec64 (%rdi)", Bytes{0x48, 0x0f, 0xc7, 0x27}, StoreKind::state, 0, std::nullopt, false},
    {"xsaveopt (%rdi)", Bytes{0x0f, 0xae, 0x37}, StoreKind::state, 0, std::nullopt, false},
    {"xsaveopt64 (%rdi)", Bytes{0x48, 0x0f, 0xae, 0x37}, StoreKind::state, 0, std::nullopt, false},
    {"fnsave (%rdi)", Bytes{0xdd, 0x37}, StoreKind::state, 0, std::nullopt, false},
    {"fnstenv (%rdi)", Bytes{0xd9, 0x37}, StoreKind::state, 0, std::nullopt, false},
};

constexpr std::size_t kPage = 4096;
constexpr std::size_t kRdx = 1;
constexpr std::size_t kRcx = 2;
constexpr std::size_t kRbx = 3;
constexpr std::size_t kRdi = 5;
constexpr std::size_t kRbp = 6;
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
  for (std::size_t i = 0; i < caught.registers.size(); ++i) {
    caught.registers[i] = static_cast<std::uint64_t>(machine->gregs[kOrder[i]]);
  }
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
    for (std::uint8_t* page : {code_, readable_, target_}) ::munmap(page, kPage);
  }

  StoreRegisters registers() const {
    StoreRegisters values{};
    values.fill(reinterpret_cast<std::uintptr_t>(readable_));
    values[kRdx] = ~std::uint64_t{0};
    values[kRcx] = 16;
    values[kRbx] = 1;
    values[kRdi] = target();
    values[kRbp] = 130;  // a bit's number
    values[kRsp] = target() + 64;
    values[kRip] = reinterpret_cast<std::uintptr_t>(code_);
    return values;
  }
  std::uint64_t target() const { return reinterpret_cast<std::uintptr_t>(target_) + kPage / 2; }

  const Fault& run(const Bytes& code) {
    constexpr int kNoInstruction = 0x06;
    std::memset(code_, kNoInstruction, kPage);
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
        ::mmap(nullptr, kPage, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  Processor processor;
  int run = 0;
  for (const Row& row : rows) {
    SCOPED_TRACE(row.assembly);
    Fault fault = processor.run(row.code);
    if (fault.signal == SIGILL) {
      fault = imagined(processor);
    } else {
      ++run;
    }
    ASSERT_EQ(fault.signal, SIGSEGV);
    ASSERT_TRUE(fault.is_write);
    ASSERT_EQ(fault.registers[kRip], processor.registers()[kRip]);
    const StoreInstruction store = decoder->decode(row.code, fault.registers, fault.address);
    EXPECT_EQ(to_string(store.kind), to_string(row.kind)) << store.text;
    EXPECT_EQ(store.width, row.width) << store.text;
    EXPECT_EQ(store.amount, row.amount) << store.text;
    EXPECT_EQ(store.locked, row.locked) << store.text;
    EXPECT_FALSE(store.text.empty());
  }
  EXPECT_GT(run, 130);
}

TEST(StoreInstruction, AnotherAddressThanTheOperandsIsNotBelieved) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const Processor processor;
  constexpr std::uint64_t kFar = 1 << 20;
  for (const Row& row : rows) {
    const auto store = decoder->decode(row.code, processor.registers(), processor.target() + kFar);
    EXPECT_EQ(store.kind, StoreKind::unknown) << row.assembly;
  }
}

TEST(StoreInstruction, WhatDoesNotWriteToMemoryIsUnknown) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const Processor processor;
  const Bytes loads[] = {
      {0x48, 0x8b, 0x07},              // mov (%rdi),%rax
      {0x48, 0x83, 0x3f, 0x01},        // cmpq $1,(%rdi)
      {0xf6, 0x07, 0x01},              // testb $1,(%rdi)
      {0x48, 0x03, 0x07},              // add (%rdi),%rax
      {0xf3, 0x0f, 0x6f, 0x07},        // movdqu (%rdi),%xmm0
      {0x48, 0x0f, 0xba, 0x27, 0x03},  // btq $3,(%rdi)
      {0x48, 0x89, 0xf8},              // mov %rdi,%rax
      {0x0f, 0x0b},                    // ud2
      {0x0f},                          // half an instruction
      {},
  };
  for (const Bytes& code : loads) {
    const auto store = decoder->decode(code, processor.registers(), processor.target());
    EXPECT_EQ(store.kind, StoreKind::unknown) << store.text;
  }
}

TEST(StoreInstruction, AStoreThatCrossesAPageFaultsBehindItsBeginning) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const Bytes store_bytes = {0x48, 0x89, 0x07};  // mov %rax,(%rdi)
  StoreRegisters registers{};
  registers[kRdi] = 2 * kPage - 3;
  EXPECT_EQ(decoder->decode(store_bytes, registers, 2 * kPage).kind, StoreKind::store);
  EXPECT_EQ(decoder->decode(store_bytes, registers, 2 * kPage + 5).kind, StoreKind::unknown);
}

TEST(StoreInstruction, RipRelativeOperandsCountFromTheNextInstruction) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const Bytes store_bytes = {0x48, 0x83, 0x05, 0x10, 0x00, 0x00, 0x00, 0x01};  // addq $1,0x10(%rip)
  StoreRegisters registers{};
  registers[kRip] = 0x401000;
  EXPECT_EQ(decoder->decode(store_bytes, registers, 0x401018).kind, StoreKind::add);
  EXPECT_EQ(decoder->decode(store_bytes, registers, 0x401010).kind, StoreKind::unknown);
}

// Where fs points is not among the registers.
TEST(StoreInstruction, ThreadLocalOperandsAreBelieved) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const Bytes store_bytes = {0x64, 0x89, 0x04, 0x25, 0x10, 0x00, 0x00, 0x00};  // mov %eax,%fs:0x10
  const auto store = decoder->decode(store_bytes, {}, 0x7f0000000010);
  EXPECT_EQ(store.kind, StoreKind::store);
  EXPECT_EQ(store.width, 4U);
}

// What separates a count of references from another counter, and a list from an array.
TEST(StoreInstruction, TheNextInstructionsTellWhatTheFieldIs) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  const struct {
    const char* assembly;
    Bytes code;
    std::optional<std::int64_t> displacement;
    bool walks_list;
    bool advances;
  } cases[] = {
      {"subq $1,(%rdi); je", {0x48, 0x83, 0x2f, 0x01, 0x74, 0x05}, 0, false, false},
      {"addq $1,(%rdi); add $8,%rdi",
       {0x48, 0x83, 0x07, 0x01, 0x48, 0x83, 0xc7, 0x08},
       0,
       false,
       true},
      {"mov %rax,8(%rdi); mov (%rdi),%rdi",
       {0x48, 0x89, 0x47, 0x08, 0x48, 0x8b, 0x3f},
       8,
       true,
       false},
      {"mov %rax,8(%rdi); mov (%rsi),%rdi",
       {0x48, 0x89, 0x47, 0x08, 0x48, 0x8b, 0x3e},
       8,
       false,
       false},
      {"mov %rax,8(%rdi); jmp; mov (%rdi),%rdi",
       {0x48, 0x89, 0x47, 0x08, 0xeb, 0x00, 0x48, 0x8b, 0x3f},
       8,
       false,
       false},
      {"addq $1,(%rdi,%rcx,8)", {0x48, 0x83, 0x04, 0xcf, 0x01}, std::nullopt, false, false},
  };
  StoreRegisters registers{};
  registers[kRdi] = kPage;
  for (const auto& each : cases) {
    const auto store = decoder->decode(
        each.code, registers, kPage + static_cast<std::uint64_t>(each.displacement.value_or(0)));
    EXPECT_NE(store.kind, StoreKind::unknown) << each.assembly;
    EXPECT_EQ(store.displacement, each.displacement) << each.assembly;
    EXPECT_EQ(store.walks_list, each.walks_list) << each.assembly;
    EXPECT_EQ(store.advances, each.advances) << each.assembly;
  }
  registers[1] = ~std::uint64_t{0};  // rdx
  const struct {
    const char* assembly;
    Bytes code;
    bool releases;
  } counts[] = {
      {"lock subl $1,(%rdi); je", {0xf0, 0x83, 0x2f, 0x01, 0x74, 0x05}, true},
      {"lock decq (%rdi); jne", {0xf0, 0x48, 0xff, 0x0f, 0x75, 0x05}, true},
      {"lock decq (%rdi); js", {0xf0, 0x48, 0xff, 0x0f, 0x78, 0x05}, false},
      {"lock incq (%rdi); je", {0xf0, 0x48, 0xff, 0x07, 0x74, 0x05}, false},
      {"subl $1,(%rdi); je", {0x83, 0x2f, 0x01, 0x74, 0x05}, false},
      {"lock xaddl %edx,(%rdi); subl $1,%edx", {0xf0, 0x0f, 0xc1, 0x17, 0x83, 0xea, 0x01}, true},
      {"lock xaddl %edx,(%rdi); cmpl $1,%edx", {0xf0, 0x0f, 0xc1, 0x17, 0x83, 0xfa, 0x01}, true},
      {"lock xaddl %edx,(%rdi); cmpl $1,%eax", {0xf0, 0x0f, 0xc1, 0x17, 0x83, 0xf8, 0x01}, false},
      {"lock xaddl %edx,(%rdi); addl $1,%edx", {0xf0, 0x0f, 0xc1, 0x17, 0x83, 0xc2, 0x01}, false},
  };
  for (const auto& each : counts) {
    EXPECT_EQ(decoder->decode(each.code, registers, kPage).releases, each.releases)
        << each.assembly;
  }
}

TEST(StoreInstruction, OneBitIsToldFromMasks) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  StoreRegisters registers{};
  registers[kRdi] = kPage;
  const struct {
    const char* assembly;
    Bytes code;
    bool changes_bit;
  } cases[] = {
      {"orb $1,(%rdi)", {0x80, 0x0f, 0x01}, true},
      {"orb $0x80,(%rdi)", {0x80, 0x0f, 0x80}, true},
      {"orl $0x80000000,(%rdi)", {0x81, 0x0f, 0x00, 0x00, 0x00, 0x80}, true},
      {"andl $~4,(%rdi)", {0x83, 0x27, 0xfb}, true},
      {"andq $~4,(%rdi)", {0x48, 0x83, 0x27, 0xfb}, true},
      {"andb $0x7f,(%rdi)", {0x80, 0x27, 0x7f}, true},
      {"btsl $3,(%rdi)", {0x0f, 0xba, 0x2f, 0x03}, true},
      {"btrl $3,(%rdi)", {0x0f, 0xba, 0x37, 0x03}, true},
      {"orq $-1,(%rdi)", {0x48, 0x83, 0x0f, 0xff}, false},
      {"orl $7,(%rdi)", {0x83, 0x0f, 0x07}, false},
      {"orl $0,(%rdi)", {0x83, 0x0f, 0x00}, false},
      {"or %al,(%rdi)", {0x08, 0x07}, false},
      {"andq $-2,(%rdi)", {0x48, 0x83, 0x27, 0xfe}, false},
      {"andq $-8,(%rdi)", {0x48, 0x83, 0x27, 0xf8}, false},
      {"andl $-16,(%rdi)", {0x83, 0x27, 0xf0}, false},
      {"andl $0xff,(%rdi)", {0x81, 0x27, 0xff, 0x00, 0x00, 0x00}, false},
      {"andl $0,(%rdi)", {0x83, 0x27, 0x00}, false},
      {"xorl $4,(%rdi)", {0x83, 0x37, 0x04}, false},
      {"addl $4,(%rdi)", {0x83, 0x07, 0x04}, false},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(decoder->decode(each.code, registers, kPage).changes_bit, each.changes_bit)
        << each.assembly;
  }
}

TEST(StoreInstruction, StoresPastTheCachesAreTold) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  StoreRegisters registers{};
  registers[kRdi] = kPage;
  const Bytes past = {0xc5, 0xfd, 0xe7, 0x07};  // vmovntdq %ymm0,(%rdi)
  EXPECT_TRUE(decoder->decode(past, registers, kPage).streams);
  const Bytes plain = {0xc5, 0xfe, 0x7f, 0x07};  // vmovdqu %ymm0,(%rdi)
  EXPECT_FALSE(decoder->decode(plain, registers, kPage).streams);
}

TEST(StoreInstruction, ARepeatedInstructionSaysHowMuchIsLeft) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  StoreRegisters registers{};
  registers[kRdi] = kPage;
  registers[kRcx] = 100;
  EXPECT_EQ(decoder->decode(Bytes{0xf3, 0x48, 0xab}, registers, kPage).remaining, 800U);
  EXPECT_EQ(decoder->decode(Bytes{0xf3, 0xa4}, registers, kPage).remaining, 100U);
  EXPECT_EQ(decoder->decode(Bytes{0x48, 0xab}, registers, kPage).remaining, std::nullopt);
}

// A relative target would be told from 0.
TEST(StoreInstruction, WhereACallGoesToIsNotShown) {
  const auto decoder = StoreDecoder::open();
  ASSERT_TRUE(decoder) << decoder.error().message;
  StoreRegisters registers{};
  registers[static_cast<std::size_t>(Register::rsp)] = kPage + 8;
  EXPECT_EQ(decoder->decode(Bytes{0xe8, 0, 1, 0, 0}, registers, kPage).text, "call");
  EXPECT_EQ(decoder->decode(Bytes{0xff, 0xd0}, registers, kPage).text, "call rax");
}

}  // namespace
}  // namespace cowshed::cow
