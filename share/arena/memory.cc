#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>

#include <cowshed/share/arena/memory.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>

namespace cowshed::internal {
namespace {

constexpr std::size_t kPagesPerRange = kHugePage / kPage;
constexpr std::size_t kWordsPerRange = kPagesPerRange / 64;
// Each call of MADV_COLLAPSE drains every CPU's page lists, even for a small range.
constexpr std::size_t kMostAhead = kCollapseStep / kHugePage;
// Left to the rest of the process under a cgroup's limit.
constexpr std::size_t kReserve = 4_MiB;
// After so many failures in a row, huge pages are tried again at the freeze only.
constexpr int kMostFailures = 8;

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
  return {};
}

void ArenaMemory::close() {
  records_.reset();
  forget();
}

void ArenaMemory::forget() {
  (void)records_.release();
  growing_.emplace();  // a thread of the parent may have held the old one
}

bool ArenaMemory::commit(std::uintptr_t begin, std::size_t size) noexcept {
  const std::size_t offset = begin - mapping_.begin;
  const std::size_t last = (offset + size - 1) / kHugePage;
  for (std::size_t range = offset / kHugePage; range <= last; ++range)
    if (ranges_[range].load(std::memory_order_acquire) == Backing::nothing && !grow(range, last))
      return false;
  if (purged_.load(std::memory_order_relaxed))
    std::memset(reinterpret_cast<void*>(begin), 0, size);  // jemalloc expects zeros
  for (std::size_t page = offset / kPage; page < (offset + size) / kPage; ++page)
    pages_[page / 64].fetch_or(std::uint64_t{1} << page % 64, std::memory_order_relaxed);
  return true;
}

void ArenaMemory::decommit(std::uintptr_t begin, std::size_t size) noexcept {
  const std::size_t offset = begin - mapping_.begin;
  for (std::size_t page = offset / kPage; page < (offset + size) / kPage; ++page)
    pages_[page / 64].fetch_and(~(std::uint64_t{1} << page % 64), std::memory_order_relaxed);
  purged_.store(true, std::memory_order_relaxed);
}

// Allocates the ranges of [first, last] that have no memory, and some more for later requests.
bool ArenaMemory::grow(std::size_t first, std::size_t last) noexcept {
  const std::lock_guard lock(*growing_);
  std::size_t missing = 0;
  for (std::size_t range = first; range <= last; ++range)
    missing += ranges_[range].load(std::memory_order_relaxed) == Backing::nothing ? 1 : 0;
  const std::size_t room = std::min(limits_.headroom(), available_memory());
  if (missing > 0 && room < missing * kHugePage + kReserve) {
    shortage_ = kLimited;
    return false;
  }
  const std::size_t spare = (room - missing * kHugePage) / 2 / kHugePage;
  const std::size_t ahead = missing == 0 ? 0 : std::min({taken_ranges_, kMostAhead - 1, spare});
  const std::size_t end = std::min(last + ahead + 1, mapping_.size / kHugePage);
  for (std::size_t range = first; range < end;) {
    std::size_t count = 0;
    while (count < kMostAhead && range + count < end &&
           ranges_[range + count].load(std::memory_order_relaxed) == Backing::nothing) {
      ++count;
    }
    if (count > 0 && !take(range, count)) {
      shortage_ = errno;
      // Only ranges that were allocated ahead may have failed.
      return std::all_of(ranges_ + first, ranges_ + last + 1, [](const auto& backing) {
        return backing.load(std::memory_order_relaxed) != Backing::nothing;
      });
    }
    range += std::max<std::size_t>(count, 1);
  }
  return true;
}

// MADV_COLLAPSE needs one page in each range.
bool ArenaMemory::take_huge(std::size_t first, std::size_t count) noexcept {
  if (!huge_pages_ || failures_ >= kMostFailures) return false;
  for (std::size_t range = first; range < first + count; ++range) {
    if (!allocate_pages(mapping_.fd, range * kHugePage, kPage)) {
      error_ = errno;
      return false;
    }
  }
  const int error = collapse_range(mapping_.begin + first * kHugePage, count * kHugePage);
  if (error != 0) error_ = error;
  return error == 0;
}

// Allocates memory for `count` ranges that have none.  Stops at the first failure, with its errno.
bool ArenaMemory::take(std::size_t first, std::size_t count) noexcept {
  const bool together = take_huge(first, count);
  for (std::size_t range = first; range < first + count; ++range) {
    const bool huge = together || take_huge(range, 1);
    failures_ = huge ? 0 : failures_ + 1;
    if (!huge && !allocate_pages(mapping_.fd, range * kHugePage, kHugePage)) return false;
    ranges_[range].store(huge ? Backing::huge : Backing::small, std::memory_order_release);
    ++taken_ranges_;
    used_ = std::max(used_.load(), (range + 1) * kHugePage);
  }
  return true;
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
      if (!is_empty(range) || fallocate(mapping_.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                        static_cast<off_t>(range * kHugePage), kHugePage) != 0) {
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
