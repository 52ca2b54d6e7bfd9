#include <fmt/format.h>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>

#include "family.h"
#include "fill_work.h"
#include "machine.h"
#include "subject.h"

// How fast an arena is filled, against malloc: by fresh processes, for where blocks lie differs
// from process to process, and filled memory must be new.
namespace cowshed::bench {
namespace {

struct InArena {
  class Thread {
   public:
    explicit Thread(InArena& backend) : arena_(backend.arena) {}
    void* allocate(std::size_t size) { return arena_.allocate(size); }
    void deallocate(void* block, std::size_t size) { arena_.deallocate(block, size); }

   private:
    Arena& arena_;
  };

  explicit InArena(bool huge)
      : arena(got(Arena::create({.name = "fill", .capacity = 4_GiB, .huge_pages = huge}))) {}
  void check_pages(bool huge, std::size_t bytes) const {
    const std::size_t found = arena.stats().huge_page_bytes;
    if (huge ? found < bytes / 10 * 9 : found != 0)
      throw std::runtime_error("the arena has pages of another size");
  }
  Arena arena;
};

const SubjectKind kFill("fill", [](const Words& arguments) -> Answer {
  const FillOptions options(arguments);
  if (options.way == "arena") return fill_answer<InArena>(options);
  return fill_answer<Malloc>(options);
});

// An allocator, with pages of one size.
struct Allocator {
  std::string name;
  std::string program;  // "" is this one
  std::string call;
  std::string library;
  Words environment;
};

std::vector<Allocator> allocators(bool huge) {
  const auto with = [huge](Words always, const Words& if_huge) {
    if (huge) always.insert(always.end(), if_huge.begin(), if_huge.end());
    return always;
  };
  return {
      {"arena", "", "arena", "libc.so", {}},
      {"scope", "bench_scope", "scope", "bench_scope", {}},
      {"glibc", "", "malloc", "libc.so", with({}, {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"})},
      {"jemalloc", "", "malloc", "libjemalloc",
       with({"LD_PRELOAD=libjemalloc.so.2"}, {"MALLOC_CONF=thp:always"})},
      {"mimalloc", "", "malloc", "libmimalloc",
       with({"LD_PRELOAD=libmimalloc.so"},
            {"MIMALLOC_LARGE_OS_PAGES=1", "MIMALLOC_ALLOW_LARGE_OS_PAGES=1"})},
  };
}

}  // namespace

void add_fill() {
  for (const std::string pattern : {"churn", "fill"}) {
    const std::size_t amount =
        pattern == "churn" ? (is_quick() ? 1U << 16U : 1U << 20U) : (is_quick() ? 32_MiB : 128_MiB);
    for (const std::string mix : {"small", "even"}) {
      for (const unsigned threads : {1U, 2U}) {
        for (const bool huge : {false, true}) {
          for (const Allocator& allocator : allocators(huge)) {
            const std::string pages = huge ? "2M" : "4K";
            const Words words = {"fill",
                                 pattern,
                                 mix,
                                 std::to_string(threads),
                                 std::to_string(amount),
                                 allocator.call,
                                 pages,
                                 allocator.library};
            add(fmt::format("{}/{}/{}/{}/{}", pattern, allocator.name, pages, mix, threads),
                [=](benchmark::State&) {
                  // Again and again: hosts take back what a guest does not use.
                  if (pattern == "fill") touch_memory(2 * amount);
                  return Subject(words, allocator.environment, allocator.program).ask().front();
                });
          }
        }
      }
    }
  }
}

}  // namespace cowshed::bench
