#include <utility>

#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/arena_core.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/malloc_route.h>

namespace cowshed {
namespace {

constinit thread_local ArenaCore* used_arena = nullptr;

}  // namespace

UseArena::UseArena(const Arena& arena) : before_(std::exchange(used_arena, arena.core_)) {}

UseArena::~UseArena() { used_arena = before_; }

void* internal::allocate_in_current_arena(std::size_t size, std::size_t alignment) {
  ArenaCore* core = used_arena != nullptr ? used_arena : thread_scope.core;
  if (core == nullptr) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "an ArenaAllocator has no arena: make one current on this thread with "
                         "UseArena, or enter an ArenaScope"});
  }
  return core->take(size, alignment);
}

void internal::deallocate_in_arena(void* block, std::size_t size, std::size_t alignment) noexcept {
  if (ArenaCore* core = find_arena(block)) {
    core->give(block, size, alignment);
  }
}

}  // namespace cowshed
