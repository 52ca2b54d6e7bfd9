#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <mutex>

// What malloc.cc, the program's malloc, needs to know of arenas for each call.
namespace cowshed {

class ArenaCore;
struct EnteredScope;

// The innermost ArenaScope of this thread: blocks in [begin, end) are its arena's.
struct ThreadScope {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;  // 0: in no scope
  ArenaCore* core = nullptr;
  std::uint64_t key = 0;
  unsigned jemalloc_arena = 0;
  unsigned outermost = 0;  // jemalloc's arena that the thread uses outside scopes
  EnteredScope* entered = nullptr;
};
// initial-exec: one load, as in jemalloc.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadScope thread_scope;

// Every arena that there ever was lies in here; few other things do.
struct ArenaHull {
  std::atomic<std::uintptr_t> begin = UINTPTR_MAX;
  std::atomic<std::uintptr_t> end = 0;
};
extern constinit ArenaHull arena_hull;
void widen_hull(std::uintptr_t begin, std::uintptr_t end);

// Frees a block of an arena, also one that was destroyed; false: it is none.
bool free_in_arena(void* block) noexcept;
// A block of an arena.
struct BlockInArena {
  // How many bytes may be read: to the end of what the arena has when the block is frozen, since
  // its allocator's records are gone.
  std::size_t readable = 0;
  bool frozen = false;
};
// Says so of a block that is not an arena's: none readable, not frozen.
BlockInArena look_up_in_arena(const void* block) noexcept;

// Leaves the thread's scopes for a while, and returns to them.
ThreadScope suspend_scope() noexcept;
void resume_scope(const ThreadScope& scope) noexcept;

// For what the library itself keeps, which must not lie in an arena that somebody freezes.
class OutsideScope {
 public:
  OutsideScope() : scope_(suspend_scope()) {}
  ~OutsideScope() { resume_scope(scope_); }
  OutsideScope(const OutsideScope&) = delete;
  OutsideScope& operator=(const OutsideScope&) = delete;

 private:
  ThreadScope scope_;
};

// At the thread's end, also those whose handles others have.
void leave_scopes_of_thread() noexcept;

// Held over a fork, too: no child finds it half done, as the static of a function would be, and
// tzset() reads a file.
std::mutex& first_use_of_libc();

// The stream's buffer, which would be made at its first use.
void make_buffer(FILE* stream) noexcept;

}  // namespace cowshed

// The address of the program's malloc when cowshed::malloc is linked, else null.
extern "C" [[gnu::weak]] void* (*const cowshed_linked_malloc)(std::size_t);
