#pragma once

// Room cow/causes: decodes the store of a sampled copy and names the cause of the copies.  May use
// base, cow, cow/code_reader, cow/symbolize, probes.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/measurement.h>

// Why pages were copied: names for how sampled copies were first written to.
//
// A name is given where the evidence is strong; the rest is "unknown".  The rules, the first that
// holds for a site (one instruction of one process, all its samples together) decides:
//
// "system call"          the kernel wrote, on the program's behalf.
// "stack"                push, call, or a store just around the stack pointer.
// "relocation"           the dynamic linker wrote a word to a private mapping of a file.
// "bulk copy", "bulk fill"  rep movs or rep stos with 1 KiB and more to go; those, one vector
//                        register stored in series, and vector stores of memcpy and memset, by name
//                        or in series in the C library, where most samples are at the beginning of
//                        a page: so the stores came running.  Of memcpy and memset also those that
//                        go past the caches, which they do with megabytes, and 4 samples and more
//                        of which most are near the beginning of a page, as they are where blocks
//                        lie one behind another; and of memcpy those of which most are the last of
//                        their page: it may come running from the end.  (Two registers stored in
//                        series elsewhere may be results of arithmetic.)
// "garbage collector"    a function with gc in its name, or the like, is one of the 3 innermost
//                        that have a name.  Or, in an interpreter's binary, a store to a field of a
//                        node and then a step to the next node, as a collector's marking of its
//                        lists does.
// "allocator free list"  malloc, free or the like is the innermost that has a name, and it stores
//                        a word.
// "reference count"      +1 or -1 to a word of 4 or 8 bytes at a fixed place of an object that is
//                        aligned as allocators align (16 bytes), not in a walk through an array;
//                        and the same binary has at least 3 places that take 1 off a word at such a
//                        place and jump on zero.  Only who counts references has these: a plain
//                        counter that lies as well aligned goes up and is never asked whether it
//                        is zero.  Of a process with fewer than 4 such samples, they are unknown:
//                        they may lie so by chance.  Or a word that the functions which
//                        std::shared_ptr counts by write: they are the innermost that have a name.
//                        Or one that Py_INCREF or Py_DECREF stores, which since CPython 3.12 load
//                        the count, ask whether it is immortal, and store it: so only where debug
//                        information has their names, as they are inlined.
// "lock or flag word"    xchg, cmpxchg, an atomic or, and, bts...; the same without the lock on one
//                        constant bit; a store in a function that is named for a lock.
namespace cowshed::cow {

// All samples of one instruction of one process.
struct StoreSite {
  StoreInstruction store;
  std::string module;                      // path of the binary; empty: not known
  std::uint64_t address = 0;               // of the instruction in it
  std::vector<std::string> functions;      // innermost first; those that are not known left out
  std::optional<std::string> system_call;  // the kernel wrote: its name; empty: on another occasion
  std::uint64_t samples = 0;
  // Of the samples:
  std::uint64_t aligned = 0;          // the operand's register was a multiple of 16
  std::uint64_t at_page_begin = 0;    // not further than one store's width from it
  std::uint64_t near_page_begin = 0;  // not further than 512 bytes
  std::uint64_t at_page_end = 0;      // the store was the page's last
  std::uint64_t in_file = 0;          // in a private mapping of a file
  std::uint64_t near_stack_pointer = 0;
};

// How many places of a binary release a reference that is counted in such a field.
using ReleaseSites = std::function<std::size_t(const std::string& module, CounterField field)>;

// The patterns of one process's sites, most samples first, "unknown" among them; the shares sum
// to 1.  None where there are no samples.
std::vector<CopyPattern> find_patterns(const std::vector<StoreSite>& sites,
                                       const ReleaseSites& release_sites);

}  // namespace cowshed::cow
