#include <utility>

#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/jemalloc/outside_scope.h>

namespace cowshed {
namespace {

constinit thread_local internal::ArenaResource* used_arena = nullptr;

}  // namespace

UseArena::UseArena(const Arena& arena) : before_(std::exchange(used_arena, arena.resource_)) {}

UseArena::~UseArena() { used_arena = before_; }

void* internal::allocate_in_current_arena(std::size_t size, std::size_t alignment) {
  ArenaResource* resource = used_arena;
  if (resource == nullptr && thread_scope.core != nullptr) resource = thread_scope.core->resource();
  if (resource == nullptr) {
    throw ArenaBadAlloc({ErrorCode::invalid_argument, 0,
                         "an ArenaAllocator has no arena: make one current on this thread with "
                         "UseArena, or enter an ArenaScope"});
  }
  return resource->allocate(size, alignment);
}

void internal::deallocate_in_arena(void* block, std::size_t size, std::size_t alignment) noexcept {
  if (ArenaCore* core = find_arena(block)) core->resource()->deallocate(block, size, alignment);
}

}  // namespace cowshed
