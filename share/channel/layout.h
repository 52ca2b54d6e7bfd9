#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <cowshed/base/arch/arch.h>

// The structs of a channel's shared memory; docs/explanation/channel-protocol.md says how they are
// used.  Not for users.
//
// The file is: Constants, Control, a Word for each block, the ring of slots, the blocks.  A new
// channel has memory for the first two.  Zeros are a valid beginning of everything behind them.
//
// Any process of the channel can write anything here at any time.  So each word is loaded once.  A
// value that becomes an index, a size or a bound passes through a function that takes the limit:
// Bound::load, Place::place, pieces_of, ByteSlot::is_possible, ByteSlot::block, party_at.
namespace cowshed::channel_layout {

inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'C', 'h', 'a', 'n', '\0'};
inline constexpr std::uint64_t kVersion = 6;
using arch::kHugePage;
inline constexpr std::size_t kPage = arch::kLargestPage;
// Index 0 of each is the creator's.
inline constexpr std::uint32_t kParties = 1 + 1024;
inline constexpr std::uint32_t kHands = 1 + 1024;
inline constexpr std::uint64_t kMostSlots = std::uint64_t{1} << 24U;
inline constexpr std::uint64_t kMostMemory = std::uint64_t{1} << 40U;
inline constexpr std::uint64_t kLeastBlock = 256;
inline constexpr std::uint32_t kClasses = 33;  // blocks of 256 bytes to 1 TiB
inline constexpr std::uint64_t kSmallMessage = 192;

// The file's first page, written once.  Plan computes all offsets from it.
struct Constants {
  std::array<char, 8> magic{};
  std::uint64_t version = 0;
  std::uint64_t type = 0;        // hash over the type's mangled name, size and alignment
  std::uint64_t slot_bytes = 0;  // a multiple of 8
  std::uint64_t slots = 0;
  std::uint64_t memory = 0;  // 0: there are no blocks, because messages are values
  std::array<char, 64> name{};
  std::array<char, 160> type_name{};
};

// A party is a process that takes part.  Its id: the low 16 bits are its index + 1, the others the
// generation of that index.  0: no party.
using PartyId = std::uint32_t;
inline constexpr PartyId kGeneration = 1U << 16U;
constexpr std::uint32_t index_of(PartyId id) { return (id & 0xffffU) - 1; }

// A shared number that limits a search.
class Bound {
 public:
  // The value, at most `most`.
  std::uint32_t load(std::uint32_t most) const {
    const std::uint32_t value = value_.load();
    return value < most ? value : most;
  }
  void store(std::uint32_t value) { value_.store(value, std::memory_order_relaxed); }
  void raise_to(std::uint32_t value) {
    std::uint32_t before = value_.load(std::memory_order_relaxed);
    while (before < value && !value_.compare_exchange_weak(before, value)) {
    }
  }
  void lower_to(std::uint32_t value) {
    if (value < value_.load(std::memory_order_relaxed)) store(value);
  }

 private:
  std::atomic<std::uint32_t> value_;
};

struct Party {
  std::atomic<PartyId> id;  // while the index is free: only the last generation
  std::atomic<std::uint32_t> pid;
  std::atomic<std::uint64_t> pid_namespace;            // inode
  std::array<std::atomic<std::uint32_t>, 3> sleepers;  // its share of items, space, memory
};
constexpr bool is_live(PartyId id) { return (id & 0xffffU) != 0; }
// Whether `id` is `other`, or an earlier party with the same index.
constexpr bool is_or_precedes(PartyId id, PartyId other) {
  return index_of(id) == index_of(other) && static_cast<std::int32_t>(id - other) <= 0;
}

// A futex word.  The lowest bit says that a thread sleeps; the others are a sequence number.
using Event = std::atomic<std::uint32_t>;

// A holder's high half is the party.  Its low half is the thread, and how the thread has the lock:
// it is inside; or the lock *rests* with it, and the thread enters by a store to an element of
// `inside`; or that is *withdrawn*, and others take the lock once that element is 0.
constexpr std::uint64_t holder_of(PartyId party, std::uint32_t thread) {
  return std::uint64_t{party} << 32U | thread;
}
inline constexpr std::uint64_t kRests = 1U << 31U;
inline constexpr std::uint64_t kWithdrawn = 1U << 30U;
inline constexpr std::uint32_t kRestShift = 22;  // Linux' PIDs are smaller than 2^22
inline constexpr std::uint32_t kMostRests = 3;
constexpr PartyId party_of(std::uint64_t holder) { return static_cast<PartyId>(holder >> 32U); }
constexpr std::uint32_t thread_of(std::uint64_t holder) {
  return holder & ((1U << kRestShift) - 1);
}
constexpr bool is_at_rest(std::uint64_t holder) { return (holder & (kRests | kWithdrawn)) != 0; }
constexpr bool rests_with(std::uint64_t holder, std::uint64_t thread) {
  return ((holder ^ thread) & ~(std::uint64_t{3} << kRestShift)) == kRests;
}
constexpr std::uint32_t rest_of(std::uint64_t holder) {
  const std::uint32_t rest = holder >> kRestShift & 3U;
  return rest < kMostRests ? rest : 0;
}

struct Lock {
  std::atomic<std::uint64_t> holder;                          // 0: the lock is free
  std::array<std::atomic<std::uint64_t>, kMostRests> inside;  // 0, or the thread, as a holder
  std::atomic<std::uint64_t> last;                            // who was the holder last
  std::atomic<std::uint32_t> in_a_row;                        // how often that one was
  std::atomic<std::uint32_t> rests;                           // how many were begun
  Event released;

  // Who is inside; 0: nobody.  Of a lock that rests, exact only after a barrier in its thread.
  std::uint64_t occupant() const {
    const std::uint64_t now = holder.load();
    return is_at_rest(now) ? inside[rest_of(now)].load() : now;
  }
};

// The messages that a receiving thread took last, which it still holds.
struct alignas(arch::kCacheLine) Hand {
  std::atomic<std::uint64_t> owner;  // 0, hand_of(), that with kBeingTaken, or lost_by()
  std::atomic<std::uint64_t> held;   // held(); 0: none
};
inline constexpr std::uint64_t kMostInHand = (1U << 12U) - 1;
// The first message's number, and in the low 12 bits the count.
constexpr std::uint64_t held(std::uint64_t first, std::uint64_t count) {
  return (first << 12U) | count;
}
constexpr std::uint64_t first_of(std::uint64_t held) { return held >> 12U; }
constexpr std::uint64_t count_of(std::uint64_t held) { return held & kMostInHand; }
// The party empties the hand before it owns it.  After its death the owner becomes lost_by(its
// PID).
inline constexpr std::uint64_t kBeingTaken = 1;
constexpr std::uint64_t hand_of(PartyId id) { return std::uint64_t{id} << 32U; }
constexpr std::uint64_t lost_by(std::uint32_t pid) { return pid == 0 ? ~0U : pid; }
constexpr bool is_lost(std::uint64_t owner) { return owner != 0 && (owner >> 32U) == 0; }

// Where a chunk of the ring lies, and how many places the ring has used up to that chunk.
class Place {
 public:
  constexpr Place(std::uint32_t bits) : bits_(bits) {}
  constexpr Place(std::uint32_t place, std::uint32_t used) : bits_(used << 16U | place) {}
  constexpr std::uint32_t bits() const { return bits_; }
  // The place, one of `places`.
  constexpr std::uint32_t place(std::uint32_t places) const {
    const std::uint32_t place = bits_ & 0xffffU;
    return place < places ? place : 0;
  }
  // At most `places`.
  constexpr std::uint32_t used(std::uint32_t places) const {
    const std::uint32_t used = bits_ >> 16U;
    return used < places ? used : places;
  }

 private:
  std::uint32_t bits_;
};
inline constexpr std::uint64_t kMostChunks = 256;  // that a full ring fills
inline constexpr std::uint64_t kPlaces = 2 * kMostChunks;

// A block is of a class, which is its size.  Its memory is counted in pieces: pages, or the block
// itself if that is smaller.
constexpr std::uint64_t block_bytes(std::uint32_t block_class) {
  return kLeastBlock << block_class;
}
constexpr std::uint64_t piece_bytes(std::uint32_t block_class) {
  return block_bytes(block_class) < kPage ? block_bytes(block_class) : kPage;
}
constexpr std::uint64_t pieces_of_block(std::uint32_t block_class) {
  return block_bytes(block_class) / piece_bytes(block_class);
}

// A block's word: the owner in the high half, a number of pieces, the state in the low 2 bits.  The
// pieces are those that are in use; of a free block, those that have memory for certain.
using Word = std::atomic<std::uint64_t>;
enum class BlockState : std::uint8_t { free, owned, queued };
constexpr std::uint64_t block_word(BlockState state, PartyId id, std::uint64_t pieces) {
  return std::uint64_t{id} << 32U | pieces << 2U | static_cast<std::uint64_t>(state);
}
constexpr BlockState state_of(std::uint64_t word) { return static_cast<BlockState>(word & 3U); }
// The word's number of pieces, at most those of a block of this class.
constexpr std::uint64_t pieces_of(std::uint64_t word, std::uint32_t block_class) {
  const std::uint64_t pieces = (word & 0xffffffffU) >> 2U;
  const std::uint64_t most = pieces_of_block(block_class);
  return pieces < most ? pieces : most;
}
constexpr std::uint64_t with_state(std::uint64_t word, BlockState state, PartyId id) {
  return std::uint64_t{id} << 32U | (word & 0xfffffffcU) | static_cast<std::uint64_t>(state);
}

// kClosing: a process is inside close().  The channel still counts as open.
enum Closing : std::uint32_t { kOpen, kClosing, kClosed };
// kAsked: every sender makes the eventfd readable.  kPolled: it is readable for earlier messages,
// too.
enum Polling : std::uint32_t { kNever, kAsked, kPolled };

struct Totals {
  std::uint64_t bytes = 0;
  std::uint64_t moved = 0;  // messages
  std::uint64_t moved_bytes = 0;
};
class SharedTotals {
 public:
  Totals load() const {
    return {bytes_.load(std::memory_order_acquire), moved_.load(std::memory_order_acquire),
            moved_bytes_.load(std::memory_order_acquire)};
  }
  void store(const Totals& totals) {
    bytes_.store(totals.bytes, std::memory_order_relaxed);
    moved_.store(totals.moved, std::memory_order_relaxed);
    moved_bytes_.store(totals.moved_bytes, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> bytes_;
  std::atomic<std::uint64_t> moved_;
  std::atomic<std::uint64_t> moved_bytes_;
};

// Each member is written by one side and read by the other, or is seldom written.  So they
// lie apart.
struct Control {
  struct alignas(arch::kApart) Side {
    Lock lock;
    std::atomic<std::uint64_t> seen;  // the other side's index when it was last loaded
  };
  struct alignas(arch::kApart) Index {
    std::atomic<std::uint64_t> value;
  };
  struct alignas(arch::kApart) Sleep {
    Event event;
    std::atomic<std::uint32_t> sleepers;  // an upper bound: killed ones stay until a sweep
  };

  Side sender;
  Index tail;
  Side receiver;
  Index head;
  Sleep items;   // receivers wait here for a message
  Sleep space;   // senders wait here for a slot
  Sleep memory;  // senders wait here for a block
  struct alignas(arch::kApart) Seldom {
    std::atomic<std::uint32_t> closed;  // Closing
    std::atomic<std::uint32_t> polled;  // Polling
    std::atomic<std::uint64_t> swept;   // when, in ns of CLOCK_MONOTONIC
    std::atomic<std::uint64_t> lost_before;
    Bound parties_used;  // indices from here on were never used
    Bound hands_used;
    Bound places_backed;                   // places of the ring that have memory
    Lock drainer;                          // D, for making the eventfd unreadable
    std::atomic<std::uint32_t> signalled;  // 1: the eventfd is readable for certain
    std::array<Bound, kClasses> blocks_used;
  } seldom;
  // A hint for each class: the search for a free block starts here.
  alignas(arch::kApart) std::array<Bound, kClasses> free_from;
  // The Place of chunk number n, at n mod kPlaces.
  alignas(arch::kApart) std::array<std::atomic<std::uint32_t>, kPlaces> places;
  struct alignas(arch::kApart) Received {
    SharedTotals totals;
  };
  std::array<Received, 2> received;  // element head mod 2: totals of messages before `head`
  alignas(arch::kApart) std::array<Party, kParties> parties;
  std::array<Hand, kHands> hands;
};

// Null if the id has no valid index.
inline Party* party_at(Control& control, PartyId id) {
  return index_of(id) < kParties ? &control.parties[index_of(id)] : nullptr;
}

// A slot of Channel<Bytes>.
class ByteSlot {
 public:
  struct Head {
    std::uint64_t size = 0;
    std::uint32_t block = 0;  // 1 + its index; 0: the bytes are in the slot
  };

  // Check the result by is_possible().
  Head read() const {
    return {size_.load(std::memory_order_relaxed), block_.load(std::memory_order_relaxed)};
  }
  // Whether a sender can write such a head.  The block's word must still be checked for the size.
  static bool is_possible(const Head& head, std::uint32_t blocks) {
    return head.block == 0 ? head.size <= kSmallMessage : head.block <= blocks;
  }
  // The block's index, or `blocks` if the message has none.
  std::uint32_t block(std::uint32_t blocks) const {
    const std::uint32_t block = block_.load(std::memory_order_acquire) - 1;
    return block < blocks ? block : blocks;
  }
  Totals totals() const { return totals_.load(); }  // this message included
  // Atomic stores, because stats() may read at the same time.
  void write(const Head& head, const Totals& totals) {
    totals_.store(totals);
    size_.store(head.size, std::memory_order_relaxed);
    block_.store(head.block, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> size_;
  std::atomic<std::uint32_t> block_;
  SharedTotals totals_;

 public:
  alignas(arch::kCacheLine) std::array<std::byte, kSmallMessage> bytes;
};
static_assert(sizeof(ByteSlot) == 256);

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

// The offsets of everything in the file, as computed from the constants.
struct Plan {
  constexpr explicit Plan(const Constants& constants)
      : slot_bytes(constants.slot_bytes),
        slots(constants.slots),
        most_bytes(round_up(constants.memory, kPage)) {
    if (most_bytes != 0) {
      const auto width = static_cast<std::uint32_t>(std::bit_width(most_bytes / kLeastBlock - 1));
      classes = width + 1;
    }
    for (std::uint32_t c = 0; c < classes; ++c) {
      const std::uint64_t fitting = most_bytes / block_bytes(c);
      // Whole pages of small blocks.
      const std::uint64_t needed = round_up(slots + kParties, kPage / kLeastBlock);
      first[c] = blocks;
      blocks += static_cast<std::uint32_t>(fitting == 0 ? 1 : fitting < needed ? fitting : needed);
    }
    first[classes] = blocks;
    // 16 KiB, unless the ring is smaller, or too large for so many chunks.  At least 2 slots:
    // stats() reads the last message's while the next one is written.
    const std::uint64_t ring_slots = std::bit_ceil(slots);
    std::uint64_t chunk_slots = std::bit_ceil((kChunk + slot_bytes - 1) / slot_bytes);
    if (chunk_slots > ring_slots) chunk_slots = ring_slots;
    if (chunk_slots < ring_slots / kMostChunks) chunk_slots = ring_slots / kMostChunks;
    if (chunk_slots < 2) chunk_slots = 2;
    chunk_mask = chunk_slots - 1;
    chunk_shift = static_cast<std::uint32_t>(std::bit_width(chunk_mask));
    // The chunk that is entered begins at most slots - 1 messages after the oldest message.
    places = static_cast<std::uint32_t>((slots - 1 + chunk_slots - 1) / chunk_slots + 1);

    ring = round_up(kWords + blocks * sizeof(Word), kPage);
    base_bytes = round_up(ring + places * chunk_bytes(), kPage);
    std::uint64_t at = base_bytes;
    for (std::uint32_t c = 0; c < classes; ++c) {
      at = round_up(at, kHugePage);
      region[c] = at;
      at += region_bytes(c);
    }
    bytes = at;
  }

  constexpr std::uint64_t region_bytes(std::uint32_t block_class) const {
    return (first[block_class + 1] - first[block_class]) * block_bytes(block_class);
  }
  constexpr std::uint64_t chunk_bytes() const { return slot_bytes << chunk_shift; }

  static constexpr std::uint64_t kChunk = 16U << 10U;
  // create() takes memory for everything before this: a Word for each block.
  static constexpr std::uint64_t kWords = kPage + round_up(sizeof(Control), kPage);

  // Offsets in the file.
  std::uint64_t ring = 0;
  std::uint64_t base_bytes = 0;  // the file without its blocks
  std::array<std::uint64_t, kClasses> region{};
  std::uint64_t bytes = 0;

  std::uint64_t slot_bytes;
  std::uint64_t slots;
  std::uint64_t most_bytes;       // of blocks that may be outstanding
  std::uint64_t chunk_mask = 0;   // number & chunk_mask = index of the slot in its chunk
  std::uint32_t chunk_shift = 0;  // number >> chunk_shift = number of the chunk
  std::uint32_t places = 0;       // for chunks of the ring
  std::uint32_t classes = 0;
  std::uint32_t blocks = 0;
  std::array<std::uint32_t, kClasses + 1> first{};  // the first block of each class
};

}  // namespace cowshed::channel_layout
