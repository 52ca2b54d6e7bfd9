#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <sys/types.h>
#include <unistd.h>
#include <utility>

#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/process/addresses.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/tree.h>

namespace cowshed::addresses {
namespace {

using process_tree::kPlaces;
using process_tree::kRanges;

constexpr std::uintptr_t kUnit = 1UL << 30U;
constexpr std::size_t kGap = kHugePage;  // a run off the end of an arena should not reach the next
constexpr std::uint32_t kNone = ~0U;

COWSHED_FORK_STATE std::mutex places_mutex;

std::mutex& held_over_forks() {
  static constexpr auto kUnlock = [] { places_mutex.unlock(); };
  static constexpr fork_handlers::Handlers kHandlers = {[] { places_mutex.lock(); }, kUnlock,
                                                        kUnlock};
  fork_handlers::enter(fork_handlers::Rank::addresses, kHandlers);
  return places_mutex;
}

// Of this process.  A forked child's are of what it inherited.
std::array<std::uint16_t, kPlaces> arenas_at{};

// The unit that small arenas are put into.
struct Shelf {
  std::uint32_t place = kNone;
  pid_t owner = 0;
  std::uintptr_t next = 0;
};
std::array<Shelf, kRanges.size()> shelves;
std::array<std::uint32_t, kRanges.size()> left_last = {kNone, kNone};

constexpr std::uint32_t start_of(std::size_t range) {  // in kPlaces
  return range == 0 ? 0 : kRanges[0].count;
}

constexpr std::uintptr_t address_of(std::size_t range, std::uint32_t place) {
  return (kRanges.at(range).first + std::uintptr_t{place}) * kUnit;
}

constexpr std::uint32_t units_of(std::size_t size) {
  return static_cast<std::uint32_t>((size + kGap + kUnit - 1) / kUnit);
}

std::atomic<std::uint64_t>& holder_of(std::size_t range, std::uint32_t place) {
  return process_tree::shared().holders.at(start_of(range) + place);
}

std::uint64_t word_of(std::size_t range, std::uint32_t place, pid_t holder) {
  return process_tree::word_of(start_of(range) + place, static_cast<std::uint32_t>(holder));
}

void release(std::size_t range, std::uint32_t place) {
  std::uint64_t own = word_of(range, place, getpid());
  holder_of(range, place).compare_exchange_strong(own, 0);
}

// What a wild write has damaged is free: if its holder lives, a process that has arenas of both
// there says that the address is taken.  A PID of another namespace may seem dead, or be another
// process: then a place is used again too early, or not while that process lives.
class Search {
 public:
  explicit Search(std::size_t range) : range_(range) {}

  // Claims `count` places from `first` on.  On failure `first` is after what is in the way.
  bool claim(std::uint32_t& first, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      std::atomic<std::uint64_t>& holder = holder_of(range_, first + i);
      std::uint64_t before = holder.load();
      if (!is_free(before, first + i) ||
          !holder.compare_exchange_strong(before, word_of(range_, first + i, self_))) {
        for (std::uint32_t claimed = first; claimed < first + i; ++claimed)
          release(range_, claimed);
        first += i + 1;
        return false;
      }
    }
    return true;
  }

 private:
  bool is_free(std::uint64_t word, std::uint32_t place) {
    if (arenas_at.at(start_of(range_) + place) != 0) return false;
    const auto holder =
        word == 0 ? std::nullopt : process_tree::value_of(start_of(range_) + place, word);
    return !holder || static_cast<pid_t>(*holder) == self_ || is_dead(static_cast<pid_t>(*holder));
  }

  bool is_dead(pid_t pid) {
    if (pid == alive_)  // neighbours have the same
      return false;
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    alive_ = pid;
    return false;
  }

  std::size_t range_;
  pid_t self_ = getpid();
  pid_t alive_ = 0;
};

// The first of `count` claimed places, or kNone.
std::uint32_t claim(std::size_t range, std::uint32_t count) {
  const std::uint32_t end = kRanges.at(range).count;
  if (count > end) return kNone;
  Search search(range);
  if (std::uint32_t place = std::exchange(left_last.at(range), kNone);
      place != kNone && place + count <= end && search.claim(place, count)) {
    return place;
  }
  std::atomic<std::uint32_t>& next = process_tree::shared().next_place.at(range);
  const std::uint32_t start = next.load() % end;
  std::uint32_t place = start;
  for (bool again = false; !again || place <= start;) {
    if (place + count > end) {
      if (again) break;
      again = true;
      place = 0;
    } else if (search.claim(place, count)) {
      next.store(place + count);
      return place;
    }
  }
  return kNone;
}

// The places of all ranges that [begin, end) touches.
template <class Function>
void for_each_place(std::uintptr_t begin, std::uintptr_t end, Function function) {
  for (std::size_t range = 0; range < kRanges.size(); ++range) {
    const std::uintptr_t first = kRanges.at(range).first;
    const std::uintptr_t last = first + kRanges.at(range).count;
    for (std::uintptr_t unit = std::max(begin / kUnit, first);
         unit < std::min((end + kUnit - 1) / kUnit, last); ++unit) {
      function(range, static_cast<std::uint32_t>(unit - first));
    }
  }
}

void count(std::uintptr_t begin, std::size_t size) {
  for_each_place(begin, begin + size + kGap, [](std::size_t range, std::uint32_t place) {
    ++arenas_at.at(start_of(range) + place);
  });
}

bool is_own(std::size_t range, const Shelf& shelf) {
  return shelf.place != kNone && shelf.owner == getpid() &&
         holder_of(range, shelf.place).load() == word_of(range, shelf.place, shelf.owner);
}

// Another becomes the shelf.
void leave_shelf(std::size_t range) {
  const Shelf& shelf = shelves.at(range);
  if (is_own(range, shelf) && arenas_at.at(start_of(range) + shelf.place) == 0)
    release(range, shelf.place);
}

}  // namespace

std::uintptr_t take(std::size_t range, std::size_t size) {
  const std::lock_guard lock(held_over_forks());
  std::uintptr_t begin = 0;
  if (size + kGap > kUnit) {
    const std::uint32_t place = claim(range, units_of(size));
    if (place == kNone) return 0;
    begin = address_of(range, place);
  } else {
    Shelf& shelf = shelves.at(range);
    if (!is_own(range, shelf) ||
        shelf.next + size + kGap > address_of(range, shelf.place) + kUnit) {
      const std::uint32_t place = claim(range, 1);
      if (place == kNone) return 0;
      leave_shelf(range);
      shelf = {place, getpid(), address_of(range, place)};
    }
    begin = shelf.next;
    shelf.next += size + kGap;
  }
  count(begin, size);
  return begin;
}

void skip(std::size_t range, std::uintptr_t begin, std::size_t size, std::uintptr_t end) {
  leave(begin, size, true);
  const std::lock_guard lock(held_over_forks());
  const std::uintptr_t after = (end + kGap + kHugePage - 1) / kHugePage * kHugePage;
  Shelf& shelf = shelves.at(range);
  if (size + kGap <= kUnit && after < address_of(range, shelf.place) + kUnit) {
    shelf.next = after;
    return;
  }
  if (size + kGap <= kUnit) {
    leave_shelf(range);
    shelf.place = kNone;
  }
  const std::uintptr_t unit = (after + kUnit - 1) / kUnit - kRanges.at(range).first;
  const bool is_inside = unit < kRanges.at(range).count;
  process_tree::shared().next_place.at(range) = is_inside ? static_cast<std::uint32_t>(unit) : 0;
}

void hold(std::uintptr_t begin, std::size_t size, Holder holder) {
  const std::lock_guard lock(held_over_forks());
  count(begin, size);
  if (holder == Holder::this_process) {
    for_each_place(begin, begin + size + kGap, [](std::size_t range, std::uint32_t place) {
      holder_of(range, place).store(word_of(range, place, getpid()));
    });
  }
}

void leave(std::uintptr_t begin, std::size_t size, bool known_elsewhere) {
  const std::lock_guard lock(held_over_forks());
  for_each_place(begin, begin + size + kGap, [&](std::size_t range, std::uint32_t place) {
    Shelf& shelf = shelves.at(range);
    const bool on_shelf = shelf.place == place && is_own(range, shelf);
    if (on_shelf && !known_elsewhere) shelf.next = std::min(shelf.next, begin);
    if (--arenas_at.at(start_of(range) + place) == 0 && !on_shelf) {
      release(range, place);
      if (!known_elsewhere && begin == address_of(range, place)) left_last.at(range) = place;
    }
  });
}

}  // namespace cowshed::addresses
