#pragma once

#include <cstddef>
#include <new>
#include <type_traits>

#include <cowshed/share/arena.h>

namespace cowshed {

// While it exists, ArenaAllocators of this thread allocate in the arena.  UseArenas nest.  Destroy
// them in the reverse order, on the same thread.
class UseArena {
 public:
  explicit UseArena(const Arena& arena);
  UseArena(const UseArena&) = delete;
  UseArena& operator=(const UseArena&) = delete;
  ~UseArena();

 private:
  internal::ArenaResource* before_;
};

namespace internal {
void* allocate_in_current_arena(std::size_t size, std::size_t alignment);
void deallocate_in_arena(void* block, std::size_t size, std::size_t alignment) noexcept;
}  // namespace internal

// A standard allocator without state.  Containers with it hold no pointer to code or to an
// allocator. So their bytes mean the same in every process that maps the arena, even in another
// program.
//
//   cowshed::UseArena use(arena);
//   auto* names = arena.make<std::vector<int, cowshed::ArenaAllocator<int>>>().value();
//   names->push_back(1);
//
// std::hash has no specialisation for strings with such an allocator:
//
//   using String = std::basic_string<char, std::char_traits<char>, cowshed::ArenaAllocator<char>>;
//   struct Hash {
//     std::size_t operator()(std::string_view s) const {
//       return std::hash<std::string_view>()(s);
//     }
//   };
//   using Index = std::unordered_map<String, int, Hash, std::equal_to<>,
//                                    cowshed::ArenaAllocator<std::pair<const String, int>>>;
//
// allocate() uses the arena of the thread's UseArena or ArenaScope.  It throws ArenaBadAlloc as
// Arena::allocate() does, and with code invalid_argument if the thread has neither.  deallocate()
// finds the arena by the address, and needs neither.  It only counts frozen blocks.  Thread-safe.
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
