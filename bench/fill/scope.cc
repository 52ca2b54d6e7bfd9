#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "work.h"

// The program that `fill` starts to measure malloc in an ArenaScope: it is linked with
// cowshed::malloc.
namespace cowshed::bench {
namespace {

struct Scope {
  explicit Scope(bool huge)
      : arena(got(Arena::create({.name = "fill", .capacity = 4_GiB, .huge_pages = huge}))) {}
  ArenaScope enter() { return got(ArenaScope::enter(arena)); }
  static void* allocate(std::size_t size) { return std::malloc(size); }
  static void deallocate(void* block, std::size_t) { std::free(block); }
  std::size_t huge_bytes() const { return arena.stats().huge_page_bytes; }

  Arena arena;
};

const SubjectKind fill_kind("fill", fill_answer<Scope>);

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) { return cowshed::bench::run_as_subject(argc, argv).value_or(2); }
