#include <array>
#include <fmt/format.h>
#include <sys/mman.h>

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
  std::size_t huge_bytes() const { return arena.stats().huge_page_bytes; }

  Arena arena;
};

// malloc and free of this program: of libc, or of a library that replaces them.
struct Malloc {
  explicit Malloc(bool huge) {
    const auto version = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "mi_version"));
    if (!huge || version == nullptr || version() < 300) return;
    // mimalloc 3.0 does not ask for them for the 1 GiB that it reserves: ask all around for it.
    const auto block = reinterpret_cast<std::uintptr_t>(std::malloc(1)) / 2_MiB * 2_MiB;
    madvise(reinterpret_cast<void*>(block - 1_GiB), 2_GiB, MADV_HUGEPAGE);  // passes over gaps
  }
  static int enter() { return 0; }
  static void* allocate(std::size_t size) { return std::malloc(size); }
  static void deallocate(void* block, std::size_t) { std::free(block); }
  static std::size_t huge_bytes() { return proc_bytes("/proc/self/smaps_rollup", "AnonHugePages"); }
};

const SubjectKind fill_kind("fill", fill_answer<Malloc>);
const SubjectKind fill_arena_kind("fill_arena", fill_answer<InArena>);

// A second arena asks for huge pages only where it grows by 2 MiB or more.
constexpr auto kGlibcHuge = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432";

// Name, part of the file that malloc is in, and variables: always, and for pages of 2 MiB.
const std::vector<std::array<std::string, 4>> allocators = {
    {"arena", "libc.so", "", ""},
    {"scope", "bench_scope", "", ""},
    {"glibc", "libc.so", "", kGlibcHuge},
    {"glibc_again", "libc.so", "", kGlibcHuge},
    {"jemalloc", "libjemalloc", "LD_PRELOAD=libjemalloc.so.2", "MALLOC_CONF=thp:always"},
    {"mimalloc", "libmimalloc", "LD_PRELOAD=libmimalloc.so",
     "MIMALLOC_LARGE_OS_PAGES=1 MIMALLOC_ALLOW_LARGE_OS_PAGES=1 MIMALLOC_EAGER_COMMIT_DELAY=0"},
};

}  // namespace

void add_fill() {
  const std::string operations = std::to_string(is_quick() ? 1U << 16U : 1U << 20U);
  for (const std::string pattern : {"churn", "fill"}) {
    for (const std::size_t threads : {1U, 2U, 4U, 8U, 16U}) {  // those of page.py
      if (threads > std::max<std::size_t>(cpu_count(), 2)) break;
      // More than 32 MiB of each thread would not all be in glibc's pages of 2 MiB.
      const std::size_t bytes = std::max<std::size_t>(threads, 4) * (is_quick() ? 16_MiB : 32_MiB);
      for (const std::string pages : {"4K", "2M"}) {
        if (pattern == "churn" && pages == "2M") continue;  // its blocks fill 250 KiB
        for (const auto& [name, library, always, for_huge_pages] : allocators) {
          const std::string amount = pattern == "churn" ? operations : std::to_string(bytes);
          if (name == "glibc_again" && (pages == "2M" || threads > 2)) continue;
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
