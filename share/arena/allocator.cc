#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/jemalloc/outside_scope.h>

namespace cowshed {
namespace {

constinit thread_local internal::ArenaFront* used_arena = nullptr;

}  // namespace

UseArena::UseArena(const Arena& arena) : before_(std::exchange(used_arena, arena.front_)) {}

UseArena::~UseArena() { used_arena = before_; }

void* internal::allocate_in_current_arena(std::size_t size, std::size_t alignment) {
  internal::ArenaFront* front = used_arena;
  if (front == nullptr && thread_scope.core != nullptr) front = thread_scope.core->front();
  if (front == nullptr) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "an ArenaAllocator has no arena: make one current on this thread with "
                         "UseArena, or enter an ArenaScope"});
  }
  return front->take(size, alignment);
}

void internal::deallocate_in_arena(void* block, std::size_t size, std::size_t alignment) noexcept {
  if (ArenaCore* core = find_arena(block)) core->front()->give(block, size, alignment);
}

}  // namespace cowshed
