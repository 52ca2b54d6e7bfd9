#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <utility>

#include <cowshed/share/arena/memory.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>

namespace cowshed::internal {
namespace {

constexpr std::size_t kWordsPerRange = kHugePage / arch::kPage / 64;
// Each call of MADV_COLLAPSE drains every CPU's page lists, even for a small range.
constexpr std::size_t kMostAtOnce = kCollapseStep / kHugePage;
// If several threads take memory, each takes less, because they wait for one another's.
constexpr std::size_t kMostOfSeveral = 4;
// A thread takes no range that is further behind what it needs, while others take that.
constexpr std::size_t kMostAhead = 64;
// More threads than this would not take memory faster.
constexpr std::size_t kMostTakers = 64;
// Left to the rest of the process under a cgroup's limit.
constexpr std::size_t kReserve = 4_MiB;
// After so many failures in a row, huge pages are tried again at the freeze only.
constexpr int kMostFailures = 8;

// Of all arenas of this process, because they share what the kernel has left.
COWSHED_FORK_STATE constinit std::atomic<std::size_t> reserved_ranges = 0;  // ever
COWSHED_FORK_STATE constinit std::atomic<std::size_t> done_ranges = 0;      // taken or given up

}  // namespace

Expected<void> ArenaMemory::open(const ArenaMapping& mapping, std::size_t first, bool huge_pages,
                                 const std::string& name) {
  const std::size_t count = mapping.size / kHugePage;
  const std::size_t bytes = count * (kWordsPerRange * sizeof *pages_ + sizeof *ranges_);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return system_error("arena '" + name + "': mmap of its records", errno);
  MappedMemory records(memory, {bytes});
  if (madvise(memory, bytes, MADV_DONTFORK) != 0)
    return system_error("arena '" + name + "': madvise(MADV_DONTFORK)", errno);
  records_ = std::move(records);
  // Zeros are valid atomics, and writing to all of them would take memory for all of the range.
  pages_ = static_cast<std::atomic<std::uint64_t>*>(memory);
  ranges_ = reinterpret_cast<std::atomic<Backing>*>(pages_ + count * kWordsPerRange);
  mapping_ = mapping;
  first_ = first / kHugePage;
  huge_pages_ = huge_pages;
  failures_ = 0;
  error_ = 0;
  purged_ = false;
  limits_ = MemoryLimits::of_this_process();
  taken_ranges_ = 0;
  used_ = first;
  shortage_ = 0;
  growing_.emplace();
  has_taken_.emplace();
  takers_ = crowd_ = 0;
  return {};
}

void ArenaMemory::close() { records_.reset(); }

void ArenaMemory::forget() {
  (void)records_.release();
  done_ranges = reserved_ranges.load();  // the threads that were at it are the parent's
  // Threads of the parent may have held or awaited the old ones, whose destructors could wait.
  growing_.emplace();
  new (&has_taken_) std::optional<std::condition_variable>(std::in_place);
}

bool ArenaMemory::commit(std::uintptr_t begin, std::size_t size) noexcept {
  const std::size_t offset = begin - mapping_.begin;
  const std::size_t last = (offset + size - 1) / kHugePage;
  for (std::size_t range = offset / kHugePage; range <= last; ++range)
    if (!has_memory(range) && !grow(range, last)) return false;
  if (purged_.load(std::memory_order_relaxed))
    std::memset(reinterpret_cast<void*>(begin), 0, size);  // jemalloc expects zeros
  for (std::size_t page = offset / arch::kPage; page < (offset + size) / arch::kPage; ++page)
    pages_[page / 64].fetch_or(std::uint64_t{1} << page % 64, std::memory_order_relaxed);
  return true;
}

void ArenaMemory::decommit(std::uintptr_t begin, std::size_t size) noexcept {
  const std::size_t offset = begin - mapping_.begin;
  for (std::size_t page = offset / arch::kPage; page < (offset + size) / arch::kPage; ++page)
    pages_[page / 64].fetch_and(~(std::uint64_t{1} << page % 64), std::memory_order_relaxed);
  purged_.store(true, std::memory_order_relaxed);
}

// What the kernel has left, without what threads have reserved since `before`.
std::size_t ArenaMemory::Room::left(std::size_t reserved) const {
  return bytes - std::min(bytes, (reserved - before) * kHugePage);
}

ArenaMemory::Room ArenaMemory::look_for_room() const noexcept {
  const std::size_t before = done_ranges;
  return {std::min(limits_.headroom(), available_memory()), before};
}

// Returns whether [first, last] have memory.  Takes what lacks it and some more for later requests;
// or, while others take what it needs, only some more.
bool ArenaMemory::grow(std::size_t first, std::size_t last) noexcept {
  std::unique_lock lock(*growing_);
  std::optional<Room> room;
  while (first <= last) {
    if (has_memory(first)) {
      ++first;
      continue;
    }
    const auto missing =
        static_cast<std::size_t>(std::count(ranges_ + first, ranges_ + last + 1, Backing::nothing));
    const std::size_t begin = next_to_take(missing > 0 ? first : last + 1);
    if (missing == 0 && !should_help(begin - last)) {
      has_taken_->wait(lock);
      room.reset();
      continue;
    }
    if (!room) {
      lock.unlock();  // the kernel may take long to tell
      room = look_for_room();
      lock.lock();
      continue;
    }
    std::size_t reserved = reserved_ranges;
    const std::size_t left = room->left(reserved);
    if (missing > 0 && left < missing * kHugePage + kReserve) {
      if (room->before == reserved) {
        shortage_ = kLimited;
        return false;
      }
      // Some of that memory may have been counted twice.
      if (takers_ > 0) has_taken_->wait(lock);
      room.reset();
      continue;
    }
    const std::size_t count = count_to_take(begin, last, missing, left);
    if (count == 0) {  // no help without memory to spare
      has_taken_->wait(lock);
      room.reset();
      continue;
    }
    // Else a thread has reserved some for another arena.
    if (!reserved_ranges.compare_exchange_strong(reserved, reserved + count)) continue;
    const auto [taken, error] = take(lock, {begin, count});
    if (taken < count && begin + taken <= last) {
      shortage_ = error;
      return false;
    }
    room.reset();
  }
  return true;
}

// The first range from `range` on that nobody has or takes; or the end.
std::size_t ArenaMemory::next_to_take(std::size_t range) const {
  auto* const end = ranges_ + mapping_.size / kHugePage;
  return static_cast<std::size_t>(std::find(ranges_ + range, end, Backing::nothing) - ranges_);
}

// Whether a thread should take a range that is so far behind those that others take for it.
bool ArenaMemory::should_help(std::size_t distance) const {
  return takers_ < kMostTakers &&
         distance <= std::min(kMostAhead, std::max(takers_ + 1, 2 * taken_ranges_));
}

// How many ranges from `begin` on a thread should take: what it needs of [begin, last], and some
// ahead.  `left` bytes can be taken.
std::size_t ArenaMemory::count_to_take(std::size_t begin, std::size_t last, std::size_t missing,
                                       std::size_t left) {
  crowd_ = std::max(takers_ + 1, crowd_ - std::min<std::size_t>(crowd_, 1));
  const std::size_t spare = (left - std::min(left, missing * kHugePage + kReserve)) / 2 / kHugePage;
  const std::size_t most = std::min(crowd_ > 1 ? kMostOfSeveral : kMostAtOnce, spare);
  std::size_t ahead = std::min(crowd_ > 1 ? 2 * taken_ranges_ / crowd_ : taken_ranges_, most);
  if (missing == 0) ahead = std::max<std::size_t>(ahead, most > 0 ? 1 : 0);
  std::size_t count = 0;
  for (; begin + count < mapping_.size / kHugePage && count < kMostAtOnce; ++count) {
    const std::size_t range = begin + count;
    if (ranges_[range] != Backing::nothing || (range > last && ahead-- == 0)) break;
  }
  return count;
}

// Of ranges that are reserved.  Releases the lock meanwhile.  Returns how many of these ranges have
// memory, and an errno if not all have.
std::pair<std::size_t, int> ArenaMemory::take(std::unique_lock<std::mutex>& lock,
                                              Ranges ranges) noexcept {
  std::fill_n(ranges_ + ranges.first, ranges.count, Backing::reserved);
  ++takers_;
  lock.unlock();
  const std::size_t taken = take(ranges);
  const int error = errno;
  lock.lock();
  --takers_;
  done_ranges += ranges.count;
  taken_ranges_ += taken;
  if (taken > 0) used_ = std::max(used_.load(), (ranges.first + taken) * kHugePage);
  std::fill_n(ranges_ + ranges.first + taken, ranges.count - taken, Backing::nothing);
  has_taken_->notify_all();
  return {taken, error};
}

// MADV_COLLAPSE needs one page in each range.
bool ArenaMemory::take_huge(Ranges ranges) noexcept {
  if (!huge_pages_ || failures_ >= kMostFailures) return false;
  for (std::size_t i = 0; i < ranges.count; ++i) {
    if (!allocate_pages(mapping_.file.fd, (ranges.first + i) * kHugePage, kPage)) {
      error_ = errno;
      return false;
    }
  }
  const int error =
      collapse_range(mapping_.begin + ranges.first * kHugePage, ranges.count * kHugePage);
  if (error != 0) error_ = error;
  return error == 0;
}

// Allocates memory for these ranges.  Returns how many; after a failure, with its errno, fewer.
std::size_t ArenaMemory::take(Ranges ranges) noexcept {
  if (!mapping_.file.is_ours()) return 0;
  const bool together = take_huge(ranges);
  for (std::size_t i = 0; i < ranges.count; ++i) {
    const std::size_t range = ranges.first + i;
    const bool huge = together || take_huge({range, 1});
    failures_ = huge ? 0 : failures_ + 1;
    if (!huge && !allocate_pages(mapping_.file.fd, range * kHugePage, kHugePage)) {
      const int error = errno;
      give_back({range, ranges.count - i});  // take_huge() may have allocated a page of each
      errno = error;
      return i;
    }
    ranges_[range].store(huge ? Backing::huge : Backing::small, std::memory_order_release);
  }
  return ranges.count;
}

bool ArenaMemory::give_back(Ranges ranges) noexcept {
  return mapping_.file.is_ours() &&
         fallocate(mapping_.file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   static_cast<off_t>(ranges.first * kHugePage),
                   static_cast<off_t>(ranges.count * kHugePage)) == 0;
}

bool ArenaMemory::is_empty(std::size_t range) const {
  const auto* words = pages_ + range * kWordsPerRange;
  return std::all_of(words, words + kWordsPerRange,
                     [](const auto& word) { return word.load(std::memory_order_relaxed) == 0; });
}

std::vector<Run> ArenaMemory::trim() {
  std::vector<Run> holes;
  std::size_t end = first_;
  for (std::size_t range = first_; range < used() / kHugePage; ++range) {
    if (ranges_[range].load(std::memory_order_relaxed) != Backing::nothing) {
      if (!is_empty(range) || !give_back({range, 1})) {
        end = range + 1;
        continue;
      }
      ranges_[range].store(Backing::nothing, std::memory_order_relaxed);
      --taken_ranges_;
    }
    append(holes, {range * kHugePage, (range + 1) * kHugePage});
  }
  used_ = end * kHugePage;
  if (!holes.empty() && holes.back().end > used()) holes.pop_back();
  return holes;
}

void ArenaMemory::set(const std::vector<Run>& runs, Backing backing) {
  for (const Run& run : runs)
    std::fill(ranges_ + run.begin / kHugePage, ranges_ + run.end / kHugePage, backing);
}

void ArenaMemory::collapse(const Progress& progress) {
  const auto before = small();
  int error = error_;
  const auto after = collapse_runs(mapping_.begin, before, progress, error);
  error_ = error;
  set(before, Backing::huge);
  set(after, Backing::small);
}

std::vector<Run> ArenaMemory::small() const {
  std::vector<Run> result;
  for (std::size_t range = first_; range < used() / kHugePage; ++range)
    if (ranges_[range].load(std::memory_order_relaxed) == Backing::small)
      append(result, {range * kHugePage, (range + 1) * kHugePage});
  return result;
}

void ArenaMemory::add_to(std::size_t& taken, std::vector<Run>& small_runs,
                         int& huge_page_error) const {
  taken += this->taken();
  const auto ours = small();
  small_runs.insert(small_runs.end(), ours.begin(), ours.end());
  huge_page_error = error_ != 0 ? error_.load() : huge_page_error;
}

}  // namespace cowshed::internal
