#include <array>
#include <fmt/format.h>

#include <cowshed/share/arena.h>

#include "../family.h"
#include "work.h"

// How fast an arena is filled, against malloc: by fresh processes, for where blocks lie differs
// from process to process, and filled memory must be new.
namespace cowshed::bench {
namespace {

struct InArena {
  explicit InArena(bool huge)
      : arena(got(Arena::create({.name = "fill", .capacity = 4_GiB, .huge_pages = huge}))) {}
  static int enter() { return 0; }
  void* allocate(std::size_t size) { return arena.allocate(size); }
  void deallocate(void* block, std::size_t size) { arena.deallocate(block, size); }
  void check_pages(bool huge, std::size_t bytes) const {
    const std::size_t found = arena.stats().huge_page_bytes;
    if (huge ? found < bytes / 10 * 9 : found != 0)
      throw std::runtime_error("the arena has pages of another size");
  }

  Arena arena;
};

// malloc and free of this program: of libc, or of a library that replaces them.
struct Malloc {
  explicit Malloc(bool) {}
  static int enter() { return 0; }
  static void* allocate(std::size_t size) { return std::malloc(size); }
  static void deallocate(void* block, std::size_t) { std::free(block); }
  static void check_pages(bool huge, std::size_t bytes) { expect_pages(huge, bytes); }
};

const SubjectKind kFill("fill", fill_answer<Malloc>);
const SubjectKind kFillArena("fill_arena", fill_answer<InArena>);

// Name, part of the file that malloc is in, and variables: always, and for pages of 2 MiB.
const std::vector<std::array<std::string, 4>> kAllocators = {
    {"arena", "libc.so", "", ""},
    {"scope", "bench_scope", "", ""},
    {"glibc", "libc.so", "", "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"},
    {"jemalloc", "libjemalloc", "LD_PRELOAD=libjemalloc.so.2", "MALLOC_CONF=thp:always"},
    {"mimalloc", "libmimalloc", "LD_PRELOAD=libmimalloc.so",
     "MIMALLOC_LARGE_OS_PAGES=1 MIMALLOC_ALLOW_LARGE_OS_PAGES=1"},
};

}  // namespace

void add_fill() {
  const std::string operations = std::to_string(is_quick() ? 1U << 16U : 1U << 20U);
  const std::string bytes = std::to_string(is_quick() ? 32_MiB : 128_MiB);
  for (const std::string pattern : {"churn", "fill"}) {
    for (const std::string threads : {"1", "2"}) {
      for (const std::string pages : {"4K", "2M"}) {
        for (const auto& [name, library, always, for_huge_pages] : kAllocators) {
          const std::string amount = pattern == "churn" ? operations : bytes;
          const Words words =
              words_of(fmt::format("{} {} {} {} {} {}", name == "arena" ? "fill_arena" : "fill",
                                   pattern, threads, amount, pages, library));
          const Words environment = words_of(always + (pages == "2M" ? " " + for_huge_pages : ""));
          const std::string program = name == "scope" ? "bench_scope" : "";
          add(fmt::format("{}/{}/{}/{}", pattern, name, pages, threads), [=](benchmark::State&) {
            return Subject(words, environment, program).ask().front();
          });
        }
      }
    }
  }
}

}  // namespace cowshed::bench
