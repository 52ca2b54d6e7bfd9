#include <atomic>
#include <cstdio>
#include <ctime>
#include <dlfcn.h>
#include <link.h>
#include <memory>
#include <mutex>
#include <new>
#include <stdio_ext.h>
#include <unistd.h>

#include <cowshed/base/try.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/arena_scope.h>
#include <cowshed/share/os/fork_state.h>

// ArenaScope, and what the program's malloc asks of arenas.
namespace cowshed::internal {

constinit ArenaHull arena_hull;

// A scope that a thread is in.  A list, the innermost first; allocated outside all arenas.
struct EnteredScope {
  ThreadScope scope;  // while this one is the innermost
  EnteredScope* outer;
  // The thread and the handle leave it; the second of them deletes it.
  enum class State : std::uint8_t { entered, handle_gone, thread_left };
  std::atomic<State> state = State::entered;

  bool ended() const { return state.load(std::memory_order_acquire) == State::handle_gone; }
};

namespace {

tl::unexpected<Error> malloc_error(std::string_view arena, const std::string& why) {
  return make_error(ErrorCode::unsupported,
                    "an ArenaScope of arena '" + std::string(arena) + "' cannot begin: " + why);
}

// The shared library that has this copy of Cowshed; "" if the executable has it.
std::string own_library() {
  Dl_info ignored = {};
  void* loaded = nullptr;
  const int found = dladdr1(&arena_hull, &ignored, &loaded, RTLD_DL_LINKMAP);
  return found == 0 ? "" : static_cast<const link_map*>(loaded)->l_name;
}

Expected<void> check_malloc(std::string_view arena) {
  // Shared libraries use the first malloc that the dynamic linker finds.
  void* const used = dlsym(RTLD_DEFAULT, "malloc");
  if (&cowshed_linked_malloc != nullptr && used == reinterpret_cast<void*>(cowshed_linked_malloc))
    return {};
  const std::string library = own_library();
  if (library.empty()) {
    return malloc_error(arena,
                        "the program's malloc knows of no arenas; link cowshed::malloc "
                        "(pkg-config's cowshed-malloc), and hide none of its symbols");
  }
  Dl_info of_malloc = {};
  const char* where = dladdr(used, &of_malloc) != 0 ? of_malloc.dli_fname : "another file";
  return malloc_error(arena, "the program's malloc, of " + std::string(where) +
                                 ", knows of no arenas of " + library +
                                 ", which has a copy of Cowshed of its own; make the arena and its "
                                 "scope in the executable, and link cowshed::malloc there");
}

void leave_innermost() {
  EnteredScope* left = thread_scope.entered;
  const ThreadScope scope = left->scope;
  const EnteredScope* outer = left->outer;
  use_jemalloc_arena(outer == nullptr ? scope.outermost : outer->scope.jemalloc_arena);
  thread_scope = outer == nullptr ? ThreadScope{} : outer->scope;
  if (left->state.exchange(EnteredScope::State::thread_left) == EnteredScope::State::handle_gone)
    delete left;
  const std::lock_guard lock(scope.core->mutex());
  scope.core->leave_scope(scope.key, scope.jemalloc_arena);
}

// Leaves the scopes that have ended, unless one inside them has not.
void leave_ended() {
  while (thread_scope.entered != nullptr && thread_scope.entered->ended()) leave_innermost();
}

// Called inside a scope: fails if the program's own operator new does not use malloc.
Expected<void> check_operator_new(const ArenaCore& core) {
  static std::atomic<bool> checked = false;
  if (checked.load(std::memory_order_relaxed)) return {};
  void* block = nullptr;
  try {
    block = ::operator new(1);
  } catch (const std::bad_alloc&) {
    return {};  // the arena is full: the next scope will tell
  }
  const bool inside = core.contains(block);
  ::operator delete(block);
  if (!inside) {
    return malloc_error(core.name(),
                        "the program's operator new does not use malloc; leave it to "
                        "cowshed::malloc, or make it call malloc");
  }
  checked.store(true, std::memory_order_relaxed);
  return {};
}

std::atomic<bool> libc_used = false;

// Makes libc allocate now what it keeps for ever.
void use_libc_once() {
  if (libc_used.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(first_use_of_libc);
  if (libc_used.load(std::memory_order_relaxed)) return;
  const OutsideScope outside;
  make_buffer(stdin);
  make_buffer(stdout);
  tzset();
  libc_used.store(true, std::memory_order_release);
}

}  // namespace

COWSHED_FORK_STATE constinit std::mutex first_use_of_libc;

void widen_hull(std::uintptr_t begin, std::uintptr_t end) {
  std::uintptr_t known = arena_hull.begin.load();
  while (begin < known && !arena_hull.begin.compare_exchange_weak(known, begin)) {
  }
  known = arena_hull.end.load();
  while (end > known && !arena_hull.end.compare_exchange_weak(known, end)) {
  }
}

bool free_in_arena(void* block) noexcept {
  if (ArenaCore* core = find_arena(block)) {
    core->deallocate_unsized(block);
    return true;
  }
  return !jemalloc::has_block(block);
}

BlockInArena look_up_in_arena(const void* block) noexcept {
  ArenaCore* core = find_arena(block);
  return core == nullptr ? BlockInArena{} : core->look_up(block);
}

void make_buffer(FILE* stream) noexcept {
  if (__fbufsize(stream) == 0) {
    // glibc allocates the buffer here, but forgets that it is flushed by lines.
    const bool by_lines = __flbf(stream) != 0 || isatty(fileno(stream)) != 0;
    std::setvbuf(stream, nullptr, _IOFBF, 0);
    if (by_lines) std::setvbuf(stream, nullptr, _IOLBF, 0);
  }
}

void leave_scopes_of_thread() noexcept {
  while (thread_scope.entered != nullptr) leave_innermost();
}

}  // namespace cowshed::internal

namespace cowshed {

using namespace internal;

Expected<ArenaScope> ArenaScope::enter(const Arena& arena) {
  TRY_VOID(check_malloc(arena.name()));
  ArenaCore* core = arena.core_;
  if (core == nullptr) return moved_from_error();
  core->prepare_thread();
  use_libc_once();
  leave_ended();
  unsigned outer = 0;
  if (const int error = jemalloc::thread_arena(outer))
    return system_error("the arena of this thread's malloc", error);
  auto entry = [] {
    const OutsideScope outside;
    return std::make_unique<EnteredScope>();
  }();
  std::unique_lock lock(core->mutex());
  TRY(const unsigned entered, core->enter_scope());
  entry->outer = thread_scope.entered;
  entry->scope = {
      core->open_begin(), core->end(), core,
      core->key(),        entered,     thread_scope.end == 0 ? outer : thread_scope.outermost,
      entry.get()};
  use_jemalloc_arena(entered);
  thread_scope = entry->scope;
  ArenaScope scope(entry.release());
  lock.unlock();
  TRY_VOID(check_operator_new(*core));
  return scope;
}

std::optional<Error> ArenaScope::refusal() const {
  const OutsideScope outside;
  ArenaCore& core = *entered_->scope.core;
  const std::lock_guard lock(core.mutex());
  return core.refusal_in_scope();
}

ArenaScope::~ArenaScope() {
  if (entered_ == nullptr) return;
  if (entered_->state.exchange(EnteredScope::State::handle_gone) ==
      EnteredScope::State::thread_left) {
    delete entered_;
  }
  leave_ended();
}

}  // namespace cowshed
