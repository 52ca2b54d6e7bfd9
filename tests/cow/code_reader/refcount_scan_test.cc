#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/tests/cow/machine_code.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

using Sites = std::map<CounterField, std::size_t>;

TEST(ReleaseSites, FindsEveryWayToTakeOneOffAndJump) {
  const struct {
    const char* assembly;
    const char* code;
    CounterField field;
  } rows[] = {
      {"subq $1,(%rbx); je", "48 83 2b 01 74 05", {0, 8}},
      {"subq $1,(%r12); jne", "49 83 2c 24 01 75 05", {0, 8}},
      {"subl $1,8(%rax); je near", "83 68 08 01 0f 84 00 00 00 00", {8, 4}},
      {"addq $-1,16(%rdi); jne near", "48 83 47 10 ff 0f 85 00 00 00 00", {16, 8}},
      {"lock subl $1,4(%r13); jne", "f0 41 83 6d 04 01 75 05", {4, 4}},
      {"lock decl (%rdi); je", "f0 ff 0f 74 05", {0, 4}},
      {"decq 8(%rdi); je", "48 ff 4f 08 74 05", {8, 8}},
      {"lock xaddl %eax,8(%rdi); cmpl $1,%eax", "f0 0f c1 47 08 83 f8 01", {8, 4}},
      {"leal -1(%rax),%edx; movl %edx,8(%r15); cmpl $1,%eax; jne",
       "8d 50 ff 41 89 57 08 83 f8 01 0f 85 6a ff ff ff",
       {8, 4}},
      {"leaq -1(%r8),%rdx; movq %rdx,(%rbx); cmpq $1,%r8; je",
       "49 8d 50 ff 48 89 13 49 83 f8 01 74 07",
       {0, 8}},
      {"lock xaddl %eax,0x80(%rdi); subl $1,%eax", "f0 0f c1 87 80 00 00 00 83 e8 01", {0x80, 4}},
      {"lock xaddq %rax,(%rdi); cmpq $1,%rax", "f0 48 0f c1 07 48 83 f8 01", {0, 8}},
  };
  for (const auto& row : rows) {
    const Bytes bytes = bytes_of(row.code);
    Bytes code(64, 0x90);
    std::ranges::copy(bytes, code.begin() + 20);
    EXPECT_EQ(release_sites(code), (Sites{{row.field, 1}})) << row.assembly;
    EXPECT_EQ(release_sites(bytes), (Sites{{row.field, 1}})) << row.assembly;
    for (std::size_t n = 0; n + 1 < bytes.size(); ++n)  // cut off: nothing read behind the end
      release_sites(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)));
  }
}

TEST(ReleaseSites, WhatOnlyCountsIsNone) {
  const char* others[] = {
      "48 83 03 01 74 05",                    // addq $1,(%rbx); je
      "48 83 2b 02 74 05",                    // subq $2,(%rbx); je
      "48 83 2b 01 90",                       // subq $1,(%rbx); nop
      "48 83 2b 01 78 05",                    // subq $1,(%rbx); js
      "48 83 eb 01 74 05",                    // subq $1,%rbx; je
      "48 83 2c cb 01 74 05",                 // subq $1,(%rbx,%rcx,8); je
      "48 83 2d 10 00 00 00 01 74 05",        // subq $1,16(%rip); je
      "ff 0f 74 05",                          // decl (%rdi); je: or the end of a call
      "8d 50 fe 41 89 57 08 83 f8 01 74 05",  // leal -2(%rax),%edx; ...
      "8d 50 ff 41 89 57 08 83 f8 01 78 05",  // ...; js
      "8d 50 ff 41 89 57 08 83 f8 02 74 05",  // ...; cmpl $2,%eax; je
      "8d 50 ff 41",                          // cut
      "",
  };
  for (const char* code : others) EXPECT_EQ(release_sites(bytes_of(code)), Sites{}) << code;
}

}  // namespace
}  // namespace cowshed::cow
