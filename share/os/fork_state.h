#pragma once

// Puts variables that fork handlers and a worker's first steps write to side by side, because each
// fork copies each page that they are on, twice.  In .bss this library's tables would lie between
// them.  The linker keeps a section whose name is an identifier in one piece.
#define COWSHED_FORK_STATE [[gnu::section("cowshed_fork_state")]]
