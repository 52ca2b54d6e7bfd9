#include <utility>

#include <cowshed/share/jemalloc/jemalloc.h>
#include <cowshed/share/jemalloc/outside_scope.h>

namespace cowshed::internal {

constinit thread_local ThreadScope thread_scope;

void use_jemalloc_arena(unsigned arena) noexcept {
  jemalloc::flush_thread_cache();
  jemalloc::set_thread_arena(arena);
}

ThreadScope suspend_scope() noexcept {
  const ThreadScope scope = std::exchange(thread_scope, {});
  if (scope.end != 0) use_jemalloc_arena(scope.outermost);
  return scope;
}

void resume_scope(const ThreadScope& scope) noexcept {
  if (scope.end != 0) {
    use_jemalloc_arena(scope.jemalloc_arena);
    thread_scope = scope;
  }
}

}  // namespace cowshed::internal
