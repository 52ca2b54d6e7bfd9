#pragma once

#include <cstdint>

// The jemalloc arena that a thread's malloc allocates from, which an ArenaScope changes.
namespace cowshed::internal {

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
// Initial-exec, so that a read needs one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadScope thread_scope;

// Makes the thread's malloc use this arena.  Flushes its cache, which may have blocks of one arena
// only.
void use_jemalloc_arena(unsigned arena) noexcept;

// Leaves the thread's scopes for a while; resume_scope() enters them again.
ThreadScope suspend_scope() noexcept;
void resume_scope(const ThreadScope& scope) noexcept;

// While it exists, this thread allocates outside ArenaScopes.  For the library's own objects, which
// must not lie in an arena that is frozen later.
class OutsideScope {
 public:
  OutsideScope() : scope_(suspend_scope()) {}
  ~OutsideScope() { resume_scope(scope_); }
  OutsideScope(const OutsideScope&) = delete;
  OutsideScope& operator=(const OutsideScope&) = delete;

 private:
  ThreadScope scope_;
};

}  // namespace cowshed::internal
