#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>

#include <cowshed/base/error.h>
#include <cowshed/base/type_id.h>
#include <cowshed/share/channel/layout.h>
#include <cowshed/share/channel/options.h>
#include <cowshed/share/channel/stats.h>

// One process's hold of a channel.  Not for users; the steps have the numbers of docs/channel.md.
namespace cowshed::internal {

// What came of one attempt at a commit.
enum class Attempt : std::uint8_t {
  done,
  blocked,  // full, or empty
  busy,     // somebody else holds the side's lock
  outside,  // this process or thread does not take part yet
  closed,
  damaged,
};

struct MessageType {
  std::uint64_t id;
  std::string_view name;
  std::uint64_t slot_bytes;
  bool blocks;
};

// What a thread is to a channel that it used lately.
struct ThreadPlace {
  std::uint64_t incarnation = ~0UL;            // which process's hold of which channel; never 0
  std::uint64_t lock = 0;                      // what it writes into one
  std::atomic<std::uint64_t>* held = nullptr;  // its hand; null: it has not received yet
};
inline constexpr std::size_t kPlaces = 8;
using ThreadPlaces = std::array<ThreadPlace, kPlaces>;  // by serial
// Where a thread has none: never written to.
extern constinit ThreadPlaces no_places;
// Behind a pointer: there is little static TLS for a shared object that is loaded later.
// initial-exec: one load.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadPlaces* thread_places;

class ChannelSegment : public std::enable_shared_from_this<ChannelSegment> {
 public:
  using Constants = channel_layout::Constants;
  using Control = channel_layout::Control;
  using PartyId = channel_layout::PartyId;

  // Takes over what it is given.
  ChannelSegment(const ChannelDescriptors& descriptors, const Constants& constants, std::byte* base,
                 void* membership);
  ~ChannelSegment();
  ChannelSegment(const ChannelSegment&) = delete;
  ChannelSegment& operator=(const ChannelSegment&) = delete;

  // Step 2 to 9 of send, for at most `count` messages; `write` is called with the number of the
  // first and how many, and writes their slots.  `count` becomes how many were sent.
  template <class Write>
  Attempt try_send(std::uint64_t& count, Write&& write) {
    const ThreadPlace* place = this_thread();
    if (place == nullptr) [[unlikely]]
      return Attempt::outside;
    Control::Side& side = control_->sender;
    if (!lock(side.lock, place->lock)) return Attempt::busy;
    if (closed()) [[unlikely]]
      return leave(side.lock, Attempt::closed);
    const std::uint64_t tail = control_->tail.value.load(std::memory_order_relaxed);
    std::uint64_t used = tail - side.seen.load(std::memory_order_relaxed);
    if (used > plan_.slots || plan_.slots - used < count) {
      const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
      side.seen.store(head, std::memory_order_relaxed);
      used = tail - head;
      if (used >= plan_.slots) [[unlikely]]
        return leave(side.lock, used == plan_.slots ? Attempt::blocked : Attempt::damaged);
    }
    const std::uint64_t room = plan_.slots - used;
    count = count < room ? count : room;
    if (control_->seldom.polled.load(std::memory_order_seq_cst) != channel_layout::kNever &&
        !signal_pollers()) [[unlikely]] {
      return leave(side.lock, Attempt::busy);
    }
    write(tail, count);
    control_->tail.value.store(tail + count, std::memory_order_release);
    unlock(side.lock);
    notify(control_->items.event);
    __builtin_prefetch(slot(tail + count), 1);  // the next send's
    return Attempt::done;
  }

  // Step 2 to 10 of receive; `read` returns false when what is in the slots cannot be.
  template <class Read>
  Attempt try_receive(std::uint64_t& count, Read&& read) {
    const ThreadPlace* place = this_thread();
    if (place == nullptr || place->held == nullptr) [[unlikely]]
      return Attempt::outside;
    Control::Side& side = control_->receiver;
    if (!lock(side.lock, place->lock)) return Attempt::busy;
    const std::uint64_t head = control_->head.value.load(std::memory_order_relaxed);
    std::uint64_t ready = side.seen.load(std::memory_order_relaxed) - head;
    if (ready - 1 >= plan_.slots || ready < count) {
      __builtin_prefetch(slot(head));  // while `tail` comes from the sender's CPU
      const std::uint64_t tail = control_->tail.value.load(std::memory_order_acquire);
      side.seen.store(tail, std::memory_order_relaxed);
      ready = tail - head;
      if (ready - 1 >= plan_.slots)
        return leave(side.lock, ready == 0 ? Attempt::blocked : Attempt::damaged);
    }
    count = count < ready ? count : ready;
    if (!read(head, count)) [[unlikely]]
      return leave(side.lock, Attempt::damaged);
    place->held->store(channel_layout::held(head, count), std::memory_order_release);
    control_->head.value.store(head + count, std::memory_order_release);
    unlock(side.lock);
    notify(control_->space.event);
    return Attempt::done;
  }

  bool has_message() const {
    const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
    __builtin_prefetch(slot(head));  // while `tail` comes from the sender's CPU
    return control_->tail.value.load(std::memory_order_acquire) != head;
  }

  std::byte* slot(std::uint64_t number) const {
    return base_ + plan_.ring + (number & plan_.mask) * plan_.slot_bytes;
  }
  const channel_layout::Plan& plan() const { return plan_; }
  Control& control() const { return *control_; }
  const ChannelOptions& options() const { return options_; }
  const ChannelDescriptors& descriptors() const { return descriptors_; }

  // "channel 'NAME'" and then `what`.
  tl::unexpected<Error> error(ErrorCode code, const std::string& what, int system_errno = 0) const;
  tl::unexpected<Error> system_error(const std::string& what, int error) const;
  tl::unexpected<Error> closed_error() const;

  void close();
  bool closed() const {
    return control_->seldom.closed.load(std::memory_order_seq_cst) >= channel_layout::kClosed;
  }
  // Completes what a closer has begun, who may be dead; false: nobody has.
  bool finish_closing();
  Expected<int> poll_descriptor();
  ChannelStats stats();
  // Keeps this process a place, if it comes to take part: it has created the channel.
  void keep_place();
  // Whether this process takes part now; it takes a place if there is one.
  bool join_as_observer() { return attach().has_value(); }

  // channel/membership.cc
  // Makes this process a party, and, to receive, gives this thread a hand.
  Expected<void> join(bool to_receive);
  // This process; 0 while it takes no part.
  PartyId self() const;
  // Its own; null where join() must come first.
  const ThreadPlace* this_thread() const {
    const ThreadPlace& place = (*thread_places)[serial_ % kPlaces];
    return place.incarnation == incarnation() ? &place : find_place();
  }
  void empty_hand() const {
    if (const ThreadPlace* place = this_thread(); place != nullptr && place->held != nullptr)
      place->held->store(0, std::memory_order_release);
  }
  // 1 + which hand this thread, which has received, has; 0: none, because the thread ends.
  std::uint32_t this_hand() const {
    const auto index = (reinterpret_cast<std::uintptr_t>(this_thread()->held) -
                        reinterpret_cast<std::uintptr_t>(&control_->hands[0].held)) /
                       sizeof(channel_layout::Hand);
    return index < channel_layout::kHands ? static_cast<std::uint32_t>(index) + 1 : 0;
  }
  void give_back_hand(std::uint64_t incarnation, std::atomic<std::uint64_t>* held);

  // channel/sweep.cc
  bool dead(PartyId id) const;
  std::atomic<std::uint32_t>& own_sleepers(std::size_t place) const {
    return channel_layout::party_at(*control_, self())->sleepers[place];
  }
  // Whether the thread that holds a lock is known to be stopped.
  bool stopped(std::uint64_t lock) const;
  // Takes a lock from a dead holder and lets it go.
  void release_of_dead(channel_layout::Lock& lock, std::uint64_t seen);
  // After the death of R's holder, before `head` moves.
  void repair_hands();
  void sweep();
  void sweep_if_due();

  // channel/blocks.cc
  struct Block {
    std::uint32_t index;
    std::uint64_t word;  // as this process owns it
    std::byte* data;
  };
  // Memory for `size` bytes, or would_block when `memory` is used up, or out_of_memory.
  Expected<Block> allocate(std::uint64_t size);
  channel_layout::Word& word(std::uint32_t block) const {
    return reinterpret_cast<channel_layout::Word*>(base_ + plan_.words)[block];
  }
  std::uint32_t class_of(std::uint32_t block) const;
  // Maps all blocks of that size at the first call.  Null, with errno: the kernel refuses.
  std::byte* block_data(std::uint32_t block);
  tl::unexpected<Error> cannot_map(std::uint32_t block, int error) const;
  // Makes a block of that many bytes this process's and returns its word; 0: it has not as many.
  std::uint64_t take_block(std::uint32_t block, std::uint64_t size);
  // Whether it does when it is free: the lowest of the small ones, which are handed out first.
  bool keeps_memory(std::uint32_t block) const;
  // `owned`: its word, this process's.
  void free_block(std::uint32_t block, std::uint64_t owned);
  std::uint64_t outstanding_pages() const;

  // channel/waiting.cc
  void notify(channel_layout::Event& event) {
    if ((event.load(std::memory_order_seq_cst) & 1U) != 0) [[unlikely]]
      wake_one(event);
  }
  static void wake_one(channel_layout::Event& event);
  static void wake_all(channel_layout::Event& event);
  void signal_event(std::uint64_t count) const;
  // Of who holds S.  False: somebody drains the event.
  bool signal_pollers();
  // Of the drainer, with the channel empty and S free.
  void drain_event();

 private:
  bool lock(channel_layout::Lock& lock, std::uint64_t me) {
    std::uint64_t nobody = 0;
    return lock.holder.load(std::memory_order_relaxed) == 0 &&
           lock.holder.compare_exchange_strong(nobody, me, std::memory_order_seq_cst);
  }
  void unlock(channel_layout::Lock& lock) {
    lock.holder.store(0, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    notify(lock.released);
  }
  Attempt leave(channel_layout::Lock& lock, Attempt attempt) {
    unlock(lock);
    return attempt;
  }

  // All zero in a forked child: it is in memory that a fork wipes.
  struct Membership;
  std::uint64_t incarnation() const;  // 0: this process takes no part
  const ThreadPlace* find_place() const;
  void remember(const ThreadPlace& place);
  Expected<void> attach();
  Expected<void> claim_index();
  std::uint32_t first_place() const;
  PartyId claim_free_index(int file);  // 0: there is none
  PartyId claim_index_of_dead(int file);
  Expected<std::atomic<std::uint64_t>*> claim_hand();
  void detach();

  bool descriptor_is_ours() const;
  void sweep_party(PartyId id);
  void settle_hands(PartyId id);
  void settle_sleepers(channel_layout::Party& party);
  void settle_blocks(PartyId id);
  std::uint32_t blocks_used(std::uint32_t block_class) const;
  std::uint64_t pages_in(std::uint32_t block_class) const;
  bool memory_exceeded() const;
  std::uint32_t claim_block(std::uint32_t block_class, std::uint64_t mine);
  std::byte* map_class(std::uint32_t block_class);
  bool has_headroom(std::uint64_t bytes);
  bool take_huge_pages(const Block& block, std::uint64_t begin, std::uint64_t end) const;
  Expected<void> back(const Block& block, std::uint64_t pages);
  std::uint64_t block_offset(std::uint32_t block) const;

  std::byte* base_;  // without the blocks
  std::array<std::atomic<std::byte*>, channel_layout::kClasses> regions_{};
  Control* control_;
  Membership* membership_ = nullptr;
  channel_layout::Plan plan_;
  std::uint64_t serial_;  // of this object in the process
  ChannelOptions options_;
  ChannelDescriptors descriptors_;
  std::uint64_t inode_ = 0;
  std::uint64_t device_ = 0;
  std::atomic<std::int64_t> granted_ = 0;  // bytes that need no look at the cgroup's headroom
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

// This thread is done with all that it received, of any channel.
void give_back_hands();

// Errors: those of Channel<T>::create and from_descriptors.
Expected<std::shared_ptr<ChannelSegment>> create_segment(const ChannelOptions& options,
                                                         const MessageType& type);
Expected<std::shared_ptr<ChannelSegment>> open_segment(const ChannelDescriptors& descriptors,
                                                       const MessageType& type);

}  // namespace cowshed::internal
