// A program whose child copies pages from known lines: site_subject KIND PAGES [stop].

#include <algorithm>
#include <fcntl.h>
#include <fstream>
#include <pthread.h>
#include <string>

#include "known_copies.h"

extern "C" char end;  // the linker's: behind .bss

namespace site_subject {

constexpr std::size_t kBlock = 512 * kPage;
constexpr std::size_t kMostStatic = 2000;
constexpr std::size_t kFunctionDistance = 64;

using Page = volatile char*;

// In .data and in .bss, whole pages each.
char in_data[kMostStatic * kPage] = {1};
char in_bss[kMostStatic * kPage];

// The lines that the tests look for, each with its number.
// clang-format off
constexpr int kInlined = __LINE__; [[gnu::always_inline]] inline void store_inlined(Page page) { *page = 2; }
constexpr int kOften = __LINE__; [[gnu::noinline]] void copy_often(Page page) { *page = 1; }
constexpr int kSometimes = __LINE__; [[gnu::noinline]] void copy_sometimes(Page page) { store_inlined(page); asm volatile(""); }
constexpr int kSeldom = __LINE__; [[gnu::noinline]] void copy_seldom(Page page) { std::fill_n(const_cast<char*>(page), 1, 3); }
constexpr int kKernel = __LINE__; [[gnu::noinline]] void copy_by_kernel(int file, Page page) { if (pread(file, const_cast<char*>(page), 1, 0) != 1) std::abort(); }
// clang-format on

// Deeper than any copy of a stack.
[[gnu::noinline]] int copy_deeply(Page page, int depth) {
  volatile char frame[1000];
  frame[0] = static_cast<char>(depth);
  if (depth > 0) return copy_deeply(page, depth - 1) + frame[0];
  *page = 4;
  return 0;
}

Page map(std::size_t pages, std::uintptr_t at = 0) {
  void* mapped = mmap(reinterpret_cast<void*>(at), (pages + 1) * kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) std::abort();
  auto* memory = static_cast<Page>(mapped);
  for (std::size_t i = 0; i < pages; ++i) memory[i * kPage] = 1;
  return memory;
}

// A child copies each page, which has a number.
template <class Copy>
void copy_each(std::size_t pages, Copy copy) {
  const Page memory = map(pages);
  in_child([=] {
    for (std::size_t i = 0; i < pages; ++i) copy(memory + i * kPage, i);
  });
}

void shares(std::size_t pages) {
  copy_each(pages, [](Page page, std::size_t number) {
    const std::size_t turn = number % 10;
    if (turn < 7) copy_often(page);
    else if (turn < 9) copy_sometimes(page);
    else copy_seldom(page);
  });
}

void kernel(std::size_t pages) {
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  copy_each(pages, [=](Page page, std::size_t) { copy_by_kernel(file, page); });
}

void deep(std::size_t pages) {
  copy_each(pages, [](Page page, std::size_t) { copy_deeply(page, 100); });
}

void short_lived(std::size_t children) {
  constexpr std::size_t kPages = 10;
  const Page memory = map(kPages);
  for (std::size_t child = 0; child < children; ++child) {
    in_child([=] {
      for (std::size_t i = 0; i < kPages; ++i) copy_often(memory + i * kPage);
    });
  }
}

void mappings(std::size_t pages) {
  if (pages > kMostStatic) std::abort();
  auto* heap = static_cast<Page>(sbrk(static_cast<std::intptr_t>(pages * kPage)));
  // Right behind .bss, unless the heap is there, so that both are one mapping of the kernel's.
  const Page anonymous =
      map(pages, (reinterpret_cast<std::uintptr_t>(&end) + kPage - 1) / kPage * kPage);
  volatile char stack[kMostStatic * kPage];
  for (const Page memory : {heap, static_cast<Page>(in_data), static_cast<Page>(in_bss), stack})
    for (std::size_t i = 0; i < pages; ++i) memory[i * kPage] = 1;
  in_child([&] {
    for (std::size_t i = 0; i < pages; ++i) {
      for (const Page memory : {anonymous, heap, static_cast<Page>(in_data),
                                static_cast<Page>(in_bss), static_cast<Page>(stack)}) {
        copy_often(memory + i * kPage);
      }
    }
  });
}

// 16 blocks of 2 MiB at a known place: the third and fourth in full, of each other one page.
void hot(std::size_t /*pages*/) {
  constexpr std::uintptr_t kPlace = 0x10000000000;
  const Page memory = map(std::size_t{16} * 512, kPlace);
  in_child([=] {
    for (std::size_t block = 0; block < 16; ++block) {
      const bool is_hot = block == 2 || block == 3;
      for (std::size_t i = 0; i < (is_hot ? 512 : 1); ++i)
        copy_often(memory + block * kBlock + i * kPage);
    }
  });
}

// Code of no file, named by a perf map: push %rbp; mov %rsp,%rbp; movb $1,(%rdi); pop %rbp; ret.
// `sharing`: of the mapping that the code is in, as of mmap(2).
void generate(std::size_t pages, int sharing) {
  constexpr unsigned char kCode[] = {0x55, 0x48, 0x89, 0xe5, 0xc6, 0x07, 0x01, 0x5d, 0xc3};
  void* code = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) std::abort();
  std::memcpy(code, kCode, sizeof kCode);
  if (mprotect(code, kPage, PROT_READ | PROT_EXEC) != 0) std::abort();
  char path[64];
  std::snprintf(path, sizeof path, "/tmp/perf-%d.map", getpid());
  std::FILE* names = std::fopen(path, "w");
  if (names == nullptr) std::abort();
  std::fprintf(names, "%lx %zx py::generated:/app.py\n", reinterpret_cast<unsigned long>(code),
               sizeof kCode);
  std::fclose(names);
  copy_each(pages, [=](Page page, std::size_t) { reinterpret_cast<void (*)(Page)>(code)(page); });
}

void generated(std::size_t pages) { generate(pages, MAP_PRIVATE); }
// As PHP does: the kernel shows such memory as a file, /dev/zero.
void generated_shared(std::size_t pages) { generate(pages, MAP_SHARED); }

// The same in no perf map, and a function for each page: mov %sil,(%rdi); ret.
void generate_unnamed(std::size_t pages, void* address, int flags) {
  constexpr unsigned char kCode[] = {0x40, 0x88, 0x37, 0xc3};
  void* code = mmap(address, pages * kFunctionDistance, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (code == MAP_FAILED) std::abort();
  const auto function = [=](std::size_t i) {
    return static_cast<char*>(code) + i * kFunctionDistance;
  };
  for (std::size_t i = 0; i < pages; ++i) std::memcpy(function(i), kCode, sizeof kCode);
  if (mprotect(code, pages * kFunctionDistance, PROT_READ | PROT_EXEC) != 0) std::abort();
  copy_each(pages, [=](Page page, std::size_t number) {
    reinterpret_cast<void (*)(Page, char)>(function(number))(page, 2);
  });
}

void generated_unnamed(std::size_t pages) { generate_unnamed(pages, nullptr, 0); }

// Where the dynamic linker ends.
void generated_behind(std::size_t pages) {
  std::ifstream maps("/proc/self/maps");
  std::uintptr_t end_of_linker = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/ld-linux") == std::string::npos) continue;
    end_of_linker = std::stoul(line.substr(line.find('-') + 1), nullptr, 16);
  }
  generate_unnamed(pages, reinterpret_cast<void*>(end_of_linker), MAP_FIXED_NOREPLACE);
}

// The child writes them in a function of atexit(3).
void at_exit(std::size_t pages) {
  static Page memory = map(pages);
  static std::size_t left = pages;
  in_child([] {
    std::atexit([] {
      while (left > 0) copy_often(memory + --left * kPage);
    });
    std::exit(0);
  });
}

// The child's thread writes them beside its stack, in the same mapping, and so does its own child.
void beside_stack(std::size_t pages) {
  in_child([=] {
    constexpr std::size_t kStackPages = 256;
    static Page memory = nullptr;
    static std::size_t all = pages;
    void* mapped = mmap(nullptr, (kStackPages + pages) * kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) std::abort();
    memory = static_cast<Page>(mapped) + kStackPages * kPage;
    pthread_attr_t attributes;
    pthread_t thread{};
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, mapped, kStackPages * kPage);
    const auto write = [](void*) -> void* {
      volatile char frame[kStackPages / 2 * kPage];
      for (std::size_t i = 0; i < sizeof frame; i += kPage) frame[i] = 1;
      for (std::size_t i = 0; i < all; ++i) copy_often(memory + i * kPage);
      in_child([] {
        usleep(200'000);  // until its mappings are read
        for (std::size_t i = 0; i < all; ++i) copy_often(memory + i * kPage);
      });
      return nullptr;
    };
    if (pthread_create(&thread, &attributes, write, nullptr) != 0) std::abort();
    pthread_join(thread, nullptr);
  });
}

void lines(std::size_t /*pages*/) {
  std::printf("store_inlined %d copy_often %d copy_sometimes %d copy_seldom %d copy_by_kernel %d\n",
              kInlined, kOften, kSometimes, kSeldom, kKernel);
}

constexpr Kind kKinds[] = {
    {"lines", lines},
    {"shares", shares},
    {"kernel", kernel},
    {"deep", deep},
    {"short_lived", short_lived},
    {"mappings", mappings},
    {"hot", hot},
    {"generated", generated},
    {"generated_shared", generated_shared},
    {"generated_unnamed", generated_unnamed},
    {"generated_behind", generated_behind},
    {"at_exit", at_exit},
    {"beside_stack", beside_stack},
};

}  // namespace site_subject

int main(int argc, char** argv) { return run_kind(site_subject::kKinds, argc, argv); }
