#pragma once

#include <cowshed/base/collapse.h>
#include <cowshed/base/error.h>
#include <cowshed/share/settle/options.h>

// Makes fork() quick for memory that is already there.  fork() copies the page tables of private
// memory, some 10 ms per GiB.  settle() moves the memory into memfds and maps them privately at the
// same addresses, and fork() copies no page tables for such a mapping until somebody writes to it.
//
//   load(data);                         // with malloc, new, std containers
//   auto settled = cowshed::settle();   // pointers stay valid
//   if (!settled) std::cerr << settled.error().message << '\n';
//   for (;;) serve_by_fork(data);       // each fork() takes about as long as in an empty process
//
// Settle data that stays.  docs/how-to/settle.md says whom it serves, and what it costs.
namespace cowshed {

// Moves private memory into memfds, at the same addresses.  Returns what it moved, and what it
// left. It moves only memory that is known to tolerate it: glibc's heap, and .also.  It leaves
// stacks, memory that is locked, sealed, in huge pages of hugetlbfs, of userfaultfd, KSM or a
// protection key, memory with MADV_DONTFORK, MADV_WIPEONFORK or MADV_DONTDUMP, and all memory of
// other allocators.
//
// Called again, it moves what is new.  It also moves a settled mapping anew if an eighth of it, and
// 256 KiB, was written since.  fork() copies the page tables of a mapping that was written, 16 MiB
// or 1/64 of the memory, and each such page is there twice.
//
// Memory: at most 16 MiB are there twice at any time, unless an older child shares them: settle
// before the first fork.  A page that is written afterwards is there twice, also by free() and by
// destructors at the end.  A page that was never written is allocated when it is read.  Where the
// program gives back a part of a large block by MADV_DONTNEED, it reads the old bytes again.  The
// pages belong to the memfds from then on, and are shared memory for memory cgroups, RSS and PSS.
// What the program frees stays in a memfd until all of its mapping is gone, or the process has
// ended.  Policies of mbind(2) and hints of MADV_HUGEPAGE are lost.  realloc() of a settled block
// of more than 16 MiB copies it, where it moved its pages before.
//
// Errors: threads_running (see OtherThreads; or a thread cannot be stopped), in_use (another
// thread is in this call), unsupported (a sanitizer or valgrind; malloc is not glibc's and .also is
// empty; I/O, see .io_is_at_rest; a process that shares its memory with its parent, as after
// vfork(2), unless a sandbox hides that), out_of_memory (also if a limit on address space leaves
// none to plan the move), system_call (a sandbox refuses /proc or a call; ENOMEM: a limit on
// mappings or address space is met).  If it fails after it has moved a range, it returns what it
// moved, and .left has the reason.  A range of up to 16 MiB is moved whole or not at all.
//
// Threads: see OtherThreads.  They must not change attributes of mappings meanwhile (mlock,
// madvise). Signals wait while up to 64 MiB are moved.  Processes that share this process's memory
// (vfork(2), CLONE_VM) or write to it (process_vm_writev(2), debuggers) must not write meanwhile.
//
// Fork: a child has the settled memory, may write to it, and may settle it again.
Expected<Settled> settle(const SettleOptions& options = {});

// Moves settled memory back into private memory, a range of at most 16 MiB at once.  Uses only
// .leave, .threads, .stop_timeout, .io_is_at_rest and .progress.  Returns and fails as settle()
// does.
Expected<Settled> unsettle(const SettleOptions& options = {});

// Undoes copies that changed nothing.  A write to a settled page copies it for this process, and
// often the page holds the memfd's bytes again soon: a reference count went up and down.  Compares
// each such copy with the memfd's page, and gives it back if both are equal.  The next read sees
// the shared page again.  Returns how much it compared and gave back, and what it left.
//
//   for (;;) {
//     serve(connections);                                    // a worker, forked after settle()
//     auto reshared = cowshed::reshare({.cold_for = 1s, .cpu_share = 0.01});
//   }
//
// Takes the memory that settle() moved, in this process or in one that it was forked from, wherever
// the program has mapped it since.  Leaves .leave, copies in swap, locked memory and the like (as
// settle() does), and memory that is not readable and writable.  A copy that other processes share,
// made before they were forked, takes memory until all of them have given it back.
//
// Memory: it maps up to 16 MiB a second time for a moment.  Errors: as settle()'s.  If it fails
// after it gave back a page, it returns what it did, and .left has the reason.
//
// Threads: see OtherThreads.  With `stop` it compares while they run, stops them, and compares what
// was equal once more, up to 16 MiB at a time.  They and other processes must not do what settle()
// forbids.  Fork: parents and children may call it.
Expected<Reshared> reshare(const ReshareOptions& options = {});

// Puts this process's private memory into 2 MiB pages, where it is dense, whatever malloc it is of.
// fork() is quick then until somebody writes while a child lives: each such write splits a 2 MiB
// page.  So call it before each fork.  Returns what it did, and the memory that it left, by reason
// (base/collapse.h).  Bytes and addresses stay.  Each call may fill holes of up to .most_added.
//
// It takes some 2 s of CPU a GiB at first, and stops 32 MiB before a memory limit.  `cowtop
// collapse` does the same from outside.  Memory that settle() has moved is not private: see
// SettleOptions::huge_pages.
//
// Errors: unsupported (Linux before 6.1; no transparent huge pages, or PR_SET_THP_DISABLE),
// permission_denied (/proc/self/pagemap cannot be read, as after setuid(2)), system_call.
//
// Threads: the others run on.  A page fault or a fork waits for up to some ms.  Fork: a child may
// call it, but memory that it shares with its parent is left.
Expected<Collapsed> collapse_heap(const CollapseOptions& options = {});

}  // namespace cowshed
