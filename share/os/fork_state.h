#pragma once

// What fork()'s handlers and a worker's first steps write to, in one place: each page of it is
// copied for each worker, and its parent's again.  A section whose name is that of an identifier is
// not spread over the program as .bss is, which has this library's tables between them.
#define COWSHED_FORK_STATE [[gnu::section("cowshed_fork_state")]]
