#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/sync.h>

// Making good for dead parties: "Sweep" in docs/channel.md, and why it is right.
namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr std::uint64_t kSweepEvery = 4'000'000;  // ns

}  // namespace

bool ChannelSegment::dead(PartyId id) const {
  // An id that is nobody's now holds nothing rightly.
  const Party* party = party_at(*control_, id);
  if (party == nullptr || party->id.load() != id) return true;
  // Were the descriptor closed under us and its number another file's, all would seem dead.
  return descriptor_is_ours() && !byte_is_locked(descriptors_.segment, index_of(id));
}

bool ChannelSegment::descriptor_is_ours() const {
  struct stat status{};
  return fstat(descriptors_.segment, &status) == 0 && status.st_ino == inode_ &&
         status.st_dev == device_;
}

bool ChannelSegment::stopped(std::uint64_t lock) const {
  const Party* party = party_at(*control_, party_of(lock));
  struct stat own{};
  return party != nullptr && stat("/proc/self/ns/pid", &own) == 0 &&
         party->pid_namespace.load() == own.st_ino && thread_is_stopped(thread_of(lock));
}

void ChannelSegment::release_of_dead(Lock& lock, std::uint64_t seen) {
  const std::uint64_t mine = holder_of(self(), static_cast<std::uint32_t>(syscall(SYS_gettid)));
  if (!lock.holder.compare_exchange_strong(seen, mine)) return;
  if (&lock == &control_->receiver.lock) repair_hands();
  unlock(lock);
}

void ChannelSegment::repair_hands() {
  const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
  const std::uint32_t used = control_->seldom.hands_used.load(kHands);
  for (std::uint32_t i = 0; i < used; ++i) {
    Hand& hand = control_->hands[i];
    const std::uint64_t held = hand.held.load();
    if (held != 0 && first_of(held) >= head) hand.held.store(0);
  }
}

void ChannelSegment::sweep_if_due() {
  std::uint64_t last = control_->seldom.swept.load(std::memory_order_relaxed);
  const std::uint64_t now = nanoseconds_now();
  if (now - last >= kSweepEvery && control_->seldom.swept.compare_exchange_strong(last, now))
    sweep();
}

void ChannelSegment::sweep() {
  if (self() == 0) return;
  const std::uint32_t used = control_->seldom.parties_used.load(kParties);
  for (std::uint32_t i = 0; i < used; ++i) {
    const PartyId id = control_->parties[i].id.load(std::memory_order_acquire);
    if (is_live(id) && index_of(id) == i && id != self() && dead(id)) sweep_party(id);
  }
}

void ChannelSegment::sweep_party(PartyId id) {
  for (Lock* lock : {&control_->sender.lock, &control_->receiver.lock, &control_->seldom.drainer})
    if (const std::uint64_t held = lock->holder.load(); held != 0 && party_of(held) == id)
      release_of_dead(*lock, held);
  settle_hands(id);
  settle_blocks(id);
  Party* party = party_at(*control_, id);
  settle_sleepers(*party);
  PartyId done = id;
  party->id.compare_exchange_strong(done, id & ~0xffffU);
}

void ChannelSegment::settle_sleepers(Party& party) {
  const std::array<Control::Sleep*, 3> places = {&control_->items, &control_->space,
                                                 &control_->memory};
  for (std::size_t i = 0; i < places.size(); ++i)
    places[i]->sleepers.fetch_sub(party.sleepers[i].exchange(0));
}

void ChannelSegment::settle_hands(PartyId id) {
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

// Also those of an earlier party of the same index, whose successor died before it had done so.
void ChannelSegment::settle_blocks(PartyId id) {
  std::vector<std::uint32_t> of_the_dead;
  const auto is_of_the_dead = [&](std::uint64_t value) {
    return is_or_precedes(static_cast<PartyId>(value >> 32U), id) &&
           state_of(value) != BlockState::free;
  };
  for (std::uint32_t c = 0; c < plan_.classes; ++c) {
    const std::uint32_t used = blocks_used(c);
    for (std::uint32_t i = 0; i < used; ++i)
      if (is_of_the_dead(word(plan_.first[c] + i).load()))
        of_the_dead.push_back(plan_.first[c] + i);
  }
  if (of_the_dead.empty()) return;
  std::vector<bool> referenced(plan_.blocks);
  const std::uint64_t head = control_->head.value.load(std::memory_order_acquire);
  const std::uint64_t tail = control_->tail.value.load(std::memory_order_acquire);
  for (std::uint64_t number = head; number != tail && number - head <= plan_.slots; ++number) {
    const std::uint32_t block =
        reinterpret_cast<const ByteSlot*>(slot(number))->block(plan_.blocks);
    if (block < plan_.blocks && control_->head.value.load(std::memory_order_acquire) <= number)
      referenced[block] = true;
  }
  for (const std::uint32_t block : of_the_dead) {
    std::uint64_t before = word(block).load();
    if (!is_of_the_dead(before)) continue;
    const std::uint64_t after = referenced[block] ? with_state(before, BlockState::queued, 0)
                                                  : with_state(before, BlockState::owned, self());
    if (word(block).compare_exchange_strong(before, after) && !referenced[block])
      free_block(block, after);
  }
}

}  // namespace cowshed::internal
