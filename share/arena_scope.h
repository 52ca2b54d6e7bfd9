#pragma once

#include <functional>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include <cowshed/share/arena.h>

namespace cowshed {

namespace internal {
struct EnteredScope;
}

// While it exists, all that this thread allocates lies in the arena: malloc() and operator new of
// all code.  So unchanged code can build its ordinary objects there, such as a std::unordered_map.
//
//   const Index& index = *cowshed::ArenaScope::make(arena, [&] { return load(file); }).value();
//   arena.freeze().value();
//
// The executable must link cowshed::malloc, dynamically.  It replaces malloc() and operator new;
// without it enter() fails.  Each shared library that links Cowshed has a copy of its own, and the
// executable's malloc serves the arenas of the executable's copy only: in a plugin enter() fails.
// CMake refuses cowshed::malloc in a MODULE library.  Do not link it with a sanitizer: the program
// would end at once, with a message.  Frees are recognised by their address, on any thread and at
// any time. Frees of frozen blocks only count, see Arena::deallocate().  If the arena is full,
// malloc() returns null and operator new throws std::bad_alloc.
//
// *Everything* lies in the arena, also what a library allocates once and keeps, such as a buffer.
// After a strict freeze nobody can write there, and a child that was forked before the freeze does
// not have it.  Use such a library once before the scope, or freeze leniently.
//
// These are allocated outside the arena: FILEs and their buffers, the environment, the C library's
// locales, time zone and iconv tables, the records of atexit(), at_quick_exit(), on_exit(),
// pthread_atfork(), pthread_create() and thread_local destructors, and Cowshed's own.  These are
// not, among others: dlopen(), and its callers such as getpwnam() and getaddrinfo(); messages of
// dlerror(), and of strerror() for unknown numbers; thread_local variables of a library that was
// loaded by dlopen(); open_memstream().
//
// An exception that is thrown inside lies in the arena: catch it while the arena exists.  If
// realloc() moves a block from before the scope, the block comes into the arena.  Memory from
// outside that is freed inside is not used again in the scope.
//
// A destructor may write to frozen memory, as a std::unordered_map does to its table.  Nothing
// destroys what make() makes.  An object outside the arena, such as a map in main(), is destroyed:
// only the process that froze the arena survives that, see stray_write.h.  A copy that counts
// owners writes too, as of a std::regex: share such an object instead.
//
// The scope is for the thread that entered it.  Other threads, also those started inside, allocate
// as ever.  Scopes nest.  A scope that is destroyed before an inner one ends with the inner one. If
// another thread destroys a scope, it ends when its own thread next begins or ends a scope, or ends
// itself.  The arena must outlive the scope, and cannot be frozen before its end.  A forked child
// is in no scope.
class ArenaScope {
 public:
  // Errors: unsupported (cowshed::malloc is not linked, or the program uses another malloc, as for
  // a plugin's arena, or its operator new does not use malloc), arena_frozen, not_inherited.
  static Expected<ArenaScope> enter(const Arena& arena);

  // Calls the function inside a scope and keeps what it returns in the arena.  Exceptions of the
  // function pass through.  Errors: those of enter(), capacity_exceeded, out_of_memory.
  template <class Function>
  static Expected<std::decay_t<std::invoke_result_t<Function>>*> make(const Arena& arena,
                                                                      Function&& function) {
    const auto scope = enter(arena);
    if (!scope) return tl::make_unexpected(scope.error());
    try {
      return ::new std::decay_t<std::invoke_result_t<Function>>(
          std::invoke(std::forward<Function>(function)));
    } catch (const std::bad_alloc&) {
      if (auto refused = scope->refusal()) return tl::make_unexpected(*std::move(refused));
      throw;
    }
  }

  ArenaScope(ArenaScope&& other) noexcept : entered_(std::exchange(other.entered_, nullptr)) {}
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(ArenaScope&&) = delete;
  ~ArenaScope();

 private:
  explicit ArenaScope(internal::EnteredScope* entered) : entered_(entered) {}
  std::optional<Error> refusal() const;  // why malloc() failed in it; none: it did not

  internal::EnteredScope* entered_;
};

}  // namespace cowshed
