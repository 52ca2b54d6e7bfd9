#include <array>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/clock.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/sync.h>

// Finds parties whose process is dead, and recovers what they held: locks, hands, blocks.
//
// Any party may sweep at any time, and several may at once, without a lock.  "Sweep" in
// docs/explanation/channel-protocol.md says why that is right.
namespace cowshed::internal {

using namespace channel_layout;

// A party is dead when the kernel has dropped its lock on the file, and only then.
bool ChannelSegment::is_dead(PartyId id) const {
  const Party* party = party_at(*control_, id);
  if (party == nullptr || party->id.load() != id) return true;  // no party has this id now
  // If a program closed the descriptor and its number is another file's, all would seem dead.
  return descriptor_is_ours() && !byte_is_locked(descriptors_.segment, index_of(id));
}

bool ChannelSegment::descriptor_is_ours() const {
  return identity_of(descriptors_.segment) == segment_file_;
}

// All eventfds have one inode, so this looks at the segment too.
bool ChannelSegment::event_is_ours() const {
  return descriptor_is_ours() && identity_of(descriptors_.event) == event_file_;
}

bool ChannelSegment::is_stopped(std::uint64_t holder) const {
  const Party* party = party_at(*control_, party_of(holder));
  struct stat own{};
  return party != nullptr && stat("/proc/self/ns/pid", &own) == 0 &&
         party->pid_namespace.load() == own.st_ino && thread_is_stopped(thread_of(holder));
}

void ChannelSegment::sweep_if_due() {
  constexpr std::uint64_t kInterval = 4'000'000;  // ns
  std::uint64_t last = control_->seldom.swept.load(std::memory_order_relaxed);
  const std::uint64_t now = monotonic_ns();
  if (now - last >= kInterval && control_->seldom.swept.compare_exchange_strong(last, now)) sweep();
}

void ChannelSegment::sweep() {
  if (self() == 0) return;
  const std::uint32_t used = control_->seldom.parties_used.load(kParties);
  for (std::uint32_t i = 0; i < used; ++i) {
    const PartyId id = control_->parties[i].id.load(std::memory_order_acquire);
    if (is_live(id) && index_of(id) == i && id != self() && is_dead(id)) sweep_party(id);
  }
}

// Steps 1 to 4 of "Sweep".
void ChannelSegment::sweep_party(PartyId id) {
  for (Lock* lock : {&control_->sender.lock, &control_->receiver.lock, &control_->seldom.drainer})
    if (const std::uint64_t holder = lock->holder.load(); holder != 0 && party_of(holder) == id)
      release_dead_lock(*lock, holder);
  recover_hands(id);
  recover_blocks(id);
  Party* party = party_at(*control_, id);
  recover_sleepers(*party);
  PartyId dead = id;
  party->id.compare_exchange_strong(dead, id & ~0xffffU);
}

void ChannelSegment::release_dead_lock(Lock& lock, std::uint64_t holder) {
  const std::uint64_t mine = holder_of(self(), static_cast<std::uint32_t>(syscall(SYS_gettid)));
  if (!lock.holder.compare_exchange_strong(holder, mine)) return;
  if (&lock == &control_->receiver.lock) clear_uncommitted_hands();
  unlock(lock, mine);
}

// The dead holder of R may have written a hand and not `head`.  Such hands must be empty before
// `head` moves.
void ChannelSegment::clear_uncommitted_hands() {
  const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
  const std::uint32_t used = control_->seldom.hands_used.load(kHands);
  for (std::uint32_t i = 0; i < used; ++i) {
    Hand& hand = control_->hands[i];
    const std::uint64_t held = hand.held.load();
    if (held != 0 && first_of(held) >= head) hand.held.store(0);
  }
}

// A hand that names received messages is marked lost.  The others become free.
void ChannelSegment::recover_hands(PartyId id) {
  const std::uint32_t pid = party_at(*control_, id)->pid.load();
  const std::uint32_t used = control_->seldom.hands_used.load(kHands);
  for (std::uint32_t i = 0; i < used; ++i) {
    Hand& hand = control_->hands[i];
    std::uint64_t owner = hand.owner.load();
    if (owner >> 32U != id) continue;
    const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
    const std::uint64_t held = hand.held.load(std::memory_order_acquire);
    const bool lost = owner == hand_of(id) && held != 0 && first_of(held) < head;
    hand.owner.compare_exchange_strong(owner, lost ? lost_by(pid) : 0);
  }
}

void ChannelSegment::recover_sleepers(Party& party) {
  const std::array<Control::Sleep*, 3> events = {&control_->items, &control_->space,
                                                 &control_->memory};
  for (std::size_t i = 0; i < events.size(); ++i)
    events[i]->sleepers.fetch_sub(party.sleepers[i].exchange(0));
}

// Frees the party's blocks, except for those that a message in the ring names.  Includes blocks of
// earlier parties with the same index: a process that took the index may have died before it
// recovered them.
void ChannelSegment::recover_blocks(PartyId id) {
  std::vector<std::uint32_t> candidates;
  const auto is_of_the_dead = [&](std::uint64_t value) {
    return is_or_precedes(static_cast<PartyId>(value >> 32U), id) &&
           state_of(value) != BlockState::free;
  };
  for (std::uint32_t c = 0; c < plan_.classes; ++c) {
    const std::uint32_t used = blocks_used(c);
    for (std::uint32_t i = 0; i < used; ++i)
      if (is_of_the_dead(word(plan_.first[c] + i).load())) candidates.push_back(plan_.first[c] + i);
  }
  if (candidates.empty()) return;
  std::vector<bool> queued(plan_.blocks);
  const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
  const std::uint64_t tail = control_->tail.value.load(std::memory_order_acquire);
  for (std::uint64_t number = head; number != tail && number - head <= plan_.slots; ++number) {
    const std::uint32_t block =
        reinterpret_cast<const ByteSlot*>(slot(number))->block(plan_.blocks);
    if (block < plan_.blocks && control_->head.value.load(std::memory_order_acquire) <= number)
      queued[block] = true;
  }
  for (const std::uint32_t block : candidates) {
    std::uint64_t before = word(block).load();
    if (!is_of_the_dead(before)) continue;
    const std::uint64_t after = queued[block] ? with_state(before, BlockState::queued, 0)
                                              : with_state(before, BlockState::owned, self());
    if (word(block).compare_exchange_strong(before, after) && !queued[block])
      free_block(block, after, false);  // it may have died before it had taken memory
  }
}

}  // namespace cowshed::internal
