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

using internal::kHugePage;
using process_tree::kRanges;
using process_tree::kUnits;

constexpr std::uintptr_t kUnit = 1UL << 30U;
constexpr std::size_t kGap = kHugePage;  // so that an overrun of an arena does not reach the next
constexpr std::uint32_t kNone = ~0U;

COWSHED_FORK_STATE std::mutex addresses_mutex;

std::mutex& held_over_forks() {
  return fork_handlers::held_over_forks<fork_handlers::Rank::addresses, addresses_mutex>();
}

// A unit's number counts the units of all ranges.

// How many arenas of this process, or inherited by it, each unit has.
std::array<std::uint16_t, kUnits> arenas_at{};

// The unit in which small arenas are placed.
struct CurrentUnit {
  std::uint32_t unit = kNone;
  std::uint32_t owner = 0;  // a PID
  std::uintptr_t next = 0;
};
std::array<CurrentUnit, kRanges.size()> current_units;
std::array<std::uint32_t, kRanges.size()> freed_last = {kNone, kNone};

constexpr std::uint32_t first_of(std::size_t range) { return range == 0 ? 0 : kRanges[0].count; }

constexpr std::size_t range_of(std::uint32_t unit) { return unit < kRanges[0].count ? 0 : 1; }

constexpr std::uintptr_t address_of(std::uint32_t unit) {
  const std::size_t range = range_of(unit);
  return (kRanges.at(range).first + std::uintptr_t{unit - first_of(range)}) * kUnit;
}

std::uint32_t this_process() { return static_cast<std::uint32_t>(getpid()); }

std::atomic<std::uint64_t>& holder_of(std::uint32_t unit) {
  return process_tree::shared().holders.at(unit);
}

void release(std::uint32_t unit) {
  std::uint64_t own = process_tree::word_of(unit, this_process());
  holder_of(unit).compare_exchange_strong(own, 0);
}

// Finds free units.  A damaged word counts as free.  If its holder lives, two arenas can get the
// same addresses, and a process that maps both fails with address_taken.  A PID of another PID
// namespace may seem dead, or be another process's.  Then a unit is used again too early, or too
// late.
class Search {
 public:
  // Claims `count` units from `first` on.  On failure, `first` is the next one to try.
  bool claim(std::uint32_t& first, std::uint32_t count) {
    for (std::uint32_t unit = first; unit < first + count; ++unit) {
      if (arenas_at.at(unit) == 0 && claim_if_left(unit)) continue;
      for (std::uint32_t claimed = first; claimed < unit; ++claimed) release(claimed);
      first = unit + 1;
      return false;
    }
    return true;
  }

  // Claims the unit unless a living process has it.
  bool claim_if_left(std::uint32_t unit) {
    std::uint64_t before = holder_of(unit).load();
    return is_left(before, unit) &&
           holder_of(unit).compare_exchange_strong(before, process_tree::word_of(unit, self_));
  }

 private:
  bool is_left(std::uint64_t word, std::uint32_t unit) {
    const auto holder = word == 0 ? std::nullopt : process_tree::value_of(unit, word);
    return !holder || *holder == self_ || is_dead(*holder);
  }

  bool is_dead(std::uint32_t pid) {
    if (pid == alive_) return false;  // neighbouring units often have the same holder
    if (kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return true;
    alive_ = pid;
    return false;
  }

  std::uint32_t self_ = this_process();
  std::uint32_t alive_ = 0;
};

// Claims `count` units.  Returns the first, or kNone.
std::uint32_t claim(std::size_t range, std::uint32_t count) {
  const std::uint32_t first = first_of(range);
  const std::uint32_t end = first + kRanges.at(range).count;
  if (count > end - first) return kNone;
  Search search;
  if (std::uint32_t unit = std::exchange(freed_last.at(range), kNone);
      unit != kNone && unit + count <= end && search.claim(unit, count)) {
    return unit;
  }
  std::atomic<std::uint32_t>& next = process_tree::shared().next_unit.at(range);
  const std::uint32_t start = first + next.load() % (end - first);
  std::uint32_t unit = start;
  for (bool again = false; !again || unit <= start;) {
    if (unit + count > end) {
      if (again) break;
      again = true;
      unit = first;
    } else if (search.claim(unit, count)) {
      next.store(unit + count - first);
      return unit;
    }
  }
  return kNone;
}

// Calls function(unit) for all units that an arena there touches.
template <class Function>
void for_each_unit(std::uintptr_t begin, std::size_t size, Function function) {
  const std::uintptr_t end = (begin + size + kGap + kUnit - 1) / kUnit;
  for (std::size_t range = 0; range < kRanges.size(); ++range) {
    const std::uintptr_t first = kRanges.at(range).first;
    const std::uintptr_t last = first + kRanges.at(range).count;
    for (std::uintptr_t gib = std::max(begin / kUnit, first); gib < std::min(end, last); ++gib)
      function(first_of(range) + static_cast<std::uint32_t>(gib - first));
  }
}

void count(std::uintptr_t begin, std::size_t size) {
  for_each_unit(begin, size, [](std::uint32_t unit) { ++arenas_at.at(unit); });
}

bool is_own(const CurrentUnit& current) {
  return current.unit != kNone && current.owner == this_process() &&
         holder_of(current.unit).load() == process_tree::word_of(current.unit, current.owner);
}

// Releases the current unit unless it has arenas, because another becomes the current one.
void release_if_unused(const CurrentUnit& current) {
  if (is_own(current) && arenas_at.at(current.unit) == 0) release(current.unit);
}

}  // namespace

std::uintptr_t take(std::size_t range, std::size_t size) {
  const std::lock_guard lock(held_over_forks());
  std::uintptr_t begin = 0;
  if (size + kGap > kUnit) {
    const auto units = static_cast<std::uint32_t>((size + kGap + kUnit - 1) / kUnit);
    const std::uint32_t unit = claim(range, units);
    if (unit == kNone) return 0;
    begin = address_of(unit);
  } else {
    CurrentUnit& current = current_units.at(range);
    if (!is_own(current) || current.next + size + kGap > address_of(current.unit) + kUnit) {
      const std::uint32_t unit = claim(range, 1);
      if (unit == kNone) return 0;
      release_if_unused(current);
      current = {unit, this_process(), address_of(unit)};
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
    const bool is_meant = is_own(current) && begin / kUnit * kUnit == address_of(current.unit);
    if (!is_meant) return;  // another thread has taken a new unit meanwhile
    if (after < address_of(current.unit) + kUnit) {
      current.next = std::max(current.next, after);
      return;
    }
    release_if_unused(current);
    current.unit = kNone;
  }
  const std::uintptr_t next = (after + kUnit - 1) / kUnit - kRanges.at(range).first;
  const bool is_inside = next < kRanges.at(range).count;
  process_tree::shared().next_unit.at(range) = is_inside ? static_cast<std::uint32_t>(next) : 0;
}

void hold(std::uintptr_t begin, std::size_t size, Holder holder) {
  const std::lock_guard lock(held_over_forks());
  count(begin, size);
  if (holder == Holder::this_process)
    for_each_unit(begin, size, [](std::uint32_t unit) { Search().claim_if_left(unit); });
}

void leave(std::uintptr_t begin, std::size_t size, bool known_elsewhere) {
  const std::lock_guard lock(held_over_forks());
  for_each_unit(begin, size, [&](std::uint32_t unit) {
    CurrentUnit& current = current_units.at(range_of(unit));
    const bool is_current = current.unit == unit && is_own(current);
    if (is_current && !known_elsewhere) current.next = std::min(current.next, begin);
    if (--arenas_at.at(unit) == 0 && !is_current) {
      release(unit);
      if (!known_elsewhere && begin == address_of(unit)) freed_last.at(range_of(unit)) = unit;
    }
  });
}

}  // namespace cowshed::addresses
