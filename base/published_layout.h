#pragma once

#include <linux/types.h>

#ifdef __cplusplus
#include <string_view>
#else
#define static_assert _Static_assert
#endif

// The memory in which a running process names its arenas and published objects for tools outside
// it: cowtop, a debugger, a crash reporter.  share/process/published_layout.h writes it.
// cow/arenas/published_layout.h and, at a fork, probes/bpf/published_arenas.bpf.h read it.  They
// share this format, in plain C, and nothing else.
//
// Where: a private mapping of a memfd, shown in /proc/PID/maps as "/memfd:cowshed-layout
// (deleted)". Each process has its own, so the parent does not have what a child publishes.  The
// memfd is empty: read the process's memory, by pread(2) on /proc/PID/mem.  (process_vm_readv(2)
// would make the process copy pages that it shares.)
//
// Format: integers in the byte order of x86-64.  The header is at offset 0, and gives each table's
// offset, entry size and count.  Entries of arenas and objects keep their index while they exist.
// The first 8 bytes of a vacant entry are 0.  Text is any bytes; it ends at a NUL, or at the end of
// its field, where it is cut off.
//
// Since version 1.1 two tables say what the process has sent.  An entry of `transfers` says what is
// counted, and never changes once the table's count includes it.  `transfer_lanes` has the counts,
// in several lanes so that threads do not share one.  Count i of each lane belongs to entry i; the
// sum over all lanes is the total.  Counts only grow, and are written without the sequence below.
// Since version 1.3 entry 0 is no transfer: the `bytes` of a lane's count 0 are the PID of the
// process that counts there, as in its own PID namespace.  A child has the counts of its parent
// until its fork handler drops them.
//
// Since version 1.2 `settled_bytes` says how much of the heap settle() has moved into memfds.
//
// Versions: `major` changes if an old reader would misread; a reader refuses one that it does not
// know.  `minor` changes if a field is added, always at the end of a struct; a reader uses the
// sizes in the header and ignores what it does not know.
//
// `sequence` is odd while the process writes.  A reader reads again if it finds an odd number, or
// another number after reading than before.

// C has one namespace and the kernel's style.  NOLINTBEGIN(readability-identifier-naming)

#define COWSHED_LAYOUT_MEMFD "cowshed-layout"
#define COWSHED_LAYOUT_MAGIC 0x0064656873776f43ULL /* "Cowshed" and a NUL */
#define COWSHED_LAYOUT_MAJOR 1
#define COWSHED_LAYOUT_MINOR 3

// It lies at the first of these addresses that is free when it is made, and anywhere if none is.
// If a process has two copies of the library, in Python's package and preloaded, each has a layout.
// Each is beside a range of arenas (share/process/tree.h): both then share upper page tables, which
// each process has for itself.
static const __u64 cowshed_layout_places[2] = {0x200000000000, 0x7eff00000000};

// Limits of a process; a reader uses the counts in the header.
#define COWSHED_MAX_ARENAS 1024
#define COWSHED_MAX_OBJECTS 65536

struct cowshed_layout_table {
  __u64 offset;       // from the start of the header
  __u32 entry_bytes;  // step from one entry to the next
  __u32 count;        // entries from this index on were never used
};

struct cowshed_layout {
  __u64 magic;
  __u16 major;
  __u16 minor;
  __u32 sequence;
  __u64 bytes;  // of the whole mapping
  struct cowshed_layout_table arenas;
  struct cowshed_layout_table objects;
  // Since 1.1:
  struct cowshed_layout_table transfers;
  struct cowshed_layout_table transfer_lanes;  // an entry is a lane: a count for each transfer
  // Since 1.2: bytes in private mappings of memfds named cowshed-settled:KIND, without holes.  What
  // the process has written there since is still counted.
  __u64 settled_bytes;
};

enum cowshed_arena_state {
  COWSHED_ARENA_VACANT,
  COWSHED_ARENA_OPEN,
  COWSHED_ARENA_STRICT,  // frozen, as those after it
  COWSHED_ARENA_LENIENT,
};

struct cowshed_published_arena {
  __u64 begin;  // address; 0: vacant
  __u64 end;    // of the reserved range; less is mapped if the arena is frozen
  __u64 used;   // bytes from `begin`; for an open arena, at the last change of state
  __u32 state;  // enum cowshed_arena_state
  __u32 reserved;
  char name[64];
};

struct cowshed_published_object {
  __u64 address;  // 0: vacant
  __u64 bytes;
  __u32 alignment;
  __u32 arena;       // index in the table of arenas
  __u32 generation;  // differs for every publication of a process tree
  __u32 publisher;   // the PID, as in its own PID namespace
  char name[64];     // empty: published without one
  char type[160];    // as the compiler writes it
};

struct cowshed_transfer {
  __u32 kind;  // layout::TransferKind
  __u32 reserved;
  char origin[16];  // "channel", "launch", "result", "freeze"
  char name[64];    // of the channel or launch
  char type[168];   // for people to read: no std::, no default arguments
};

struct cowshed_transfer_count {
  __u64 messages;
  __u64 objects;
  __u64 bytes;
};

// NOLINTEND(readability-identifier-naming)

static_assert(sizeof(struct cowshed_layout) == 96 && sizeof(struct cowshed_published_arena) == 96 &&
                  sizeof(struct cowshed_published_object) == 256 &&
                  sizeof(struct cowshed_transfer) == 256 &&
                  sizeof(struct cowshed_transfer_count) == 24,
              "in each language the sizes of version 1.3");

#ifdef __cplusplus
namespace cowshed::layout {

using Table = cowshed_layout_table;
using Header = cowshed_layout;
using Arena = cowshed_published_arena;
using Object = cowshed_published_object;
using Transfer = cowshed_transfer;
using TransferCount = cowshed_transfer_count;

// How an object is sent.
enum class TransferKind : __u32 {
  value = 1,  // copied, or serialised
  reference,  // only its address is sent
  moved,      // the receiver gets the memory itself
  inherited,  // nothing is sent: a forked worker has it
};

constexpr std::string_view to_string(TransferKind kind) {
  switch (kind) {
    case TransferKind::value: return "value";
    case TransferKind::reference: return "reference";
    case TransferKind::moved: return "moved";
    case TransferKind::inherited: return "inherited";
  }
  return "unknown";
}

}  // namespace cowshed::layout
#endif
