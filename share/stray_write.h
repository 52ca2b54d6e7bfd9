#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

// A write to a strictly frozen arena ends the program by SIGSEGV, as any write to read-only memory.
// So does a read or a write, in a forked child, of what was not frozen before the fork.  Before
// that, one line on standard error names the arena, the address and the published object.
// The line is dropped where it would wait, and where standard error is another file than when the
// program began.  A worker of start() does not print it: WorkerExit::error has it.
//
// Exception: a process may destroy the objects of an arena that it froze, once it has no child
// process.  After it has freed a frozen block, its next write makes the arena lenient for it.  If
// it forks after that, the write is reported and ends it then, because a child would have what was
// written; save_image() and refreeze() are errors.  (_Fork() and vfork() are not noticed.)
namespace cowshed {

// What was written to.  Has a fixed size and no pointers, because a signal handler fills it in.
struct StrayWrite {
  std::array<char, 64> arena;   // its name, ended by '\0'
  std::uintptr_t address;       // of the first byte that could not be written, or read
  std::size_t arena_offset;     // of `address` in the arena
  std::uintptr_t instruction;   // the program counter
  std::array<char, 64> object;  // the name of the published object that has `address`, or ""
  std::size_t object_offset;    // of `address` in that object
  // The only published object of the arena, or "": most likely what the memory belongs to.
  std::array<char, 64> owner;
  bool inherited;  // false: it was not frozen before the fork, so this process does not have it
};

// Called in the signal handler, on the thread that wrote, on its sigaltstack if it has one.  May
// only call async-signal-safe functions (man 7 signal-safety).
using StrayWriteCallback = void (*)(const StrayWrite& write, void* context) noexcept;

// Sets a callback, which replaces the line; null brings the line back.  Forked workers inherit it:
// set it before you start them.
//
// The first strict freeze of a process installs the SIGSEGV handler, and the fork in a child that
// does not inherit all of an arena.  After the report, and for
// any other SIGSEGV, the handler calls the one that was installed before it.  Without one, the
// process dies of the original SIGSEGV.  A handler that the program installs later must pass on
// what it does not know, as this one does.
void set_stray_write_callback(StrayWriteCallback callback, void* context = nullptr);

// Returns "wrote to frozen arena 'index' at 0x20000000f010 (object 'index' + 16)", or what else it
// is, and what to do.  Allocates, so it is not for signal handlers.
std::string to_string(const StrayWrite& write);

namespace internal {
// Installs the SIGSEGV handler unless it is there.  Returns 0 or an errno.
int install_stray_write_handler();
// Makes the handler also fill in `sink` and call `done`, in this process only.  For workers.
void set_stray_write_sink(StrayWrite* sink, void (*done)() noexcept);
}  // namespace internal

}  // namespace cowshed
