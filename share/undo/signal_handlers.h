#pragma once

// Whether a signal's handler runs, which may have interrupted malloc().  x86-64 alone knows
// handlers other than those of a crash.
namespace cowshed::undo {

// Asks where the handlers that the C library installs return to.  Call it before the program has
// threads; it installs one of SIGURG for a moment.
void find_restorer_of_libc();

// In this thread.  Allocates nothing.
bool is_in_signal_handler();

}  // namespace cowshed::undo
