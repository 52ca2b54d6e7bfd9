#pragma once

#include <array>
#include <cstdint>
#include <string_view>

// How a running process names its arenas and published objects to whoever looks at it from outside:
// cowtop, a debugger, a crash reporter.  Written by share/process/published_layout.h, read by
// cow/arenas/published_layout.h, which know nothing else of each other.
//
// It is a private mapping of a memfd, so that it shows in /proc/PID/maps as
// "/memfd:cowshed-layout (deleted)" and that each process has its own: what a child publishes does
// not show in its parent.  The memfd itself says nothing; read the process's view, by pread(2) on
// /proc/PID/mem.  (Not by process_vm_readv, which gives the process copies of what it shares.)
//
// Integers are of the machine's byte order, x86-64's.  The header is at offset 0 and names the
// place, entry size and count of its tables.  In those of arenas and objects, an entry's index
// stays its own for as long as it is there, and the first 8 bytes of a vacant entry are 0.  Text
// ends with a NUL unless it fills its field, and is cut off at that: it may be any bytes.
//
// Since version 1.1 there are two tables of what the process has sent.  One says what is counted;
// its entries are complete when its count says so, and never change.  The other has the counts, in
// lanes, so that threads need not meet: in every lane, count i belongs to entry i, and the sum over
// all lanes is what was sent.  Counts only grow, and are written without the sequence below.
//
// Versions: `major` changes when an old reader would misread, and a reader refuses one that it does
// not know.  `minor` changes when something is added, which is always at the end of a struct; a
// reader steps by the sizes in the header, and ignores what it does not know.
//
// `sequence` is odd while the process writes.  A reader that finds it odd, or another number after
// reading than before, reads again.
namespace cowshed::layout {

inline constexpr char kMemfdName[] = "cowshed-layout";
inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 's', 'h', 'e', 'd', '\0'};
inline constexpr std::uint16_t kMajor = 1;
inline constexpr std::uint16_t kMinor = 1;

// The most that a process can have; a reader goes by the counts in the header.
inline constexpr std::uint32_t kMaxArenas = 1024;
inline constexpr std::uint32_t kMaxObjects = 1U << 16U;

struct Table {
  std::uint64_t offset = 0;       // from the start of the header
  std::uint32_t entry_bytes = 0;  // step from one entry to the next
  std::uint32_t count = 0;        // entries from here on were never used
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
  Table transfer_lanes;  // an entry is a lane: a TransferCount for each that `transfers` can have
};

enum class ArenaState : std::uint32_t { vacant, open, strict, lenient };

struct Arena {
  std::uint64_t begin = 0;  // address; 0: vacant
  std::uint64_t end = 0;    // of the reserved range, more than what is mapped when frozen
  std::uint64_t used = 0;   // bytes from `begin`; of an open arena as of the last change here
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

// How something is sent.
enum class TransferKind : std::uint32_t {
  value = 1,  // copied, or serialised
  reference,  // stays where it is; the receiver is told where
  moved,      // handed over where it is
  inherited,  // nothing was sent: a forked worker has it
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
  std::array<char, 16> origin{};  // "channel", "launch"
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
