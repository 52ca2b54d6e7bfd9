#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/base/error.h>
#include <cowshed/base/standard_error.h>
#include <cowshed/base/type_id.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/channel/layout.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/os/mapped_memory.h>

// The room share/channel: channels, without the public interface (share/channel.h).  It may use
// base, share/os, share/jemalloc, share/process, share/accounting, share/registry and share/wire.
//
// This header has one process's handle of a channel.  Not for users.  Its functions lie in
//
//   commit.h         try_send(), try_receive(): the only stores to `tail` and `head`
//   segment.cc       creating, opening and closing a channel; its statistics
//   membership.cc    how a process and its threads join
//   dead_peers.cc    finding dead processes, and recovering what they held
//   blocks.cc        memory for messages: the ring's chunks, and blocks
//   waiting.cc       waking and polling; class Waiting has the sleeping side
//
// The comments name steps and locks as docs/explanation/channel-protocol.md does.
namespace cowshed::internal {

// The result of one attempt to send or to receive.  Not smaller: headers pass it on to the library,
// and g++ leaves the upper bits of a small argument open, while clang++ takes them for zero.
enum class Attempt : std::uint32_t {  // NOLINT(performance-enum-size)
  done,
  blocked,     // the channel is full, empty or out of memory
  busy,        // another thread holds the lock
  not_joined,  // this process or this thread has not joined
  closed,
  damaged,   // the shared memory contradicts itself
  unbacked,  // the next slot has no memory yet
};

struct MessageType {
  std::uint64_t id;
  std::string_view name;
  std::uint64_t slot_bytes;
  bool blocks;  // whether messages may need blocks
};

// A thread's membership of one channel.
struct ThreadState {
  std::uint64_t incarnation = ~0UL;            // of the process's membership; never 0
  std::uint64_t lock = 0;                      // the word that locks S or R for this thread
  std::atomic<std::uint64_t>* held = nullptr;  // the thread's hand; null: it has not received
};
inline constexpr std::size_t kCachedStates = 8;
using ThreadStates = std::array<ThreadState, kCachedStates>;  // by the segment's serial number
// For threads that joined no channel.  Never written to.
extern constinit ThreadStates no_states;
// A pointer, because a shared object that is loaded late gets little static TLS.  initial-exec
// makes the access one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadStates* cached_states;

class ChannelSegment : public std::enable_shared_from_this<ChannelSegment> {
 public:
  using Constants = channel_layout::Constants;
  using Control = channel_layout::Control;
  using PartyId = channel_layout::PartyId;

  // Takes ownership of the descriptors.
  ChannelSegment(const ChannelDescriptors& descriptors, const Constants& constants,
                 MappedMemory base, MappedMemory membership);
  ~ChannelSegment();
  ChannelSegment(const ChannelSegment&) = delete;
  ChannelSegment& operator=(const ChannelSegment&) = delete;

  // commit.h.  Both set `count` to the number of messages that they sent or received.
  // Steps 2 to 9 of Send.  Calls `write` with the first message's number and the count.
  template <class Write>
  Attempt try_send(std::uint64_t& count, Write&& write);
  // Steps 2 to 10 of Receive.  Calls `read` likewise; it returns false if the slots are damaged.
  template <class Read>
  Attempt try_receive(std::uint64_t& count, Read&& read);

  bool has_message() const {
    const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
    __builtin_prefetch(slot(head));  // while `tail` comes from the sender's CPU
    return control_->tail.value.load(std::memory_order_acquire) != head;
  }
  // The slot of a message that is in the ring.  Of another message, some slot.
  std::byte* slot(std::uint64_t number) const {
    const channel_layout::Place place =
        place_of(number >> plan_.chunk_shift).load(std::memory_order_acquire);
    const std::uint64_t chunk = std::uint64_t{place.place(plan_.places)} << plan_.chunk_shift;
    return base_ + plan_.ring + (chunk | (number & plan_.chunk_mask)) * plan_.slot_bytes;
  }
  const channel_layout::Plan& plan() const { return plan_; }
  Control& control() const { return *control_; }
  const ChannelOptions& options() const { return options_; }
  const ChannelDescriptors& descriptors() const { return descriptors_; }

  // segment.cc
  // For the process that created the file.  Takes memory for the channel's fixed part, and reserves
  // index 0 and hand 0 for this process.
  Expected<void> begin(const Constants& constants);
  // An error whose message is "channel 'NAME'" followed by `what`.
  tl::unexpected<Error> error(ErrorCode code, const std::string& what, int system_errno = 0) const;
  tl::unexpected<Error> system_error(const std::string& what, int error) const;
  tl::unexpected<Error> closed_error() const;
  void close();
  bool closed() const {
    return control_->seldom.closed.load(std::memory_order_seq_cst) >= channel_layout::kClosed;
  }
  // Completes close() for a process that began it and may have died.  Returns closed().
  bool finish_closing();
  Expected<int> poll_descriptor();
  // Counts messages that are sent, for transfer_report().
  TransferRow row(std::string_view type, TransferKind kind) const {
    return TransferCounter("channel", options_.name).row(type, kind);
  }
  ChannelStats stats();

  // membership.cc
  // Makes this process a party and, if `to_receive`, gives this thread a hand.
  Expected<void> join(bool to_receive);
  // This process's id; 0 if it has not joined.
  PartyId self() const;
  // This thread's state; null if it has not joined.
  const ThreadState* this_thread() const {
    const ThreadState& state = (*cached_states)[serial_ % kCachedStates];
    return state.incarnation == incarnation() ? &state : find_state();
  }
  // The thread no longer holds the messages that it received last.
  void clear_hand() const {
    if (const ThreadState* state = this_thread(); state != nullptr && state->held != nullptr)
      state->held->store(0, std::memory_order_release);
  }
  // 1 + the index of this thread's hand; 0 if the thread is ending and has none.
  std::uint32_t this_hand() const {
    const auto index = (reinterpret_cast<std::uintptr_t>(this_thread()->held) -
                        reinterpret_cast<std::uintptr_t>(&control_->hands[0].held)) /
                       sizeof(channel_layout::Hand);
    return index < channel_layout::kHands ? static_cast<std::uint32_t>(index) + 1 : 0;
  }
  void give_back_hand(std::uint64_t incarnation, std::atomic<std::uint64_t>* held);
  std::atomic<std::uint32_t>& own_sleepers(std::size_t event) const {
    return channel_layout::party_at(*control_, self())->sleepers[event];
  }

  // dead_peers.cc
  bool is_dead(PartyId id) const;
  // Whether the thread that holds a lock is stopped, as far as this process can see.
  bool is_stopped(std::uint64_t holder) const;
  // Takes a lock that rests with a thread away from it.  False while that thread is inside.
  static bool withdraw(channel_layout::Lock& lock, std::uint64_t holder);
  // Takes a lock over from a dead holder, repairs what it guards and unlocks it.
  void release_dead_lock(channel_layout::Lock& lock, std::uint64_t holder);
  // Recovers what all dead parties held.
  void sweep();
  // The same, unless some process did it in the last 4 ms.
  void sweep_if_due();

  // blocks.cc
  struct Block {
    std::uint32_t index;
    std::uint64_t word;  // says that this process owns the block
    std::byte* data;
  };
  // Errors: would_block (`memory` is used up), out_of_memory, system_call.
  Expected<Block> allocate(std::uint64_t size);
  // `owned`: the word by which this process owns the block.  `backed`: all its pieces have memory
  // for certain.
  void free_block(std::uint32_t block, std::uint64_t owned, bool backed = true);
  // Takes memory for one more chunk of the ring.
  Expected<void> back_chunk();
  // Step 5 of Receive.  Returns the word; 0 if the block has fewer than `size` bytes.
  std::uint64_t take_block(std::uint32_t block, std::uint64_t size);
  // The first call maps all blocks of that size.  Null, with errno, if the kernel refuses.
  std::byte* block_data(std::uint32_t block) { return block_data(block, class_of(block)); }
  tl::unexpected<Error> map_error(std::uint32_t block, int error) const;
  channel_layout::Word& word(std::uint32_t block) const {
    return reinterpret_cast<channel_layout::Word*>(base_ + channel_layout::Plan::kWords)[block];
  }
  std::uint32_t class_of(std::uint32_t block) const;
  // Whether the block keeps its memory when it is free.  Low blocks, which are used first, do.
  bool keeps_memory(std::uint32_t block) const { return keeps_memory(block, class_of(block)); }
  std::uint64_t outstanding_bytes() const;
  // Unmaps a block from this process.
  void unmap_block(std::uint32_t block, std::byte* data) const;

  // waiting.cc
  void notify(channel_layout::Event& event) {
    if ((event.load(std::memory_order_seq_cst) & 1U) != 0) [[unlikely]]
      wake_one(event);
  }
  static void wake_one(channel_layout::Event& event);
  static void wake_all(channel_layout::Event& event);
  // False: this process has closed the descriptor.
  bool signal_event(std::uint64_t count) const;
  // For the holder of S.  False if a receiver drains the eventfd now.
  bool signal_pollers();
  // For the holder of D, while the channel is empty and S is free.
  void drain_event();

 private:
  bool lock(channel_layout::Lock& lock, std::uint64_t me) {
    std::uint64_t holder = lock.holder.load(std::memory_order_relaxed);
    if (holder == 0)
      return lock.holder.compare_exchange_strong(holder, me, std::memory_order_seq_cst);
    if (!channel_layout::rests_with(holder, me)) return false;
    std::atomic<std::uint64_t>& inside = lock.inside[channel_layout::rest_of(holder)];
    if (inside.load(std::memory_order_relaxed) != 0) [[unlikely]]
      return false;  // a signal handler has interrupted the thread inside
    inside.store(me, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // whoever withdraws has the barrier
    if (lock.holder.load(std::memory_order_acquire) == holder) [[likely]]
      return true;
    inside.store(0, std::memory_order_release);
    return false;
  }
  void unlock(channel_layout::Lock& lock, std::uint64_t me) {
    const std::uint64_t holder = lock.holder.load(std::memory_order_relaxed);
    if (channel_layout::is_at_rest(holder))
      lock.inside[channel_layout::rest_of(holder)].store(0, std::memory_order_release);
    else lock.holder.store(after(lock, me), std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    notify(lock.released);
  }
  // The holder of a lock that `me` leaves: `me` at rest, if it was inside many times in a row.
  static std::uint64_t after(channel_layout::Lock& lock, std::uint64_t me);
  Attempt leave(channel_layout::Lock& lock, std::uint64_t me, Attempt attempt) {
    unlock(lock, me);
    return attempt;
  }

  std::atomic<std::uint32_t>& place_of(std::uint64_t chunk) const {
    return control_->places[chunk % channel_layout::kPlaces];
  }
  // For the holder of S.  How many of these messages can be written: 0 if the next slot has no
  // memory.
  std::uint64_t writable(std::uint64_t tail, std::uint64_t count) {
    for (std::uint64_t number = (tail + plan_.chunk_mask) & ~plan_.chunk_mask;
         number < tail + count; number += plan_.chunk_mask + 1) {
      if (!enter_chunk(number >> plan_.chunk_shift)) [[unlikely]]
        return number - tail;
    }
    return count;
  }

  // In memory that a fork wipes: all zero in a forked child, which thus has not joined.
  struct Membership;
  std::uint64_t incarnation() const;  // 0: this process has not joined
  const ThreadState* find_state() const;
  void remember(const ThreadState& state);
  Expected<void> attach();
  Expected<void> claim_index();
  std::uint32_t first_index() const;
  Expected<bool> lock_index(int file, std::uint32_t index) const;
  Expected<PartyId> claim_free_index(int file);  // 0: none is free
  Expected<PartyId> claim_dead_index(int file);  // 0: none is dead
  Expected<std::atomic<std::uint64_t>*> claim_hand();
  void detach();

  // Whether no program has closed the descriptor, and its number is not another file's by now.
  bool descriptor_is_ours() const;
  bool event_is_ours() const;
  void sweep_party(PartyId id);
  void clear_uncommitted_hands();
  void recover_hands(PartyId id);
  void recover_sleepers(channel_layout::Party& party);
  void recover_blocks(PartyId id);

  std::uint32_t blocks_used(std::uint32_t block_class) const;
  std::uint64_t bytes_in(std::uint32_t block_class) const;
  bool memory_exceeded() const;
  struct Claimed;
  Expected<std::optional<Claimed>> claim_block(std::uint32_t block_class, std::uint64_t pieces);
  std::byte* block_data(std::uint32_t block, std::uint32_t block_class);
  bool keeps_memory(std::uint32_t block, std::uint32_t block_class) const;
  bool return_memory(std::uint32_t block, std::uint32_t block_class);
  bool enter_chunk(std::uint64_t chunk);
  std::byte* map_class(std::uint32_t block_class);
  bool has_headroom(std::uint64_t bytes);
  Expected<void> take_memory(std::uint64_t offset, std::uint64_t bytes,
                             const Block* block = nullptr);
  bool take_huge_pages(const Block& block, std::uint64_t begin, std::uint64_t end) const;
  std::uint64_t block_offset(std::uint32_t block) const;

  MappedMemory base_mapping_;
  MappedMemory membership_mapping_;
  std::byte* base_;  // the file without its blocks
  std::array<std::atomic<std::byte*>, channel_layout::kClasses> regions_{};  // map the blocks
  Control* control_;
  Membership* membership_;
  channel_layout::Plan plan_;
  std::uint64_t serial_;  // of this object in the process
  ChannelOptions options_;
  ChannelDescriptors descriptors_;
  FileIdentity segment_file_;
  FileIdentity event_file_;
  std::atomic<std::int64_t> granted_ = 0;  // bytes to take without asking for headroom again
};

struct ChannelSegment::Membership {
  std::atomic<std::uint64_t> incarnation;
  std::atomic<PartyId> self;
  std::atomic<std::uint32_t> joining;  // a lock
  void* liveness;                      // a mapping that keeps the kernel's lock
  std::atomic<bool> creator;
};

inline std::uint64_t ChannelSegment::incarnation() const {
  return membership_->incarnation.load(std::memory_order_acquire);
}
inline ChannelSegment::PartyId ChannelSegment::self() const {
  return membership_->self.load(std::memory_order_relaxed);
}

// Ends this thread's hold of all messages that it received, of all channels.
void give_back_hands();

// Errors: those of Channel<T>::create and from_descriptors.
Expected<std::shared_ptr<ChannelSegment>> create_segment(const ChannelOptions& options,
                                                         const MessageType& type);
Expected<std::shared_ptr<ChannelSegment>> open_segment(const ChannelDescriptors& descriptors,
                                                       const MessageType& type);

}  // namespace cowshed::internal
