#include <dlfcn.h>
#include <mutex>

#include <cowshed/share/arena_core.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/malloc_route.h>

namespace cowshed {

constinit thread_local ThreadScope thread_scope;
constinit ArenaHull arena_hull;

void widen_hull(std::uintptr_t begin, std::uintptr_t end) {
  std::uintptr_t known = arena_hull.begin.load();
  while (begin < known && !arena_hull.begin.compare_exchange_weak(known, begin)) {
  }
  known = arena_hull.end.load();
  while (end > known && !arena_hull.end.compare_exchange_weak(known, end)) {
  }
}

bool free_in_arena(void* block) noexcept {
  ArenaCore* core = find_arena(block);
  if (core != nullptr) {
    core->give_unsized(block);
  }
  return core != nullptr;
}

std::size_t readable_in_arena(const void* block) noexcept {
  const ArenaCore* core = find_arena(block);
  if (core == nullptr) {
    return 0;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  return is_frozen_block(block) ? core->begin() + core->frozen_bytes() - address
                                : cowshed_je_malloc_usable_size(const_cast<void*>(block));
}

bool is_frozen_block(const void* block) noexcept {
  const ArenaCore* core = find_arena(block);
  return core != nullptr && reinterpret_cast<std::uintptr_t>(block) < core->open_begin();
}

void leave_scope_after_fork() noexcept {
  if (thread_scope.end != 0) {
    jemalloc::set_thread_arena(thread_scope.outermost);
    jemalloc::flush_thread_cache();
    thread_scope = {};
  }
}

namespace {

Expected<void> check_malloc(std::string_view who) {
  const std::string start = "an ArenaScope of arena '" + std::string(who) + "' cannot begin: ";
  if (&cowshed_linked_malloc == nullptr) {
    return make_error(ErrorCode::unsupported,
                      start + "the program's malloc knows of no arenas; link cowshed::malloc");
  }
  // Shared libraries take the first that the dynamic linker finds.
  if (dlsym(RTLD_DEFAULT, "malloc") != reinterpret_cast<void*>(cowshed_linked_malloc)) {
    return make_error(ErrorCode::unsupported,
                      start +
                          "another malloc comes before cowshed::malloc; link it into the "
                          "executable, and preload no other");
  }
  return {};
}

}  // namespace

Expected<ArenaScope> ArenaScope::enter(const Arena& arena) {
  if (auto checked = check_malloc(arena.name()); !checked) {
    return tl::make_unexpected(std::move(checked.error()));
  }
  ArenaCore* core = arena.core_;
  if (core->frozen() && core->successor() != nullptr) {
    core = core->successor();
  }
  core->prepare_thread();
  unsigned outer = 0;
  if (const int error = jemalloc::thread_arena(outer)) {
    return system_error("the arena of this thread's malloc", error);
  }
  const std::lock_guard lock(core->mutex());
  auto entered = core->enter_scope();
  if (!entered) {
    return tl::make_unexpected(std::move(entered.error()));
  }
  const Outer before = {thread_scope.core, thread_scope.key, thread_scope.begin, thread_scope.end,
                        outer};
  const unsigned outermost = thread_scope.end == 0 ? outer : thread_scope.outermost;
  ArenaScope scope(core, core->key(), before);
  // The thread's cache may hold blocks of one arena only.
  jemalloc::flush_thread_cache();
  jemalloc::set_thread_arena(*entered);
  thread_scope = {core->open_begin(), core->end(), core, core->key(), outermost};
  return scope;
}

ArenaScope::~ArenaScope() {
  if (core_ == nullptr) {
    return;
  }
  if (thread_scope.end != 0 && thread_scope.key == key_) {  // else: a forked child's
    jemalloc::flush_thread_cache();
    jemalloc::set_thread_arena(outer_.jemalloc_arena);
    thread_scope = {outer_.begin, outer_.end, outer_.core, outer_.key, thread_scope.outermost};
    const std::lock_guard lock(core_->mutex());
    core_->leave_scope(key_);
  }
}

}  // namespace cowshed
