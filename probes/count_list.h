#pragma once

// Every count of a process, once: X(name, the kernel's counter in struct cowshed_process, column of
// `cowtop --wide`, kind in metrics, meaning).  An empty column or kind: not shown there.  The
// model, its sums, JSON, the page, tables, metrics and the glossary are made from this list, and a
// test compares the schema with it.
//
// A page is 4 KiB.  Counts with a kind are the classes of write faults: each fault has one.
#define COWSHED_COUNTS(X)                                                                        \
  X(copied_anon_pages, counts.faults[COWSHED_COPIED_ANON], "ANON", "copied_anon",                \
    "All pages copied in mappings without a file behind them: the heap, the stack.")             \
  X(copied_file_pages, counts.faults[COWSHED_COPIED_FILE], "FILE", "copied_file",                \
    "All pages copied in private mappings of files: a library's data, an arena.")                \
  X(reused_pages, counts.faults[COWSHED_REUSED], "REUSED", "reused",                             \
    "Written to when nobody else used the page any more: nothing was copied.")                   \
  X(zero_page_writes, counts.faults[COWSHED_ZERO_PAGE_WRITE], "ZERO", "zero_page",               \
    "First written after a read had mapped the zero page: a new page, no copy.")                 \
  X(zero_filled_pages, counts.zero_filled_pages, "FIRST", "zero_filled",                         \
    "First touched by this process: a new page of zeros.  A huge page counts as 512.")           \
  X(first_touches, counts.faults[COWSHED_ZERO_FILLED], "", "",                                   \
    "The faults of FIRST: a huge page is one.")                                                  \
  X(shared_memory_pages, counts.shared_memory_pages, "", "",                                     \
    "The part of FIRST in shared memory, which it made: memfds, MAP_SHARED, /dev/shm.")          \
  X(huge_splits, counts.huge_splits, "SPLIT", "",                                                \
    "Huge pages of 2 MiB that a write broke into 4 KiB pages; one of these is copied.")          \
  X(write_notify_faults, counts.faults[COWSHED_WRITE_NOTIFY], "NOTIFY", "write_notify",          \
    "First writes to a clean page of a shared file mapping: nothing was copied.")                \
  X(failed_faults, counts.faults[COWSHED_FAILED], "FAILED", "failed",                            \
    "Writes that were not allowed: SIGSEGV, SIGBUS or EFAULT.")                                  \
  X(other_faults, counts.faults[COWSHED_OTHER], "OTHER", "other",                                \
    "Other writes: the page was in the page cache, swapped out, or the like.")                   \
  X(collapsed_pages, collapsed_pages, "", "",                                                    \
    "Copied into a huge page by MADV_COLLAPSE or khugepaged, without a fault.")                  \
  X(copied_shared_file_pages, counts.copied_shared_file, "", "",                                 \
    "The part of FILE, without arenas and data, that a fork shared: written before by it or an " \
    "ancestor, or settled.")                                                                     \
  X(copied_merged_pages, counts.copied_merged, "", "",                                           \
    "Writes to pages that KSM had merged: part of ANON and FILE, but not of COPIED.")            \
  X(page_tables_at_fork_bytes, page_tables_at_fork, "", "",                                      \
    "Page tables that its fork made for it.")                                                    \
  X(copied_pages_before_exec, copied_before_exec, "", "",                                        \
    "The part of ANON and FILE before the first exec.")
