#include <cowshed/cow/release_places.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Places = std::map<CounterField, std::size_t>;

TEST(ReleasePlaces, FindsEveryWayToTakeOneOffAndJump) {
  const struct {
    const char* assembly;
    Bytes code;
    CounterField field;
  } rows[] = {
      {"subq $1,(%rbx); je", {0x48, 0x83, 0x2b, 0x01, 0x74, 0x05}, {0, 8}},
      {"subq $1,(%r12); jne", {0x49, 0x83, 0x2c, 0x24, 0x01, 0x75, 0x05}, {0, 8}},
      {"subl $1,8(%rax); je near", {0x83, 0x68, 0x08, 0x01, 0x0f, 0x84, 0, 0, 0, 0}, {8, 4}},
      {"addq $-1,16(%rdi); jne near",
       {0x48, 0x83, 0x47, 0x10, 0xff, 0x0f, 0x85, 0, 0, 0, 0},
       {16, 8}},
      {"lock subl $1,4(%r13); jne", {0xf0, 0x41, 0x83, 0x6d, 0x04, 0x01, 0x75, 0x05}, {4, 4}},
      {"lock decl (%rdi); je", {0xf0, 0xff, 0x0f, 0x74, 0x05}, {0, 4}},
      {"decq 8(%rdi); je", {0x48, 0xff, 0x4f, 0x08, 0x74, 0x05}, {8, 8}},
      {"lock xaddl %eax,8(%rdi); cmpl $1,%eax",
       {0xf0, 0x0f, 0xc1, 0x47, 0x08, 0x83, 0xf8, 0x01},
       {8, 4}},
      {"lock xaddl %eax,0x80(%rdi); subl $1,%eax",
       {0xf0, 0x0f, 0xc1, 0x87, 0x80, 0, 0, 0, 0x83, 0xe8, 0x01},
       {0x80, 4}},
      {"lock xaddq %rax,(%rdi); cmpq $1,%rax",
       {0xf0, 0x48, 0x0f, 0xc1, 0x07, 0x48, 0x83, 0xf8, 0x01},
       {0, 8}},
  };
  for (const auto& row : rows) {
    Bytes code(64, 0x90);
    std::copy(row.code.begin(), row.code.end(), code.begin() + 20);
    EXPECT_EQ(release_places(code), (Places{{row.field, 1}})) << row.assembly;
    EXPECT_EQ(release_places(row.code), (Places{{row.field, 1}})) << row.assembly;
    for (std::size_t n = 0; n + 1 < row.code.size(); ++n)  // cut off: nothing read behind the end
      release_places(Bytes(row.code.begin(), row.code.begin() + static_cast<std::ptrdiff_t>(n)));
  }
}

TEST(ReleasePlaces, WhatOnlyCountsIsNone) {
  const Bytes others[] = {
      {0x48, 0x83, 0x03, 0x01, 0x74, 0x05},              // addq $1,(%rbx); je
      {0x48, 0x83, 0x2b, 0x02, 0x74, 0x05},              // subq $2,(%rbx); je
      {0x48, 0x83, 0x2b, 0x01, 0x90},                    // subq $1,(%rbx); nop
      {0x48, 0x83, 0x2b, 0x01, 0x78, 0x05},              // subq $1,(%rbx); js
      {0x48, 0x83, 0xeb, 0x01, 0x74, 0x05},              // subq $1,%rbx; je
      {0x48, 0x83, 0x2c, 0xcb, 0x01, 0x74, 0x05},        // subq $1,(%rbx,%rcx,8); je
      {0x48, 0x83, 0x2d, 0x10, 0, 0, 0, 0x01, 0x74, 5},  // subq $1,16(%rip); je
      {0xff, 0x0f, 0x74, 0x05},                          // decl (%rdi); je: or the end of a call
      {},
  };
  for (const Bytes& code : others)
    EXPECT_EQ(release_places(code), Places{}) << (code.empty() ? 0 : code[code.size() - 1]);
}

}  // namespace
}  // namespace cowshed::cow
