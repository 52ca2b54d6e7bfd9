#pragma once

#include <array>
#include <cstdint>
#include <string_view>

// The memory in which a running process names its arenas and published objects for tools outside
// it: cowtop, a debugger, a crash reporter.  share/process/published_layout.h writes it, and
// cow/arenas/published_layout.h reads it.  The two share this format and nothing else.
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
//
// Versions: `major` changes if an old reader would misread; a reader refuses one that it does not
// know.  `minor` changes if a field is added, always at the end of a struct; a reader uses the
// sizes in the header and ignores what it does not know.
//
// `sequence` is odd while the process writes.  A reader reads again if it finds an odd number, or
// another number after reading than before.
namespace cowshed::layout {

inline constexpr char kMemfdName[] = "cowshed-layout";
// Where it lies, unless that address was taken.  Arenas begin 1 GiB after it: both then share upper
// page tables, which each process has for itself.
inline constexpr std::uint64_t kUsualPlace = 0x200000000000;
inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 's', 'h', 'e', 'd', '\0'};
inline constexpr std::uint16_t kMajor = 1;
inline constexpr std::uint16_t kMinor = 1;

// Limits of a process; a reader uses the counts in the header.
inline constexpr std::uint32_t kMaxArenas = 1024;
inline constexpr std::uint32_t kMaxObjects = 1U << 16U;

struct Table {
  std::uint64_t offset = 0;       // from the start of the header
  std::uint32_t entry_bytes = 0;  // step from one entry to the next
  std::uint32_t count = 0;        // entries from this index on were never used
};

struct Header {
  std::array<char, 8> magic{};
  std::uint16_t major = 0;
  std::uint16_t minor = 0;
  std::uint32_t sequence = 0;
  std::uint64_t bytes = 0;  // of the whole mapping
  Table arenas;
  Table objects;
  // Since 1.1:
  Table transfers;
  Table transfer_lanes;  // an entry is a lane: a TransferCount for each entry of `transfers`
};

enum class ArenaState : std::uint32_t { vacant, open, strict, lenient };

struct Arena {
  std::uint64_t begin = 0;  // address; 0: vacant
  std::uint64_t end = 0;    // of the reserved range; less is mapped if the arena is frozen
  std::uint64_t used = 0;   // bytes from `begin`; for an open arena, at the last change of state
  ArenaState state = ArenaState::vacant;
  std::uint32_t reserved = 0;
  std::array<char, 64> name{};
};

struct Object {
  std::uint64_t address = 0;  // 0: vacant
  std::uint64_t bytes = 0;
  std::uint32_t alignment = 0;
  std::uint32_t arena = 0;       // index in the table of arenas
  std::uint32_t generation = 0;  // differs for every publication of a process tree
  std::uint32_t publisher = 0;   // the PID, as in its own PID namespace
  std::array<char, 64> name{};   // empty: published without one
  std::array<char, 160> type{};  // as the compiler writes it
};

// How an object is sent.
enum class TransferKind : std::uint32_t {
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

struct Transfer {
  TransferKind kind{};
  std::uint32_t reserved = 0;
  std::array<char, 16> origin{};  // "channel", "launch", "result", "freeze"
  std::array<char, 64> name{};    // of the channel or launch
  std::array<char, 168> type{};   // for people to read: no std::, no default arguments
};

struct TransferCount {
  std::uint64_t messages = 0;
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;
};

static_assert(sizeof(Header) == 88 && sizeof(Arena) == 96 && sizeof(Object) == 256);
static_assert(sizeof(Transfer) == 256 && sizeof(TransferCount) == 24);

}  // namespace cowshed::layout
