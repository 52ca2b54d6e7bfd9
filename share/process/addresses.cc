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

using process_tree::kRanges;
using process_tree::kUnits;

constexpr std::uintptr_t kUnit = 1UL << 30U;
constexpr std::size_t kGap = kHugePage;  // so that an overrun of an arena does not reach the next
constexpr std::uint32_t kNone = ~0U;

COWSHED_FORK_STATE std::mutex addresses_mutex;

std::mutex& held_over_forks() {
  static constexpr auto kUnlock = [] { addresses_mutex.unlock(); };
  static constexpr fork_handlers::Handlers kHandlers = {[] { addresses_mutex.lock(); }, kUnlock,
                                                        kUnlock};
  fork_handlers::enter(fork_handlers::Rank::addresses, kHandlers);
  return addresses_mutex;
}

// How many arenas of this process, or inherited by it, each unit has.
std::array<std::uint16_t, kUnits> arenas_at{};

// The unit in which small arenas are placed.
struct CurrentUnit {
  std::uint32_t unit = kNone;
  pid_t owner = 0;
  std::uintptr_t next = 0;
};
std::array<CurrentUnit, kRanges.size()> current_units;
std::array<std::uint32_t, kRanges.size()> freed_last = {kNone, kNone};

constexpr std::uint32_t start_of(std::size_t range) {  // in kUnits
  return range == 0 ? 0 : kRanges[0].count;
}

constexpr std::uintptr_t address_of(std::size_t range, std::uint32_t unit) {
  return (kRanges.at(range).first + std::uintptr_t{unit}) * kUnit;
}

constexpr std::uint32_t units_of(std::size_t size) {
  return static_cast<std::uint32_t>((size + kGap + kUnit - 1) / kUnit);
}

std::atomic<std::uint64_t>& holder_of(std::size_t range, std::uint32_t unit) {
  return process_tree::shared().holders.at(start_of(range) + unit);
}

std::uint64_t word_of(std::size_t range, std::uint32_t unit, pid_t holder) {
  return process_tree::word_of(start_of(range) + unit, static_cast<std::uint32_t>(holder));
}

void release(std::size_t range, std::uint32_t unit) {
  std::uint64_t own = word_of(range, unit, getpid());
  holder_of(range, unit).compare_exchange_strong(own, 0);
}

// Finds free units.  A damaged word counts as free.  If its holder lives, two arenas can get the
// same addresses, and a process that maps both fails with address_taken.  A PID of another PID
// namespace may seem dead, or be another process's.  Then a unit is used again too early, or too
// late.
class Search {
 public:
  explicit Search(std::size_t range) : range_(range) {}

  // Claims `count` units from `first` on.  On failure, `first` is the next one to try.
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

  // Claims the unit unless a living process has it.
  void claim_if_left(std::uint32_t unit) {
    std::atomic<std::uint64_t>& holder = holder_of(range_, unit);
    std::uint64_t before = holder.load();
    if (is_left(before, unit)) holder.compare_exchange_strong(before, word_of(range_, unit, self_));
  }

 private:
  bool is_free(std::uint64_t word, std::uint32_t unit) {
    return arenas_at.at(start_of(range_) + unit) == 0 && is_left(word, unit);
  }

  bool is_left(std::uint64_t word, std::uint32_t unit) {
    const auto holder =
        word == 0 ? std::nullopt : process_tree::value_of(start_of(range_) + unit, word);
    return !holder || static_cast<pid_t>(*holder) == self_ || is_dead(static_cast<pid_t>(*holder));
  }

  bool is_dead(pid_t pid) {
    if (pid == alive_) return false;  // neighbouring units often have the same holder
    if (kill(pid, 0) != 0 && errno == ESRCH) return true;
    alive_ = pid;
    return false;
  }

  std::size_t range_;
  pid_t self_ = getpid();
  pid_t alive_ = 0;
};

// Claims `count` units.  Returns the first, or kNone.
std::uint32_t claim(std::size_t range, std::uint32_t count) {
  const std::uint32_t end = kRanges.at(range).count;
  if (count > end) return kNone;
  Search search(range);
  if (std::uint32_t unit = std::exchange(freed_last.at(range), kNone);
      unit != kNone && unit + count <= end && search.claim(unit, count)) {
    return unit;
  }
  std::atomic<std::uint32_t>& next = process_tree::shared().next_unit.at(range);
  const std::uint32_t start = next.load() % end;
  std::uint32_t unit = start;
  for (bool again = false; !again || unit <= start;) {
    if (unit + count > end) {
      if (again) break;
      again = true;
      unit = 0;
    } else if (search.claim(unit, count)) {
      next.store(unit + count);
      return unit;
    }
  }
  return kNone;
}

// Calls function(range, unit) for all units that [begin, end) touches.
template <class Function>
void for_each_unit(std::uintptr_t begin, std::uintptr_t end, Function function) {
  for (std::size_t range = 0; range < kRanges.size(); ++range) {
    const std::uintptr_t first = kRanges.at(range).first;
    const std::uintptr_t last = first + kRanges.at(range).count;
    for (std::uintptr_t gib = std::max(begin / kUnit, first);
         gib < std::min((end + kUnit - 1) / kUnit, last); ++gib) {
      function(range, static_cast<std::uint32_t>(gib - first));
    }
  }
}

void count(std::uintptr_t begin, std::size_t size) {
  for_each_unit(begin, begin + size + kGap, [](std::size_t range, std::uint32_t unit) {
    ++arenas_at.at(start_of(range) + unit);
  });
}

bool is_own(std::size_t range, const CurrentUnit& current) {
  return current.unit != kNone && current.owner == getpid() &&
         holder_of(range, current.unit).load() == word_of(range, current.unit, current.owner);
}

// Releases the current unit unless it has arenas, because another becomes the current one.
void leave_current(std::size_t range) {
  const CurrentUnit& current = current_units.at(range);
  if (is_own(range, current) && arenas_at.at(start_of(range) + current.unit) == 0)
    release(range, current.unit);
}

}  // namespace

std::uintptr_t take(std::size_t range, std::size_t size) {
  const std::lock_guard lock(held_over_forks());
  std::uintptr_t begin = 0;
  if (size + kGap > kUnit) {
    const std::uint32_t unit = claim(range, units_of(size));
    if (unit == kNone) return 0;
    begin = address_of(range, unit);
  } else {
    CurrentUnit& current = current_units.at(range);
    if (!is_own(range, current) ||
        current.next + size + kGap > address_of(range, current.unit) + kUnit) {
      const std::uint32_t unit = claim(range, 1);
      if (unit == kNone) return 0;
      leave_current(range);
      current = {unit, getpid(), address_of(range, unit)};
    }
    begin = current.next;
    current.next += size + kGap;
  }
  count(begin, size);
  return begin;
}

void skip(std::size_t range, std::uintptr_t begin, std::size_t size, std::uintptr_t end) {
  leave(begin, size, true);
  const std::lock_guard lock(held_over_forks());
  const std::uintptr_t after = (end + kGap + kHugePage - 1) / kHugePage * kHugePage;
  if (size + kGap <= kUnit) {
    CurrentUnit& current = current_units.at(range);
    const bool is_meant =
        is_own(range, current) && begin / kUnit * kUnit == address_of(range, current.unit);
    if (!is_meant) return;  // another thread has taken a new unit meanwhile
    if (after < address_of(range, current.unit) + kUnit) {
      current.next = std::max(current.next, after);
      return;
    }
    leave_current(range);
    current.unit = kNone;
  }
  const std::uintptr_t next = (after + kUnit - 1) / kUnit - kRanges.at(range).first;
  const bool is_inside = next < kRanges.at(range).count;
  process_tree::shared().next_unit.at(range) = is_inside ? static_cast<std::uint32_t>(next) : 0;
}

void hold(std::uintptr_t begin, std::size_t size, Holder holder) {
  const std::lock_guard lock(held_over_forks());
  count(begin, size);
  if (holder == Holder::this_process) {
    for_each_unit(begin, begin + size + kGap,
                  [](std::size_t range, std::uint32_t unit) { Search(range).claim_if_left(unit); });
  }
}

void leave(std::uintptr_t begin, std::size_t size, bool known_elsewhere) {
  const std::lock_guard lock(held_over_forks());
  for_each_unit(begin, begin + size + kGap, [&](std::size_t range, std::uint32_t unit) {
    CurrentUnit& current = current_units.at(range);
    const bool is_current = current.unit == unit && is_own(range, current);
    if (is_current && !known_elsewhere) current.next = std::min(current.next, begin);
    if (--arenas_at.at(start_of(range) + unit) == 0 && !is_current) {
      release(range, unit);
      if (!known_elsewhere && begin == address_of(range, unit)) freed_last.at(range) = unit;
    }
  });
}

}  // namespace cowshed::addresses
