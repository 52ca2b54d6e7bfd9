#pragma once

#include <string>
#include <vector>

#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/pages.h>

// Recognises the memory of glibc's malloc.
namespace cowshed::settling {

// Returns "" if malloc is glibc's own, or else whose it is: a path, or "another library".
std::string foreign_malloc();

// A part of a mapping that is glibc's.
struct HeapPart {
  Range range;
  SettledKind kind;
  // Where the words lie that prove it: a heap's first page, or a block's header at or below
  // `range`.
  std::uintptr_t proof = 0;
};

// Returns the parts of anonymous and settled mappings that are glibc's, by address.
//
// * The main heap is what brk(2) has given, which the kernel calls [heap].
// * A thread heap begins at a multiple of 64 MiB, with a header that names its arena and its size.
//   The size must agree with the mapping.
// * A large block begins at a page, with its size and the flag IS_MMAPPED.  glibc counts such
// blocks.
//   If as many are found, of as many bytes, all are right.  If not, only mappings that consist of
//   such blocks are taken.
std::pmr::vector<HeapPart> find_heap(const Mappings& mappings, const OwnPages& pages);

// Whether the proof of a thread heap or of large blocks still stands, so that nobody has unmapped
// the part and used its addresses for something else.  The proof and the range are readable.
// Allocates nothing.
bool is_still_heap(const HeapPart& part);

}  // namespace cowshed::settling
