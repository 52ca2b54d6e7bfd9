#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

// A channel's shared memory, as docs/channel.md says.  Not for users; here because `send` and
// `receive` are inline.
//
// Any process of the channel can write anything here at any time.  So each word is loaded once, and
// what becomes an index, a size or a bound passes through a function of this header that takes the
// limit: Bound::load, pages_of, ByteSlot::read, party_at.
namespace cowshed::channel_layout {

inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'C', 'h', 'a', 'n', '\0'};
inline constexpr std::uint64_t kVersion = 4;
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kHuge = std::uint64_t{2} << 20U;
// The creator always has the first place of each kind.
inline constexpr std::uint32_t kParties = 1 + 1024;
inline constexpr std::uint32_t kHands = 1 + 1024;
inline constexpr std::uint64_t kMostSlots = std::uint64_t{1} << 24U;
inline constexpr std::uint64_t kMostMemory = std::uint64_t{1} << 40U;
inline constexpr std::uint32_t kClasses = 29;  // blocks of 4 KiB to 1 TiB
inline constexpr std::uint64_t kSmallMessage = 192;

// The file's first page.  All else follows from it.
struct Constants {
  std::array<char, 8> magic{};
  std::uint64_t version = 0;
  std::uint64_t type = 0;        // hash over the type's mangled name, size and alignment
  std::uint64_t slot_bytes = 0;  // a multiple of 8
  std::uint64_t slots = 0;
  std::uint64_t memory = 0;  // 0: messages are values, and there are no blocks
  std::array<char, 64> name{};
  std::array<char, 160> type_name{};
};

// A party's identity: its index + 1 and, above bit 16, the generation.  0: nobody.
using PartyId = std::uint32_t;
inline constexpr PartyId kGeneration = 1U << 16U;
constexpr std::uint32_t index_of(PartyId id) { return (id & 0xffffU) - 1; }

// A number in the segment that says how far to look.
class Bound {
 public:
  // At most `most`, whatever is written there.
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
  std::atomic<PartyId> id;  // of who has the index; while it is free only the last generation
  std::atomic<std::uint32_t> pid;
  std::atomic<std::uint64_t> pid_namespace;            // inode
  std::array<std::atomic<std::uint32_t>, 3> sleepers;  // its part of Control's items, space, memory
};
constexpr bool is_live(PartyId id) { return (id & 0xffffU) != 0; }
// Whether it has the same index, and came to that no later.
constexpr bool is_or_precedes(PartyId id, PartyId other) {
  return index_of(id) == index_of(other) && static_cast<std::int32_t>(id - other) <= 0;
}

// Sequence and, lowest, the bit that says that somebody sleeps.
using Event = std::atomic<std::uint32_t>;

// A lock is 0 or its holder's: the party above bit 32, below it the thread.
struct Lock {
  std::atomic<std::uint64_t> holder;
  Event released;
};
constexpr std::uint64_t holder_of(PartyId party, std::uint32_t thread) {
  return std::uint64_t{party} << 32U | thread;
}
constexpr PartyId party_of(std::uint64_t holder) { return static_cast<PartyId>(holder >> 32U); }
constexpr std::uint32_t thread_of(std::uint64_t holder) {
  return static_cast<std::uint32_t>(holder);
}

// What a receiving thread took last: the first message's number, and below bit 12 how many.
struct alignas(64) Hand {
  std::atomic<std::uint64_t> owner;  // see below; 0: nobody's
  std::atomic<std::uint64_t> held;   // 0: nothing
};
inline constexpr std::uint64_t kMostInHand = (1U << 12U) - 1;
constexpr std::uint64_t held(std::uint64_t first, std::uint64_t count) {
  return (first << 12U) | count;
}
constexpr std::uint64_t first_of(std::uint64_t held) { return held >> 12U; }
constexpr std::uint64_t count_of(std::uint64_t held) { return held & kMostInHand; }
// Being taken by a party, which empties it; owned by it; or, the party being dead, lost by a PID.
inline constexpr std::uint64_t kBeingTaken = 1;
constexpr std::uint64_t hand_of(PartyId id) { return std::uint64_t{id} << 32U; }
constexpr std::uint64_t lost_by(std::uint32_t pid) { return pid == 0 ? ~0U : pid; }
constexpr bool is_lost(std::uint64_t owner) { return owner != 0 && (owner >> 32U) == 0; }

// The state of a block: who, how many pages, and in the lowest bits what.
using Word = std::atomic<std::uint64_t>;
enum class BlockState : std::uint8_t { free, owned, queued };
constexpr std::uint64_t block_word(BlockState state, PartyId id, std::uint64_t pages) {
  return std::uint64_t{id} << 32U | pages << 2U | static_cast<std::uint64_t>(state);
}
constexpr BlockState state_of(std::uint64_t word) { return static_cast<BlockState>(word & 3U); }
// At most `most`, the pages of a block of its size, whatever the word says.
constexpr std::uint64_t pages_of(std::uint64_t word, std::uint64_t most) {
  const std::uint64_t pages = (word & 0xffffffffU) >> 2U;
  return pages < most ? pages : most;
}
constexpr std::uint64_t with_state(std::uint64_t word, BlockState state, PartyId id) {
  return std::uint64_t{id} << 32U | (word & 0xfffffffcU) | static_cast<std::uint64_t>(state);
}

// That somebody means to close the channel says nothing to those who use it.
enum Closing : std::uint32_t { kOpen, kClosing, kClosed };
// Once it is `asked` each sender sees to it that the eventfd is readable; once it is `polled`, it
// was made so for what had been sent before.
enum Polling : std::uint32_t { kNever, kAsked, kPolled };

struct Totals {
  std::uint64_t bytes = 0;
  std::uint64_t moved = 0;  // messages
  std::uint64_t moved_bytes = 0;
};

// Each line is written by one side and read by the other, or seldom written; two of the CPU's, as
// it fetches them in pairs.
struct Control {
  struct alignas(128) Side {
    Lock lock;
    std::atomic<std::uint64_t> seen;  // the other side's index when it was last looked at
  };
  struct alignas(128) Index {
    std::atomic<std::uint64_t> value;
  };
  struct alignas(128) Sleep {
    Event event;
    std::atomic<std::uint32_t> sleepers;  // at least as many; more when some were killed
  };

  Side sender;
  Index tail;
  Side receiver;
  Index head;
  Sleep items;   // receivers wait for a message
  Sleep space;   // senders for a slot
  Sleep memory;  // and for blocks
  struct alignas(128) Seldom {
    std::atomic<std::uint32_t> closed;  // Closing
    std::atomic<std::uint32_t> polled;  // Polling
    std::atomic<std::uint64_t> swept;   // CLOCK_MONOTONIC, ns
    std::atomic<std::uint64_t> lost_before;
    Bound parties_used;  // none at or beyond this index ever was
    Bound hands_used;
    Lock drainer;                          // who makes the eventfd unreadable
    std::atomic<std::uint32_t> signalled;  // that it is readable is certain
    std::array<Bound, kClasses> blocks_used;
  } seldom;
  // Where a free block of each size may be found; a guess.
  alignas(128) std::array<Bound, kClasses> free_from;
  struct alignas(128) Received {
    std::atomic<std::uint64_t> bytes;
    std::atomic<std::uint64_t> moved;
    std::atomic<std::uint64_t> moved_bytes;
  };
  std::array<Received, 2> received;  // of bytes: the totals at `head`, by head mod 2
  alignas(128) std::array<Party, kParties> parties;
  std::array<Hand, kHands> hands;
};

// Null: an id that is nobody's.
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

  // To be checked by is_possible().
  Head read() const {
    return {size_.load(std::memory_order_relaxed), block_.load(std::memory_order_relaxed)};
  }
  // False: no sender writes such a head.  Whether the block has as much is for its word to say.
  static bool is_possible(const Head& head, std::uint32_t blocks) {
    return head.block == 0 ? head.size <= kSmallMessage : head.block <= blocks;
  }
  // Its block's index, below `blocks`; or `blocks`: it has none.
  std::uint32_t block(std::uint32_t blocks) const {
    const std::uint32_t block = block_.load(std::memory_order_acquire) - 1;
    return block < blocks ? block : blocks;
  }
  Totals totals() const {  // with this message
    return {bytes_sent_.load(std::memory_order_acquire), moved_.load(std::memory_order_acquire),
            moved_bytes_.load(std::memory_order_acquire)};
  }
  // stats() may look meanwhile.
  void write(const Head& head, const Totals& totals) {
    bytes_sent_.store(totals.bytes, std::memory_order_relaxed);
    moved_.store(totals.moved, std::memory_order_relaxed);
    moved_bytes_.store(totals.moved_bytes, std::memory_order_relaxed);
    size_.store(head.size, std::memory_order_relaxed);
    block_.store(head.block, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> size_;
  std::atomic<std::uint32_t> block_;
  std::atomic<std::uint64_t> bytes_sent_;
  std::atomic<std::uint64_t> moved_;
  std::atomic<std::uint64_t> moved_bytes_;

 public:
  alignas(64) std::array<std::byte, kSmallMessage> bytes;
};
static_assert(sizeof(ByteSlot) == 256);

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

// Where things are.
struct Plan {
  constexpr explicit Plan(const Constants& constants)
      : ring(kPage + round_up(sizeof(Control), kPage)),
        slot_bytes(constants.slot_bytes),
        slots(constants.slots),
        // Two at least: stats() reads the slot of the last message while the next is written.
        mask(std::bit_ceil(constants.slots < 2 ? 2 : constants.slots) - 1),
        most_pages(round_up(constants.memory, kPage) / kPage) {
    words = round_up(ring + (mask + 1) * slot_bytes, kPage);
    if (constants.memory != 0)
      classes = static_cast<std::uint32_t>(std::bit_width(most_pages - 1)) + 1;
    for (std::uint32_t c = 0; c < classes; ++c) {
      const std::uint64_t fitting = most_pages >> c;
      const std::uint64_t needed = slots + kParties;
      first[c] = blocks;
      blocks += static_cast<std::uint32_t>(fitting == 0 ? 1 : fitting < needed ? fitting : needed);
    }
    first[classes] = blocks;
    backed = words + blocks * sizeof(Word);
    reserved = round_up(backed + blocks * sizeof(std::uint32_t), kPage);
    std::uint64_t place = reserved;
    for (std::uint32_t c = 0; c < classes; ++c) {
      place = round_up(place, kHuge);
      region[c] = place;
      place += region_bytes(c);
    }
    bytes = place;
  }

  constexpr std::uint64_t region_bytes(std::uint32_t block_class) const {
    return (first[block_class + 1] - first[block_class]) * (kPage << block_class);
  }

  // What follows are offsets in the file.
  std::uint64_t ring;
  std::uint64_t words = 0;     // Word for each block
  std::uint64_t backed = 0;    // 32 bits for each: pages that have memory
  std::uint64_t reserved = 0;  // up to here all has memory
  std::array<std::uint64_t, kClasses> region{};
  std::uint64_t bytes = 0;

  std::uint64_t slot_bytes;
  std::uint64_t slots;
  std::uint64_t mask;        // of a message's number: its slot
  std::uint64_t most_pages;  // outstanding
  std::uint32_t classes = 0;
  std::uint32_t blocks = 0;
  std::array<std::uint32_t, kClasses + 1> first{};  // block of each class
};

}  // namespace cowshed::channel_layout
