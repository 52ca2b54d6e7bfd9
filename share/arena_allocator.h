#pragma once

#include <cstddef>
#include <new>
#include <type_traits>

#include <cowshed/share/arena.h>

namespace cowshed {

// While it lives, ArenaAllocators of this thread take from the arena.  Scopes nest, and end in the
// reverse order, on the same thread.
class UseArena {
 public:
  explicit UseArena(const Arena& arena);
  UseArena(const UseArena&) = delete;
  UseArena& operator=(const UseArena&) = delete;
  ~UseArena();

 private:
  internal::ArenaFront* before_;
};

namespace internal {
void* allocate_in_current_arena(std::size_t size, std::size_t alignment);
void deallocate_in_arena(void* block, std::size_t size, std::size_t alignment) noexcept;
}  // namespace internal

// A standard allocator without state: containers that use it have no pointer to code or to an
// allocator, so that their bytes mean the same in every process that maps the arena, also one that
// runs another program.
//
//   cowshed::UseArena use(arena);
//   auto* names = arena.make<std::vector<int, cowshed::ArenaAllocator<int>>>().value();
//   names->push_back(1);
//
// allocate() takes from the thread's UseArena or ArenaScope, and throws ArenaBadAlloc: with code
// invalid_argument where there is none, else as Arena::allocate().  deallocate() finds the arena by
// the address, needs no scope, and after the freeze is a counted no-op.  Thread-safe.
template <class T>
class ArenaAllocator {
 public:
  using value_type = T;
  using is_always_equal = std::true_type;

  ArenaAllocator() noexcept = default;
  template <class Other>
  ArenaAllocator(const ArenaAllocator<Other>&) noexcept {}

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / kSize) throw std::bad_array_new_length();
    return static_cast<T*>(internal::allocate_in_current_arena(count * kSize, alignof(T)));
  }
  void deallocate(T* block, std::size_t count) noexcept {
    internal::deallocate_in_arena(block, count * kSize, alignof(T));
  }

  template <class Other>
  bool operator==(const ArenaAllocator<Other>&) const noexcept {
    return true;
  }

 private:
  static constexpr std::size_t kSize = sizeof(T);  // NOLINT(bugprone-sizeof-expression): a pointer
};

}  // namespace cowshed
