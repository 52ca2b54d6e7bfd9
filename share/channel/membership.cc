#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <sched.h>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/os/sync.h>
#include <cowshed/share/process/fork_handlers.h>

// How a process becomes a party of a channel, and how its threads get a hand.
//
// A party holds a lock of the kernel's on one byte of the file until its address space is gone. The
// lock belongs to an open file that only a mapping keeps, and no fork copies that mapping.
namespace cowshed::internal {

using namespace channel_layout;

constinit ThreadStates no_states = {};
constinit thread_local ThreadStates* cached_states = &no_states;

namespace {

std::atomic<std::uint64_t> last_incarnation = 0;

// The states of a thread in all channels.  `cached` has those that it used last.
struct AllStates {
  struct Entry {
    ThreadState state;
    std::uint64_t serial;
    std::weak_ptr<ChannelSegment> segment;
  };
  std::vector<Entry> entries;
  std::unique_ptr<ThreadStates> cached;

  ~AllStates();
  void give_back_hands() {
    for (const Entry& entry : entries)
      if (const auto segment = entry.segment.lock())
        segment->give_back_hand(entry.state.incarnation, entry.state.held);
    entries.clear();
    cached_states = &no_states;
  }
};
thread_local AllStates all_states;

// A thread may use channels after its thread_local variables are destroyed: in the destructor of a
// static variable, or of an older thread_local one.  It then has one state for all channels, and no
// hand, because nothing would give the hand back.
constinit thread_local bool states_destroyed = false;
constinit thread_local ThreadState late_state = {};
constinit thread_local std::atomic<std::uint64_t> no_hand = 0;

AllStates::~AllStates() {
  give_back_hands();
  states_destroyed = true;
}

// Held over a fork.  Otherwise a child could inherit the open file of a party that is about to
// attach, and would keep the kernel's lock when that party is dead.
COWSHED_FORK_STATE constinit std::mutex opening;

std::uint64_t pid_namespace() {
  struct stat status{};
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

PartyId next_id(PartyId before, std::uint32_t index) {
  return ((before & ~0xffffU) + kGeneration) | (index + 1);
}

void write_process(Party& party) {
  party.pid.store(static_cast<std::uint32_t>(getpid()), std::memory_order_relaxed);
  party.pid_namespace.store(pid_namespace(), std::memory_order_relaxed);
}

}  // namespace

void give_back_hands() {
  if (!states_destroyed) all_states.give_back_hands();
}

std::uint32_t ChannelSegment::first_index() const { return membership_->creator ? 0 : 1; }

Expected<void> ChannelSegment::join(bool to_receive) {
  const OutsideScope outside;
  if (incarnation() == 0) TRY_VOID(attach());
  ThreadState state;
  if (const ThreadState* known = find_state()) {
    state = *known;
  } else {
    state.incarnation = incarnation();
    state.lock = holder_of(self(), static_cast<std::uint32_t>(syscall(SYS_gettid)));
  }
  if (states_destroyed) {
    state.held = &no_hand;
  } else if (to_receive && state.held == nullptr) {
    TRY(state.held, claim_hand());
  }
  remember(state);
  return {};
}

const ThreadState* ChannelSegment::find_state() const {
  const std::uint64_t current = incarnation();
  if (current == 0) return nullptr;
  if (states_destroyed) return late_state.incarnation == current ? &late_state : nullptr;
  for (const auto& entry : all_states.entries)
    if (entry.state.incarnation == current)
      return &((*cached_states)[serial_ % kCachedStates] = entry.state);
  return nullptr;
}

void ChannelSegment::remember(const ThreadState& state) {
  if (states_destroyed) {
    late_state = state;
    return;
  }
  // Forgets earlier incarnations, of this process or of the one that it was forked from.
  std::erase_if(all_states.entries, [&](const auto& entry) {
    return entry.serial == serial_ || entry.segment.expired();
  });
  if (cached_states == &no_states) {
    all_states.cached = std::make_unique<ThreadStates>();
    cached_states = all_states.cached.get();
  }
  all_states.entries.push_back({state, serial_, weak_from_this()});
  (*cached_states)[serial_ % kCachedStates] = state;
}

Expected<void> ChannelSegment::attach() {
  if (const int refused = register_for_barriers(); refused != 0) {
    return error(
        ErrorCode::unsupported,
        ": membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) is refused; it needs Linux "
        "4.16 or newer, and a sandbox that lets it pass",
        refused);
  }
  struct Lock {  // also for the unwinding of std::bad_alloc, or of a thread that is cancelled
    explicit Lock(std::atomic<std::uint32_t>& of) : word(of) {
      while (word.exchange(1, std::memory_order_acquire) != 0) sched_yield();
    }
    ~Lock() { word.store(0, std::memory_order_release); }
    std::atomic<std::uint32_t>& word;
  };
  const Lock lock(membership_->joining);
  return incarnation() == 0 ? claim_index() : Expected<void>();
}

Expected<void> ChannelSegment::claim_index() {
  const std::lock_guard guard(
      fork_handlers::held_over_forks<fork_handlers::Rank::channels, opening>());
  const std::string path = "/proc/self/fd/" + std::to_string(descriptors_.segment);
  const FileDescriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return system_error(": open " + path, errno);
  if (identity_of(file.get()) != segment_file_)
    return system_error(": its descriptor was closed", EBADF);
  void* page = mmap(nullptr, kPage, PROT_NONE, MAP_SHARED, file.get(), 0);
  if (page == MAP_FAILED) return system_error(": mmap", errno);
  MappedMemory liveness(page, {kPage});
  if (madvise(page, kPage, MADV_DONTFORK) != 0)
    return system_error(": madvise(MADV_DONTFORK)", errno);
  TRY(PartyId id, claim_free_index(file.get()));
  const bool of_dead = id == 0;
  if (of_dead) {
    TRY(id, claim_dead_index(file.get()));
  }
  if (id == 0) {
    return error(ErrorCode::out_of_memory,
                 ": all 1,024 places for processes are taken; use fewer, or another channel");
  }
  membership_->liveness = liveness.release();
  membership_->self.store(id, std::memory_order_relaxed);
  membership_->incarnation.store(++last_incarnation, std::memory_order_release);
  if (of_dead) recover_blocks(id - kGeneration);
  return {};
}

// False if another process has the place.
Expected<bool> ChannelSegment::lock_index(int file, std::uint32_t index) const {
  const int refused = lock_byte(file, index);
  if (refused != 0 && refused != EAGAIN) return system_error(": fcntl(F_OFD_SETLK)", refused);
  return refused == 0;
}

Expected<ChannelSegment::PartyId> ChannelSegment::claim_free_index(int file) {
  for (std::uint32_t index = first_index(); index < kParties; ++index) {
    Party& party = control_->parties[index];
    const PartyId before = party.id.load(std::memory_order_acquire);
    if (is_live(before)) continue;
    TRY(const bool locked, lock_index(file, index));
    if (!locked) continue;
    if (party.id.load(std::memory_order_acquire) != before) {
      unlock_byte(file, index);
      continue;
    }
    control_->seldom.parties_used.raise_to(index + 1);
    for (auto& sleepers : party.sleepers) sleepers.store(0, std::memory_order_relaxed);
    write_process(party);
    const PartyId id = next_id(before, index);
    party.id.store(id, std::memory_order_release);
    return id;
  }
  return 0;
}

// For when every index is taken.  Some may be taken by dead parties, if no live one has swept.
Expected<ChannelSegment::PartyId> ChannelSegment::claim_dead_index(int file) {
  for (std::uint32_t index = first_index(); index < kParties; ++index) {
    TRY(const bool locked, lock_index(file, index));
    if (!locked) continue;
    Party& party = control_->parties[index];
    PartyId before = party.id.load(std::memory_order_acquire);
    if (party_at(*control_, before) == &party) recover_hands(before);  // needs the dead PID
    recover_sleepers(party);
    write_process(party);
    const PartyId id = next_id(before, index);
    while (!party.id.compare_exchange_strong(before, id)) {  // another process swept it
    }
    return id;
  }
  return 0;
}

Expected<std::atomic<std::uint64_t>*> ChannelSegment::claim_hand() {
  const std::uint64_t mine = hand_of(self());
  const auto claim = [&](Hand& hand, std::uint64_t before) {
    if (!hand.owner.compare_exchange_strong(before, mine | kBeingTaken)) return false;
    hand.held.store(0);
    hand.owner.store(mine);
    return true;
  };
  for (std::uint32_t i = first_index(); i < kHands; ++i) {
    control_->seldom.hands_used.raise_to(i + 1);
    if (Hand& hand = control_->hands[i]; hand.owner.load() == 0 && claim(hand, 0))
      return &hand.held;
  }
  sweep();
  for (Hand& hand : std::span(control_->hands).subspan(first_index())) {
    const std::uint64_t owner = hand.owner.load();
    const std::uint64_t count = count_of(hand.held.load());
    if ((owner == 0 || is_lost(owner)) && claim(hand, owner)) {
      if (owner != 0) control_->seldom.lost_before.fetch_add(count, std::memory_order_relaxed);
      return &hand.held;
    }
  }
  return error(ErrorCode::out_of_memory,
               ": all 1,024 places for receiving threads are taken; use fewer, or another channel");
}

void ChannelSegment::give_back_hand(std::uint64_t incarnation_then,
                                    std::atomic<std::uint64_t>* held) {
  if (held == nullptr || incarnation_then != incarnation()) return;
  held->store(0, std::memory_order_release);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): `held` is a member of the hand
  auto* hand = reinterpret_cast<Hand*>(reinterpret_cast<std::byte*>(held) - offsetof(Hand, held));
  std::uint64_t mine = hand_of(self());
  hand->owner.compare_exchange_strong(mine, 0);
}

void ChannelSegment::detach() {
  const PartyId id = self();
  if (id == 0) return;
  for (Hand& hand : control_->hands) {
    if (hand.owner.load() == hand_of(id)) {
      hand.held.store(0);
      hand.owner.store(0);
    }
  }
  PartyId mine = id;
  party_at(*control_, id)->id.compare_exchange_strong(mine, id & ~0xffffU);
  membership_->incarnation.store(0);
  munmap(membership_->liveness, kPage);
}

}  // namespace cowshed::internal
