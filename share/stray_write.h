#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

// A store into a strictly frozen arena ends the program with SIGSEGV, as any store to read-only
// memory does.  Before that it is told what was hit.
namespace cowshed {

// Fixed size and no pointers: made in a signal handler.  Names end in '\0'.
struct StrayWrite {
  std::array<char, 64> arena;
  std::uintptr_t address;       // the first byte that could not be written
  std::size_t arena_offset;     // of `address` in the arena
  std::uintptr_t instruction;   // program counter of the store; 0 where not x86-64
  std::array<char, 64> object;  // the published object that `address` lies in itself, or ""
  std::size_t object_offset;    // of `address` in it
};

// Runs in the signal handler, on the thread that wrote (on its sigaltstack if it has one): only
// async-signal-safe functions are allowed (see man 7 signal-safety).
using StrayWriteCallback = void (*)(const StrayWrite& write, void* context) noexcept;

// Replaces the callback; null for none.  Set it before workers are started; they inherit it.
//
// The SIGSEGV handler is installed at the first strict freeze of the process.  After the callback,
// and at once for any other SIGSEGV, it passes on to the handler that was there before; with none
// the process dies of the original SIGSEGV.  A program that installs its own handler later is
// expected to pass on what it does not know, as this one does.
void set_stray_write_callback(StrayWriteCallback callback, void* context = nullptr);

// "wrote to frozen arena 'index' at 0x20000000f010 (object 'index' + 16)".  Not for handlers.
std::string to_string(const StrayWrite& write);

namespace internal {
// Called once at the first strict freeze; 0 or errno.
int install_stray_write_handler();
// Also copies the record there, then calls `done`.  For the launcher's children.
void set_stray_write_sink(StrayWrite* sink, void (*done)() noexcept);
}  // namespace internal

}  // namespace cowshed
