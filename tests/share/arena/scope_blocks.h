#pragma once

#include <cowshed/share/arena_scope.h>
#include <cowshed/tests/share/share.h>

// Blocks of malloc, and where they lie.
namespace cowshed::test {

template <class Body>
auto in_scope(const Arena& arena, Body body) {
  const auto scope = ArenaScope::enter(arena).value();
  return body();
}

// For lists of blocks, which are not to lie in an arena themselves.
template <class T>
struct MappedAllocator {
  using value_type = T;
  MappedAllocator() = default;
  template <class Other>
  MappedAllocator(const MappedAllocator<Other>&) {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  void deallocate(T* first, std::size_t count) { munmap(first, count * sizeof(T)); }
  bool operator==(const MappedAllocator&) const { return true; }
};
using Blocks = std::vector<char*, MappedAllocator<char*>>;

inline Blocks take(std::size_t count, std::size_t size) {
  Blocks blocks(count);
  for (char*& block : blocks) {
    block = static_cast<char*>(std::malloc(size));
    std::memset(block, 1, size);
  }
  return blocks;
}

inline void give(const Blocks& blocks) {
  for (char* block : blocks) std::free(block);
}

inline std::size_t count_inside(const Arena& arena, const Blocks& blocks) {
  return static_cast<std::size_t>(std::count_if(
      blocks.begin(), blocks.end(), [&](const char* block) { return arena.contains(block); }));
}

// How many blocks of all sizes that malloc hands out now lie in the arena.
inline std::size_t malloc_hits(const Arena& arena) {
  std::size_t inside = 0;
  for (std::size_t size = 8; size < 1_MiB; size += size / 2) {
    const auto blocks = take(size < 20000 ? 300 : 5, size);
    inside += count_inside(arena, blocks);
    give(blocks);
  }
  return inside;
}

}  // namespace cowshed::test

namespace cowshed {

using test::Blocks;
using test::count_inside;
using test::give;
using test::in_scope;
using test::malloc_hits;
using test::take;

}  // namespace cowshed
