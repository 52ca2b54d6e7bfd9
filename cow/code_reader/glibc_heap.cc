#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>

#include <cowshed/cow/code_reader/glibc_heap.h>
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
constexpr std::uint64_t kMostData = 4 << 20;  // that is searched for the main arena

class GlibcHeap {
 public:
  // A fork or a change of protection may have divided a heap.
  GlibcHeap(std::vector<HeapPart> parts, const ReadMemory& read) : read_(read) {
    std::ranges::sort(parts, {}, &HeapPart::begin);
    for (const HeapPart& part : parts) {
      const bool is_next = !parts_.empty() && parts_.back().end == part.begin;
      if (is_next && !part.is_data && !parts_.back().is_data) parts_.back().end = part.end;
      else parts_.push_back(part);
    }
  }

  std::optional<std::vector<FreePages>> free_pages() {
    const auto main = main_lists();
    if (!main) return std::nullopt;
    // Every arena links to the next, the last to the main one.  The lists of all are at the same
    // distance from their begins.
    std::uint64_t next = word(*main + kNextAfter);
    std::vector<std::uint64_t> begins;
    while (begins.size() < kMostArenas && in_part(next) != nullptr &&
           (next > *main || *main - next > kLinkBytes * kLists) &&
           std::ranges::find(begins, next) == begins.end()) {
      begins.push_back(next);
      const auto lists = lists_of(next);
      if (!lists) break;
      add_arena(*lists, false);
      next = word(*lists + kNextAfter);
    }
    add_arena(*main, true);
    return apart();
  }

 private:
  struct Block {
    std::uint64_t size_before = 0;
    std::uint64_t size = 0;
    std::uint64_t next = 0;
    std::uint64_t previous = 0;
  };

  const HeapPart* in_part(std::uint64_t address) const {
    auto after = std::ranges::upper_bound(parts_, address, {}, &HeapPart::begin);
    if (after == parts_.begin()) return nullptr;
    --after;
    return address < after->end ? &*after : nullptr;
  }

  template <class T>
  bool read(std::uint64_t address, T& value) const {
    const HeapPart* part = in_part(address);
    return part != nullptr && part->end - address >= sizeof value &&
           read_(address, std::as_writable_bytes(std::span(&value, 1)));
  }
  std::uint64_t word(std::uint64_t address) const {
    std::uint64_t value = 0;
    return read(address, value) ? value : 0;
  }

  // Whether all of the heads are empty or point to memory; not all do the latter.
  bool are_lists(std::uint64_t at, std::span<const std::uint64_t> heads) const {
    std::size_t empty = 0;
    for (std::size_t i = 0; i < kLists; ++i) {
      const std::uint64_t self = at + i * 2 * kLinkBytes - kLinksAt;
      const std::uint64_t first = heads[2 * i];
      const std::uint64_t last = heads[2 * i + 1];
      if (first == self && last == self) ++empty;
      else if (in_part(first) == nullptr || in_part(last) == nullptr) return false;
    }
    return empty > 0;
  }

  std::optional<std::uint64_t> main_lists() const {
    std::uint64_t left = kMostData;
    for (const HeapPart& part : parts_) {
      const std::uint64_t bytes = part.end - part.begin;
      if (!part.is_data || bytes > left) continue;
      left -= bytes;
      std::vector<std::uint64_t> words(bytes / kLinkBytes);
      if (!read_(part.begin, std::as_writable_bytes(std::span(words)))) continue;
      for (std::size_t i = 0; i + 2 * kLists <= words.size(); ++i) {
        const std::uint64_t at = part.begin + i * kLinkBytes;
        const std::span heads = std::span<const std::uint64_t>(words).subspan(i);
        // The cheapest first: many lists are empty.
        if (words[i] != at - kLinksAt && in_part(words[i]) == nullptr) continue;
        if (!are_lists(at, heads)) continue;
        // The two words before the lists may point to memory, too.
        const bool is_before =
            i + 2 * kLists + 2 <= words.size() && are_lists(at + kLinksAt, heads.subspan(2));
        return is_before ? at + kLinksAt : at;
      }
    }
    return std::nullopt;
  }

  // Of an arena that begins here.
  std::optional<std::uint64_t> lists_of(std::uint64_t arena) const {
    constexpr std::array<std::uint64_t, 2> kDistances = {112, 104};  // since 2.27, and before
    for (const std::uint64_t distance : kDistances) {
      std::array<std::uint64_t, 2 * kLists> heads{};
      if (read(arena + distance, heads) && are_lists(arena + distance, heads))
        return arena + distance;
    }
    return std::nullopt;
  }

  void add_arena(std::uint64_t lists, bool can_trim_top) {
    add_list(lists - kLinksAt);
    for (std::size_t i = kFirstWithPages; i < kLists; ++i)
      add_list(lists + i * 2 * kLinkBytes - kLinksAt);
    const std::uint64_t top = word(lists - kTopBefore);
    const HeapPart* part = in_part(top);
    if (part == nullptr || top == lists - kLinksAt) return;
    const std::uint64_t size = word(top + kLinkBytes) & ~kFlags;
    if (size <= part->end - top) add_pages(top, size, can_trim_top);
  }

  // The list is a ring through its head.
  void add_list(std::uint64_t head) {
    std::uint64_t before = head;
    std::uint64_t at = word(head + kLinksAt);
    while (at != head && blocks_ < kMostBlocks) {
      ++blocks_;
      Block block;
      const HeapPart* part = in_part(at);
      if (part == nullptr || at % (2 * kLinkBytes) != 0 || !read(at, block)) return;
      const std::uint64_t size = block.size & ~kFlags;
      const bool fits = size >= sizeof block && size < part->end - at;
      if (!fits || block.previous != before || word(at + size) != size) return;
      add_pages(at, size);
      before = at;
      at = block.next;
    }
  }

  // Its first words are in use.
  void add_pages(std::uint64_t block, std::uint64_t size, bool can_trim = true) {
    const std::uint64_t begin = (block + sizeof(Block) + kPageSize - 1) / kPageSize * kPageSize;
    const std::uint64_t end = (block + size) / kPageSize * kPageSize;
    if (begin < end) pages_.push_back({begin, end, can_trim});
  }

  // A hostile heap has blocks in blocks.
  std::vector<FreePages> apart() {
    std::ranges::sort(pages_, {}, &FreePages::begin);
    std::vector<FreePages> result;
    for (const FreePages& each : pages_)
      if (result.empty() || each.begin >= result.back().end) result.push_back(each);
    return result;
  }

  std::vector<HeapPart> parts_;
  const ReadMemory& read_;
  std::size_t blocks_ = 0;
  std::vector<FreePages> pages_;
};

}  // namespace

std::optional<std::vector<FreePages>> free_pages_of_glibc(const std::vector<HeapPart>& parts,
                                                          const ReadMemory& read) {
  return GlibcHeap(parts, read).free_pages();
}

}  // namespace cowshed::cow
