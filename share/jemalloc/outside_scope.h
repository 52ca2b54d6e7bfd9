#pragma once

#include <cstddef>
#include <cstdint>

// Which of jemalloc's arenas a thread's malloc takes from.
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

// The thread's cache may hold blocks of one of jemalloc's arenas only.
void use_jemalloc_arena(unsigned arena) noexcept;

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

}  // namespace cowshed
