// cowshed::malloc: the program's malloc family, for ArenaScope.  It calls the private jemalloc that
// arenas use.  A scope only changes where a thread's malloc takes its memory, so malloc itself is
// as fast as ever.  free() checks the address first: it drops frozen blocks, and puts no block into
// a cache of the wrong arena.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/share/arena/malloc_route.h>
#include <cowshed/share/jemalloc/jemalloc.h>

using namespace cowshed;
using namespace internal;

namespace {

enum class Owner : std::uint8_t { cached, heap_in_scope, arena };

inline Owner owner_of(const void* block) {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const ThreadScope& scope = thread_scope;
  if (address - scope.begin < scope.end - scope.begin) return Owner::cached;
  if (address >= arena_hull.begin.load(std::memory_order_relaxed) &&
      address < arena_hull.end.load(std::memory_order_relaxed)) [[unlikely]] {
    return Owner::arena;
  }
  return scope.end == 0 ? Owner::cached : Owner::heap_in_scope;
}

// Joins the free blocks of a full arena, so that they serve other sizes.
[[gnu::noinline]] bool make_room() {
  if (thread_scope.end == 0) return false;
  jemalloc::flush_thread_cache();
  return jemalloc::purge_arena(thread_scope.jemalloc_arena) == 0;
}

template <class Allocate>
inline void* retried(Allocate allocate) {
  void* block = allocate();
  if (block != nullptr) [[likely]]
    return block;
  return make_room() ? allocate() : nullptr;
}

[[gnu::noinline]] void free_slowly(void* block, Owner owner) {
  if (owner == Owner::arena && free_in_arena(block)) return;
  if (block != nullptr) cowshed_je_dallocx(block, jemalloc::kNoCacheFlags);
}

[[gnu::noinline]] void* move(void* block, std::size_t size, Owner owner) {
  std::size_t readable = owner == Owner::arena ? look_up_in_arena(block).readable : 0;
  if (readable == 0) readable = cowshed_je_malloc_usable_size(block);
  void* moved = retried([=] { return cowshed_je_malloc(size); });
  if (moved != nullptr) {
    std::memcpy(moved, block, std::min(size, readable));
    free_slowly(block, owner);
  }
  return moved;
}

}  // namespace

extern "C" {

// Does not retry, because checking the result would cost every call 4 %.
[[gnu::noinline]] void* malloc(std::size_t size) noexcept { return cowshed_je_malloc(size); }

void* calloc(std::size_t count, std::size_t size) noexcept {
  return retried([=] { return cowshed_je_calloc(count, size); });
}

[[gnu::noinline]] void free(void* block) noexcept {
  const Owner owner = owner_of(block);
  if (owner == Owner::cached) [[likely]]
    cowshed_je_free(block);
  else free_slowly(block, owner);
}

void* realloc(void* block, std::size_t size) noexcept {
  const Owner owner = owner_of(block);
  if (size == 0 && block != nullptr) {  // as glibc does
    free(block);
    return nullptr;
  }
  if (owner == Owner::cached || block == nullptr)
    return retried([=] { return cowshed_je_realloc(block, size); });
  return move(block, size, owner);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  return retried([=] { return cowshed_je_memalign(alignment, size); });
}

[[gnu::noinline]] void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return retried([=] { return cowshed_je_aligned_alloc(alignment, size); });
}

int posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept {
  const int error = cowshed_je_posix_memalign(block, alignment, size);
  return error == ENOMEM && make_room() ? cowshed_je_posix_memalign(block, alignment, size) : error;
}

void* valloc(std::size_t size) noexcept { return memalign(arch::kLargestPage, size); }

void* pvalloc(std::size_t size) noexcept {
  const std::size_t whole = (size + arch::kLargestPage - 1) & ~(arch::kLargestPage - 1);
  return memalign(arch::kLargestPage, whole < size ? size : whole);  // an overflow: `size` fails
}

// Returns 0 for a frozen block, because nobody may write to it.
std::size_t malloc_usable_size(void* block) noexcept {
  if (owner_of(block) != Owner::arena) [[likely]]
    return cowshed_je_malloc_usable_size(block);
  const BlockInArena found = look_up_in_arena(block);
  if (found.frozen) return 0;
  return found.readable != 0 ? found.readable : cowshed_je_malloc_usable_size(block);
}

[[gnu::weak]] void __asan_init();  // NOLINT(bugprone-reserved-identifier): the sanitizers' names
[[gnu::weak]] void __msan_init();  // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __tsan_init();  // NOLINT(bugprone-reserved-identifier)
[[gnu::weak]] void __lsan_init();  // NOLINT(bugprone-reserved-identifier)

// Called at the first malloc().  A sanitizer's functions give out blocks that our free() does not
// know.  Its write() and _exit() may not work yet.
void cowshed_check_first_malloc() {
  for (void (*sanitizer)() : {&__asan_init, &__msan_init, &__tsan_init, &__lsan_init}) {
    if (sanitizer == nullptr) continue;
    constexpr std::string_view kText =
        "cowshed::malloc does not work with a sanitizer: link one of the two\n";
    (void)syscall(SYS_write, STDERR_FILENO, kText.data(), kText.size());
    (void)syscall(SYS_exit_group, EXIT_FAILURE);
  }
}

// jemalloc serves the whole program here, so it has its default number of arenas.
extern const char* const cowshed_je_malloc_conf_2_conf_harder;
const char* const cowshed_je_malloc_conf_2_conf_harder = "narenas:default";

// Not &malloc, which in a shared library is the first malloc that the dynamic linker finds.
[[gnu::alias("malloc"), gnu::visibility("hidden"), gnu::malloc, gnu::alloc_size(1)]] void*
cowshed_own_malloc(std::size_t size) noexcept;
void* (*const cowshed_linked_malloc)(std::size_t) = &cowshed_own_malloc;
}

// C++'s operators, because another library, such as a preloaded jemalloc, may have some that do not
// call malloc.  They are weak, because a program may have its own.  They call the malloc and free
// that the program uses, so ours are not inlined here.  In a plugin the program's are others, and
// any library may free a block that it got from here.
namespace {

void* new_block(std::size_t size, std::size_t alignment) {
  for (;;) {
    void* block = alignment == 1 ? malloc(size) : nullptr;
    if (block == nullptr)  // aligned_alloc() retries, malloc() does not
      block = aligned_alloc(std::max(alignment, alignof(std::max_align_t)), size);
    if (block != nullptr) [[likely]]
      return block;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

void* new_or_null(std::size_t size, std::size_t alignment) noexcept {
  try {
    return new_block(size, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

constexpr std::size_t value(std::align_val_t alignment) {
  return static_cast<std::size_t>(alignment);
}

}  // namespace

[[gnu::weak]] void* operator new(std::size_t size) { return new_block(size, 1); }
[[gnu::weak]] void* operator new[](std::size_t size) { return new_block(size, 1); }
[[gnu::weak]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return new_or_null(size, 1);
}
[[gnu::weak]] void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return new_or_null(size, 1);
}
[[gnu::weak]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return new_block(size, value(alignment));
}
[[gnu::weak]] void* operator new[](std::size_t size, std::align_val_t alignment) {
  return new_block(size, value(alignment));
}
[[gnu::weak]] void* operator new(std::size_t size, std::align_val_t alignment,
                                 const std::nothrow_t&) noexcept {
  return new_or_null(size, value(alignment));
}
[[gnu::weak]] void* operator new[](std::size_t size, std::align_val_t alignment,
                                   const std::nothrow_t&) noexcept {
  return new_or_null(size, value(alignment));
}
[[gnu::weak]] void operator delete(void* block) noexcept { free(block); }
[[gnu::weak]] void operator delete[](void* block) noexcept { free(block); }
[[gnu::weak]] void operator delete(void* block, const std::nothrow_t&) noexcept { free(block); }
[[gnu::weak]] void operator delete[](void* block, const std::nothrow_t&) noexcept { free(block); }
[[gnu::weak]] void operator delete(void* block, std::size_t) noexcept { free(block); }
[[gnu::weak]] void operator delete[](void* block, std::size_t) noexcept { free(block); }
[[gnu::weak]] void operator delete(void* block, std::align_val_t) noexcept { free(block); }
[[gnu::weak]] void operator delete[](void* block, std::align_val_t) noexcept { free(block); }
[[gnu::weak]] void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  free(block);
}
[[gnu::weak]] void operator delete[](void* block, std::align_val_t,
                                     const std::nothrow_t&) noexcept {
  free(block);
}
[[gnu::weak]] void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  free(block);
}
[[gnu::weak]] void operator delete[](void* block, std::size_t, std::align_val_t) noexcept {
  free(block);
}
