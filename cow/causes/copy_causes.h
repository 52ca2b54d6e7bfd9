#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/cow/causes/store_decoder.h>
#include <cowshed/cow/code_reader/refcount_scan.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/probes/samples.h>

// Names the causes of copies, from the stores of sampled copies.
//
// A cause needs strong evidence; else it is "own writes" or "unknown".  For each site (all samples
// of one instruction of one process) the first matching rule decides:
//
// "program exit"         Below a function that ends the program (ends_of_program()).  These samples
//                        of a site count here; a rule below decides for its others.
// "system call"          The kernel wrote for the program.
// "stack"                Push, call, or a store near the stack pointer.
// The object's own       The memory around the address shows it (object_cause.h), in the code of an
//                        interpreter: "reference count", "garbage collector", "allocator free
//                        list", "cached hash", "adaptive interpreter", "object flags".  Below a
//                        function of a collector it is "garbage collector".
// "relocation"           The dynamic linker wrote a word to a private mapping of a file.
// "bulk copy", "bulk fill"
//                        rep movs or rep stos with at least 1 KiB left.  Or, if most samples are at
//                        the beginning of a page, which a loop over memory crosses first: rep movs
//                        or stos, a series of stores of one vector register, and vector stores of
//                        memcpy and memset, by name or as a series in the C library.  Or a store of
//                        memcpy or memset that bypasses the caches, as for megabytes, or has at
//                        least 4 samples, most of them near the beginning of a page.  Or a store of
//                        memcpy with most samples at the end of a page: it may run backwards.
//                        (Elsewhere a series of two registers may be results of arithmetic.)
// "garbage collector"    One of the 3 innermost named functions has a name such as gc, or one of
//                        the first 8 begins a collection of OCaml, Ruby or R.  Or, in the
//                        binary of Ruby, PHP or an interpreter whose objects are not known, a store
//                        to a field of a node and a step to the next node, as a collector marks
//                        its lists.
// "allocator free list"  The innermost named function is malloc, free or similar, and stores a
//                        word.
// "reference count"      +1 or -1 to a word of 4 or 8 bytes at a fixed displacement in an object
//                        that is aligned to 16 bytes, not in a loop over an array.  The binary must
//                        also have at least 3 release sites for that displacement
//                        (code_reader/refcount_scan.h): a plain counter is never compared with
//                        zero.  With fewer than 4 such samples in a process the cause is unknown,
//                        because the alignment may be chance.  If the binary counts by
//                        std::shared_ptr, at displacements 8 and 12, an unlocked counter there must
//                        look like its control block: behind a pointer that other blocks have, too,
//                        and beside a second count.  Or the innermost named function is
//                        one by which std::shared_ptr counts, or Perl the users of a hash's key.
//                        Or Py_INCREF or Py_DECREF stores the word; since CPython 3.12 they load,
//                        test and store the count, so only debug information shows them, as
//                        inlined functions.  Or it is a count of a control block, which begins
//                        with a pointer to a vtable of the binary, and the binary has a release
//                        site for it.
// "lock or flag word"    xchg, cmpxchg, an atomic or, and, bts...; the same without the lock on one
//                        constant bit; a store in a function with the name of a lock.
// "own writes"           All else that code of the program stores: of a binary that is no
//                        interpreter, C library or dynamic linker.  Or that the C library copies or
//                        fills for it; or that an interpreter stores where the memory around shows
//                        no object's bookkeeping.
namespace cowshed::cow {

// Numbers of samples, which are added up word by word.
struct StoreCounts {
  std::uint64_t samples = 0;
  std::uint64_t copies = 0;  // that they stand for
  // Samples with this property:
  std::uint64_t aligned = 0;          // the operand's register is a multiple of 16
  std::uint64_t at_page_begin = 0;    // within the width of one store
  std::uint64_t near_page_begin = 0;  // within 512 bytes
  std::uint64_t at_page_end = 0;      // the last store of the page
  std::uint64_t in_file = 0;          // in a private mapping of a file
  std::uint64_t near_stack_pointer = 0;
  std::uint64_t control_blocks = 0;  // counts, behind a pointer to a vtable of the binary
  std::uint64_t like_the_last = 0;   // counts, behind the same pointer as in the sample before
  std::uint64_t programs_data = 0;   // is_programs_data()

  StoreCounts& operator+=(const StoreCounts& more);
};

// All samples of one instruction of one process.
struct StoreSite : StoreCounts {
  StoreInstruction store;
  std::string module;                        // path of the binary; empty: unknown
  Language interpreter = Language::native;   // that the binary is
  std::uint64_t address = 0;                 // of the instruction in the binary
  std::vector<std::string> functions;        // innermost first, without unknown ones
  bool is_generated = false;                 // or unknown code, of no binary
  std::string_view object_cause;             // that the written objects show; empty: none
  std::optional<std::string> system_call;    // if the kernel wrote: its name; empty: outside a call
  std::optional<std::uint64_t> last_vtable;  // vtable_of_control_block() of the last sample
  SampleSum at_exit;                         // below a function for which ends_program() holds
};

// Returns the number of release sites of a binary for a counter (code_reader/refcount_scan.h).
using ReleaseSites = std::function<std::size_t(const std::string& module, CounterField field)>;

// The causes of one process.
struct FoundCauses {
  // The most copies first, with "unknown".  The shares add up to 1.  Empty without samples.
  std::vector<CopyPattern> patterns;
  // Of each site, but for the samples that it has in at_exit.
  std::vector<std::string_view> of_sites;
};

FoundCauses find_causes(const std::vector<StoreSite>& sites, const ReleaseSites& release_sites);

}  // namespace cowshed::cow
