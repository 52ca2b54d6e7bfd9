#pragma once

#include <cstdint>

#include <cowshed/share/arena.h>

namespace cowshed {

// While it lives, everything that this thread allocates lands in the arena: malloc and operator new
// of all code, so that a third-party loader builds its ordinary objects there, unchanged.
//
//   auto scope = cowshed::ArenaScope::enter(arena).value();
//   auto* document = new nlohmann::json(nlohmann::json::parse(file));
//
// The program must link cowshed::malloc, into the executable, dynamically: it replaces malloc and
// operator new by ones that can do this; without it enter() is an error.  Frees are recognised by
// address, on any thread and at any time; after the freeze they are dropped and counted like
// Arena::deallocate().  A full arena is a malloc that fails: null, std::bad_alloc.
//
// What to know: *everything* lands there, also what a library keeps for itself at first use, such
// as a stream's buffer, a locale, or the dynamic linker's records of what it loads.  After a strict
// freeze it cannot be written to, so use what is to stay writable once before the scope, or freeze
// leniently.  (Made outside: the buffers of stdin and stdout, what pthread_create() and atexit()
// keep, and what Cowshed keeps.)  An object's destructor may write after the freeze: do not run it.
// An exception thrown inside lies there too: catch it while the arena lives.  A block from before
// the scope that realloc() moves comes into the arena, and what the scope frees of other memory is
// not handed out again in it.
//
// Belongs to the thread that entered: what other threads allocate meanwhile is theirs, also those
// started inside.  Scopes nest, and end in the reverse order.  The arena must outlive the scope,
// and cannot be frozen before it has ended.  In a forked child the scope is over.
class ArenaScope {
 public:
  // Errors: unsupported (cowshed::malloc is not linked, or is not the malloc that the program
  // uses, as with a sanitizer, or the program has an operator new that does not use malloc),
  // arena_frozen, not_inherited.  A frozen arena's successor is entered.
  static Expected<ArenaScope> enter(const Arena& arena);

  ArenaScope(ArenaScope&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), key_(other.key_), outer_(other.outer_) {}
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(ArenaScope&&) = delete;
  ~ArenaScope();

 private:
  // What the thread's malloc was doing before.
  struct Outer {
    ArenaCore* core;
    std::uint64_t key;
    std::uintptr_t begin;
    std::uintptr_t end;
    unsigned jemalloc_arena;
  };

  ArenaScope(ArenaCore* core, std::uint64_t key, const Outer& outer)
      : core_(core), key_(key), outer_(outer) {}

  ArenaCore* core_;
  std::uint64_t key_;
  Outer outer_;
};

}  // namespace cowshed
