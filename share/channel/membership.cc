#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <new>
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

namespace cowshed::internal {

using namespace channel_layout;

constinit ThreadPlaces no_places = {};
constinit thread_local ThreadPlaces* thread_places = &no_places;

namespace {

std::atomic<std::uint64_t> last_incarnation = 0;

// All the places of a thread; thread_places has those used lately.
struct AllPlaces {
  struct Entry {
    ThreadPlace place;
    std::uint64_t serial;
    std::weak_ptr<ChannelSegment> segment;
  };
  std::vector<Entry> entries;
  std::unique_ptr<ThreadPlaces> lately;

  AllPlaces() = default;
  AllPlaces(const AllPlaces&) = delete;
  AllPlaces& operator=(const AllPlaces&) = delete;
  ~AllPlaces();

  void give_back() {
    for (const Entry& entry : entries)
      if (const auto segment = entry.segment.lock())
        segment->give_back_hand(entry.place.incarnation, entry.place.held);
    entries.clear();
    thread_places = &no_places;
  }
};
thread_local AllPlaces all_places;

// A thread whose locals are gone may still use channels: in the destructor of a static, or of a
// local that is older.  It has one place, and no hand: there is nothing left that could give one
// back.
constinit thread_local bool places_gone = false;
constinit thread_local ThreadPlace late_place = {};
constinit thread_local std::atomic<std::uint64_t> held_by_none = 0;

AllPlaces::~AllPlaces() {
  give_back();
  places_gone = true;
}

// Held over a fork, so that no child inherits the file description of a party that is about to
// attach: it would keep the kernel's lock when its parent is dead.
std::mutex& opening() {
  COWSHED_FORK_STATE static constinit std::mutex mutex;
  return mutex;
}
void guard_forks() {
  static constexpr fork_handlers::Handlers kHandlers = {
      [] { opening().lock(); }, [] { opening().unlock(); }, [] { opening().unlock(); }};
  fork_handlers::enter(fork_handlers::Rank::channels, kHandlers);
}

std::uint64_t pid_namespace() {
  struct stat status{};
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

PartyId next_id(PartyId before, std::uint32_t index) {
  return ((before & ~0xffffU) + kGeneration) | (index + 1);
}

void introduce(Party& party) {
  party.pid.store(static_cast<std::uint32_t>(getpid()), std::memory_order_relaxed);
  party.pid_namespace.store(pid_namespace(), std::memory_order_relaxed);
}

}  // namespace

void give_back_hands() {
  if (!places_gone) all_places.give_back();
}

const ThreadPlace* ChannelSegment::find_place() const {
  const std::uint64_t current = incarnation();
  if (current == 0) return nullptr;
  if (places_gone) return late_place.incarnation == current ? &late_place : nullptr;
  for (const auto& entry : all_places.entries)
    if (entry.place.incarnation == current)
      return &((*thread_places)[serial_ % kPlaces] = entry.place);
  return nullptr;
}

void ChannelSegment::remember(const ThreadPlace& place) {
  if (places_gone) {
    late_place = place;
    return;
  }
  // What an earlier incarnation left, of this process or the one that it was forked from, goes.
  std::erase_if(all_places.entries, [&](const auto& entry) {
    return entry.serial == serial_ || entry.segment.expired();
  });
  if (thread_places == &no_places) {
    all_places.lately = std::make_unique<ThreadPlaces>();
    thread_places = all_places.lately.get();
  }
  all_places.entries.push_back({place, serial_, weak_from_this()});
  (*thread_places)[serial_ % kPlaces] = place;
}

Expected<void> ChannelSegment::join(bool to_receive) {
  const OutsideScope outside;
  if (incarnation() == 0) TRY_VOID(attach());
  ThreadPlace place;
  if (const ThreadPlace* known = find_place()) {
    place = *known;
  } else {
    place.incarnation = incarnation();
    place.lock = holder_of(self(), static_cast<std::uint32_t>(syscall(SYS_gettid)));
  }
  if (places_gone) {
    place.held = &held_by_none;
  } else if (to_receive && place.held == nullptr) {
    TRY(place.held, claim_hand());
  }
  remember(place);
  return {};
}

void ChannelSegment::keep_place() { membership_->creator = true; }

std::uint32_t ChannelSegment::first_place() const { return membership_->creator ? 0 : 1; }

Expected<void> ChannelSegment::attach() {
  if (const int refused = register_for_barriers(); refused != 0) {
    return error(
        ErrorCode::unsupported,
        ": membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) is refused; it needs Linux "
        "4.16 or newer, and a sandbox that lets it pass",
        refused);
  }
  while (membership_->joining.exchange(1, std::memory_order_acquire) != 0) sched_yield();
  Expected<void> result;
  if (incarnation() == 0) result = claim_index();
  membership_->joining.store(0, std::memory_order_release);
  return result;
}

Expected<void> ChannelSegment::claim_index() {
  guard_forks();
  const std::lock_guard guard(opening());
  const std::string path = "/proc/self/fd/" + std::to_string(descriptors_.segment);
  const FileDescriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return system_error(": open " + path, errno);
  void* liveness = mmap(nullptr, kPage, PROT_NONE, MAP_SHARED, file.get(), 0);
  if (liveness == MAP_FAILED) return system_error(": mmap", errno);
  if (madvise(liveness, kPage, MADV_DONTFORK) != 0) {
    const auto refused = system_error(": madvise(MADV_DONTFORK)", errno);
    munmap(liveness, kPage);
    return refused;
  }
  PartyId id = claim_free_index(file.get());
  const bool was_of_the_dead = id == 0;
  if (was_of_the_dead) id = claim_index_of_dead(file.get());
  if (id == 0) {
    munmap(liveness, kPage);
    return error(ErrorCode::out_of_memory,
                 ": all 1,024 places for processes are taken; use fewer, or another channel");
  }
  membership_->liveness = liveness;
  membership_->self.store(id, std::memory_order_relaxed);
  membership_->incarnation.store(++last_incarnation, std::memory_order_release);
  if (was_of_the_dead) settle_blocks(id - kGeneration);
  return {};
}

ChannelSegment::PartyId ChannelSegment::claim_free_index(int file) {
  for (std::uint32_t index = first_place(); index < kParties; ++index) {
    Party& party = control_->parties[index];
    const PartyId before = party.id.load(std::memory_order_acquire);
    if (is_live(before) || !lock_byte(file, index)) continue;
    if (party.id.load(std::memory_order_acquire) != before) {
      unlock_byte(file, index);
      continue;
    }
    control_->seldom.parties_used.raise_to(index + 1);
    for (auto& sleepers : party.sleepers) sleepers.store(0, std::memory_order_relaxed);
    introduce(party);
    const PartyId id = next_id(before, index);
    party.id.store(id, std::memory_order_release);
    return id;
  }
  return 0;
}

// Where all are taken, and some of them by the dead, because nobody who lives has waited.
ChannelSegment::PartyId ChannelSegment::claim_index_of_dead(int file) {
  for (std::uint32_t index = first_place(); index < kParties; ++index) {
    if (!lock_byte(file, index)) continue;
    Party& party = control_->parties[index];
    PartyId before = party.id.load(std::memory_order_acquire);
    if (party_at(*control_, before) == &party) settle_hands(before);  // while its PID is there
    settle_sleepers(party);
    introduce(party);
    const PartyId id = next_id(before, index);
    while (!party.id.compare_exchange_strong(before, id)) {  // somebody has swept it meanwhile
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
  for (std::uint32_t i = first_place(); i < kHands; ++i) {
    control_->seldom.hands_used.raise_to(i + 1);
    if (Hand& hand = control_->hands[i]; hand.owner.load() == 0 && claim(hand, 0))
      return &hand.held;
  }
  sweep();
  for (Hand& hand : std::span(control_->hands).subspan(first_place())) {
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
  // NOLINTNEXTLINE(performance-no-int-to-ptr): `held` is its second member
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
