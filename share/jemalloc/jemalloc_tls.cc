#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

// private_jemalloc_tls OBJECT: run at build time by cmake/PrivateJemallocObject.cmake.
//
// jemalloc finds a thread's data, 2.6 KiB, at a fixed offset from the thread's pointer.  That needs
// static TLS, of which dlopen() has less.  This program changes OBJECT so that each thread has the
// offset in a word of its own, cowshed_je_thread_block.  The instruction that loads the offset has
// 7 bytes, too few for that.  So the program replaces it by a jump to a stub, and writes the stubs
// to standard output, as assembly.  A stub changes the registers and flags that the instruction
// changed, and no others.

namespace {

constexpr std::array<const char*, 16> kRegisters = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                    "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                    "r12", "r13", "r14", "r15"};
constexpr std::size_t kStubSize = 48;

[[noreturn]] void fail(const std::string& why) {
  std::cerr << "private_jemalloc_tls: " << why << ": this libjemalloc_pic.a is not understood\n";
  std::exit(1);
}

class Object {
 public:
  explicit Object(std::vector<char> bytes) : bytes_(std::move(bytes)) {
    const auto& header = at<Elf64_Ehdr>(0);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64)
      fail("no object file for x86-64");
    sections_ = {&at<Elf64_Shdr>(header.e_shoff), header.e_shnum};
    names_ = &at<char>(sections_[header.e_shstrndx].sh_offset);
  }

  template <class T>
  T& at(std::size_t offset) {
    return *reinterpret_cast<T*>(bytes_.data() + offset);
  }
  std::span<Elf64_Shdr> sections() { return sections_; }
  std::string name(const Elf64_Shdr& section) { return names_ + section.sh_name; }
  template <class T>
  std::span<T> table(const Elf64_Shdr& section) {
    return {&at<T>(section.sh_offset), section.sh_size / sizeof(T)};
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
  std::span<Elf64_Shdr> sections_;
  const char* names_ = nullptr;
};

struct Symbols {
  std::span<Elf64_Sym> all;
  std::uint64_t data = 0;   // je_tsd_tls
  std::uint64_t stubs = 0;  // cowshed_je_tls_stubs
};

Symbols find_symbols(Object& object) {
  Symbols found;
  for (const Elf64_Shdr& section : object.sections()) {
    if (section.sh_type != SHT_SYMTAB) continue;
    found.all = object.table<Elf64_Sym>(section);
    const char* names = &object.at<char>(object.sections()[section.sh_link].sh_offset);
    for (std::size_t i = 0; i < found.all.size(); ++i) {
      const std::string name = names + found.all[i].st_name;
      if (name == "je_tsd_tls") found.data = i;
      if (name == "cowshed_je_tls_stubs") found.stubs = i;
    }
  }
  if (found.data == 0 || found.stubs == 0) fail("no je_tsd_tls");
  return found;
}

// An instruction: mov or add of je_tsd_tls@gottpoff(%rip) to a register.
struct Site {
  std::string back;  // the address after it
  bool adds;
  const char* to;
};

std::string stub(std::size_t number, const Site& site) {
  const std::string to = std::string("%") + site.to;
  const std::string other = to == "%rax" ? "%rcx" : "%rax";
  std::string text = "  .org " + std::to_string(number * kStubSize) + "\n";
  if (site.adds) {  // beyond the red zone
    text += "  lea -128(%rsp), %rsp\n  push " + other +
            "\n  mov cowshed_je_thread_block@gottpoff(%rip), " + other + "\n  add %fs:(" + other +
            "), " + to + "\n  pop " + other + "\n  lea 128(%rsp), %rsp\n";
  } else {
    text += "  mov cowshed_je_thread_block@gottpoff(%rip), " + to + "\n  mov %fs:(" + to + "), " +
            to + "\n";
  }
  return text + "  jmp " + site.back + "\n";
}

// Replaces the instruction of this relocation.  Returns the instruction.
Site redirect(Object& object, const Elf64_Shdr& code, Elf64_Rela& relocation,
              const Symbols& symbols, std::size_t number) {
  auto* const instruction = &object.at<unsigned char>(code.sh_offset + relocation.r_offset - 3);
  const unsigned rex = instruction[0];
  const unsigned operation = instruction[1];
  const unsigned operands = instruction[2];
  if ((rex & 0xfbU) != 0x48 || (operation != 0x8b && operation != 0x03) ||
      (operands & 0xc7U) != 0x05 || relocation.r_addend != -4) {
    fail("an unknown instruction uses je_tsd_tls");
  }
  Site site{"cowshed_je_text" + object.name(code) + " + " + std::to_string(relocation.r_offset + 4),
            operation == 0x03, kRegisters[(operands >> 3U & 7U) | (rex & 4U) << 1U]};
  constexpr std::array<unsigned char, 7> kJump = {0xe9, 0, 0, 0, 0, 0x66, 0x90};
  std::copy(kJump.begin(), kJump.end(), instruction);
  relocation.r_offset -= 2;
  relocation.r_info = ELF64_R_INFO(symbols.stubs, R_X86_64_PC32);
  relocation.r_addend += static_cast<std::int64_t>(number * kStubSize);
  return site;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: private_jemalloc_tls OBJECT\n";
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  Object object({std::istreambuf_iterator<char>(file), {}});
  const Symbols symbols = find_symbols(object);

  std::string stubs;
  std::size_t count = 0;
  for (const Elf64_Shdr& section : object.sections()) {
    if (section.sh_type != SHT_RELA) continue;
    const Elf64_Shdr& code = object.sections()[section.sh_info];
    for (Elf64_Rela& relocation : object.table<Elf64_Rela>(section)) {
      const std::uint64_t symbol = ELF64_R_SYM(relocation.r_info);
      const bool is_data = symbol == symbols.data;
      if (is_data && ELF64_R_TYPE(relocation.r_info) == R_X86_64_GOTTPOFF) {
        stubs += stub(count, redirect(object, code, relocation, symbols, count));
        ++count;
      } else if (is_data || ELF64_ST_TYPE(symbols.all[symbol].st_info) == STT_TLS) {
        fail("an unknown use of thread-local data");
      }
    }
  }
  if (count == 0) fail("nothing uses je_tsd_tls");

  // The initial value of each thread's data is constant.
  Elf64_Sym& data = symbols.all[symbols.data];
  data.st_info = static_cast<unsigned char>(ELF64_ST_INFO(ELF64_ST_BIND(data.st_info), STT_OBJECT));
  Elf64_Shdr& image = object.sections()[data.st_shndx];
  image.sh_flags &= ~static_cast<std::uint64_t>(SHF_TLS | SHF_WRITE);

  std::ofstream changed(argv[1], std::ios::binary);
  changed.write(object.bytes().data(), static_cast<std::streamsize>(object.bytes().size()));
  std::cout << "  .section .rodata\n  .balign 8\n"
               "  .globl cowshed_je_thread_data_size\n  .hidden cowshed_je_thread_data_size\n"
               "cowshed_je_thread_data_size:\n  .quad "
            << data.st_size
            << "\n  .section .text.cowshed_je_tls_stubs, \"ax\", @progbits\n  .balign 16\n"
               "  .globl cowshed_je_tls_stubs\ncowshed_je_tls_stubs:\n"
            << stubs;
  return changed.flush() && std::cout.flush() ? 0 : 1;
}
