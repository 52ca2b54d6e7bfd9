#pragma once

#include <utility>

#include <cowshed/share/arena.h>

namespace cowshed {

struct EnteredScope;

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
// as a stream's buffer or the dynamic linker's records of what it loads.  After a strict freeze it
// cannot be written to, and a child that is forked before has it not, so use what is to stay
// writable once before the scope, or freeze leniently.  Made outside: stdin's, stdout's and opened
// FILEs with their buffers, the environment, the C library's locales, time zone and iconv tables,
// what atexit(), at_quick_exit(), on_exit(), pthread_atfork(), pthread_create() and thread_local
// destructors need, and what Cowshed keeps.  Not so, among others: dlopen(), and what calls it, as
// getpwnam() and getaddrinfo() do; messages of dlerror(), and of strerror() for unknown numbers;
// thread_local variables of a library that was dlopen()ed, which glibc allocates at a thread's
// first use of them; and open_memstream().  An object's destructor may write after the freeze, and
// copying one that counts its owners does, as a std::regex: share it instead.  An exception thrown
// inside lies there too: catch it while the arena lives.  A block from before the scope that
// realloc() moves comes into the arena, and what the scope frees of other memory is not handed out
// again in it.
//
// Belongs to the thread that entered: what other threads allocate meanwhile is theirs, also those
// started inside.  Scopes nest; one that is destroyed before an inner one ends together with that.
// Destroyed by another thread, it ends when its own begins or ends a scope next.  With its thread
// it ends in any case.  The arena must
// outlive the scope, and cannot be frozen before it has ended.  In a forked child the scope is
// over.
class ArenaScope {
 public:
  // Errors: unsupported (cowshed::malloc is not linked, or is not the malloc that the program
  // uses, as with a sanitizer, or the program has an operator new that does not use malloc),
  // arena_frozen, not_inherited.
  static Expected<ArenaScope> enter(const Arena& arena);

  ArenaScope(ArenaScope&& other) noexcept : entered_(std::exchange(other.entered_, nullptr)) {}
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(ArenaScope&&) = delete;
  ~ArenaScope();

 private:
  explicit ArenaScope(EnteredScope* entered) : entered_(entered) {}

  EnteredScope* entered_;  // its thread's to delete
};

}  // namespace cowshed
