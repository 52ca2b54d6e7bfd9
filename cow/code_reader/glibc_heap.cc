#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>

#include <cowshed/cow/code_reader/heaps.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cow {
namespace {

// malloc_state of glibc: ..., top, last_remainder, the heads of the lists, a map of them, the next
// arena.  A head is the two links of a block that begins two words before them.
constexpr std::uint64_t kLinkBytes = sizeof(std::uint64_t);
constexpr std::size_t kLists = 127;
constexpr std::size_t kFirstWithPages = 96;  // blocks of some 4 KiB and more
constexpr std::uint64_t kLinksAt = 2 * kLinkBytes;
constexpr std::uint64_t kTopBefore = 2 * kLinkBytes;
constexpr std::uint64_t kNextAfter = kLists * 2 * kLinkBytes + 2 * kLinkBytes;
constexpr std::uint64_t kFlags = 7;  // in a size
constexpr std::size_t kMostBlocks = 100'000;
constexpr std::size_t kMostArenas = 1024;
constexpr std::array<std::uint64_t, 3> kThresholds = {128 << 10, 64 << 10, 32 << 10};
constexpr std::size_t kMostChecks = 1'000'000;  // of heads

class GlibcHeap {
 public:
  GlibcHeap(const std::vector<HeapPart>& parts, const ReadMemory& read) : memory_(parts, read) {}

  std::optional<FreeMemory> free_pages() {
    const auto main = main_lists();
    if (!main) return std::nullopt;
    // Every arena links to the next, the last to the main one.  The lists of all are at the same
    // distance from their begins.
    std::uint64_t next = memory_.word(*main + kNextAfter);
    std::vector<std::uint64_t> begins;
    while (begins.size() < kMostArenas && memory_.part_at(next) != nullptr &&
           (next > *main || *main - next > kLinkBytes * kLists) &&
           std::ranges::find(begins, next) == begins.end()) {
      begins.push_back(next);
      const auto lists = lists_of(next);
      if (!lists) break;
      add_arena(*lists, FreeIn::top_of_thread);
      next = memory_.word(*lists + kNextAfter);
    }
    add_arena(*main, FreeIn::malloc);
    return FreeMemory{in_order(std::move(pages_)), mmap_threshold()};
  }

 private:
  struct Block {
    std::uint64_t size_before = 0;
    std::uint64_t size = 0;
    std::uint64_t next = 0;
    std::uint64_t previous = 0;
  };

  // Whether all of the heads are empty or point to memory; not all do the latter.
  bool are_lists(std::uint64_t at, std::span<const std::uint64_t> heads) {
    std::size_t empty = 0;
    if (checks_ > kMostChecks) return false;
    for (std::size_t i = 0; i < kLists; ++i) {
      const std::uint64_t self = at + i * 2 * kLinkBytes - kLinksAt;
      const std::uint64_t first = heads[2 * i];
      const std::uint64_t last = heads[2 * i + 1];
      ++checks_;
      if (first == self && last == self) ++empty;
      else if (memory_.part_at(first) == nullptr || memory_.part_at(last) == nullptr) return false;
    }
    return empty > 0;
  }

  std::optional<std::uint64_t> main_lists() {
    std::optional<std::uint64_t> found;
    memory_.visit_data(
        &HeapPart::is_data, [&](std::uint64_t begin, std::span<const std::uint64_t> words) {
          for (std::size_t i = 0; !found && i + 2 * kLists <= words.size(); ++i) {
            const std::uint64_t at = begin + i * kLinkBytes;
            const std::span heads = words.subspan(i);
            // The cheapest first: many lists are empty.
            if (words[i] != at - kLinksAt && memory_.part_at(words[i]) == nullptr) continue;
            if (!are_lists(at, heads)) continue;
            // The two words before the lists may point to memory, too.
            const bool is_before =
                i + 2 * kLists + 2 <= words.size() && are_lists(at + kLinksAt, heads.subspan(2));
            found = is_before ? at + kLinksAt : at;
          }
          return found.has_value();
        });
    return found;
  }

  // Of an arena that begins here.
  std::optional<std::uint64_t> lists_of(std::uint64_t arena) {
    constexpr std::array<std::uint64_t, 2> kDistances = {112, 104};  // since 2.27, and before
    for (const std::uint64_t distance : kDistances) {
      std::array<std::uint64_t, 2 * kLists> heads{};
      if (memory_.read(arena + distance, heads) && are_lists(arena + distance, heads))
        return arena + distance;
    }
    return std::nullopt;
  }

  void add_arena(std::uint64_t lists, FreeIn top_is) {
    add_list(lists - kLinksAt);
    for (std::size_t i = kFirstWithPages; i < kLists; ++i)
      add_list(lists + i * 2 * kLinkBytes - kLinksAt);
    const std::uint64_t top = memory_.word(lists - kTopBefore);
    const HeapPart* part = memory_.part_at(top);
    if (part == nullptr || top == lists - kLinksAt) return;
    const std::uint64_t size = memory_.word(top + kLinkBytes) & ~kFlags;
    if (size <= part->end - top) add_pages(top, size, top_is);
  }

  // The list is a ring through its head.
  void add_list(std::uint64_t head) {
    std::uint64_t before = head;
    std::uint64_t at = memory_.word(head + kLinksAt);
    while (at != head && blocks_ < kMostBlocks) {
      ++blocks_;
      Block block;
      const HeapPart* part = memory_.part_at(at);
      if (part == nullptr || at % (2 * kLinkBytes) != 0 || !memory_.read(at, block)) return;
      const std::uint64_t size = block.size & ~kFlags;
      const bool fits = size >= sizeof block && size < part->end - at;
      std::array<std::uint64_t, 2> behind{};  // the size of this block, and that of the next
      if (!fits || block.previous != before || !memory_.read(at + size, behind) ||
          behind[0] != size)
        return;
      add_pages(at, size);
      count_size(size, behind[1] & ~kFlags);
      before = at;
      at = block.next;
    }
  }

  void count_size(std::uint64_t size, std::uint64_t next) {
    constexpr std::uint64_t kSmall = kPageSize;
    const std::uint64_t size_of_block = next < kSmall ? size : std::min(size, next);
    listed_bytes_ += size;
    for (std::size_t i = 0; i < kThresholds.size(); ++i)
      if (size_of_block >= kThresholds[i]) mapped_bytes_[i] += size;
  }
  std::uint64_t mmap_threshold() const {
    for (std::size_t i = 0; i < kThresholds.size(); ++i)
      if (mapped_bytes_[i] > listed_bytes_ / 10 * 9) return kThresholds[i];
    return 0;
  }

  // Its first words are in use.
  void add_pages(std::uint64_t block, std::uint64_t size, FreeIn in = FreeIn::malloc) {
    const std::uint64_t begin = (block + sizeof(Block) + kPageSize - 1) / kPageSize * kPageSize;
    const std::uint64_t end = (block + size) / kPageSize * kPageSize;
    if (begin < end) pages_.push_back({begin, end, in});
  }

  const HeapMemory memory_;
  std::size_t blocks_ = 0;
  std::size_t checks_ = 0;
  std::uint64_t listed_bytes_ = 0;
  std::array<std::uint64_t, kThresholds.size()> mapped_bytes_{};  // with each
  std::vector<FreePages> pages_;
};

}  // namespace

std::optional<FreeMemory> free_pages_of_glibc(const std::vector<HeapPart>& parts,
                                              const ReadMemory& read) {
  return GlibcHeap(parts, read).free_pages();
}

}  // namespace cowshed::cow
