#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>

#include <cowshed/cow/code_reader/heaps.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cow {
namespace {

// malloc_state of glibc: ..., the heads of the fast bins, top, last_remainder, the heads of the
// lists, a map of them, the next arena.  A head is the two links of a block that begins two words
// before them.
constexpr std::uint64_t kLinkBytes = sizeof(std::uint64_t);
constexpr std::size_t kLists = 127;
constexpr std::uint64_t kLinksAt = 2 * kLinkBytes;
constexpr std::uint64_t kTopBefore = 2 * kLinkBytes;
constexpr std::uint64_t kNextAfter = kLists * 2 * kLinkBytes + 2 * kLinkBytes;
constexpr std::uint64_t kFlags = 7;  // in a size
constexpr std::size_t kMostBlocks = 4'000'000;
constexpr std::size_t kFastBins = 10;
constexpr std::uint64_t kFastBinsBefore = kTopBefore + kFastBins * kLinkBytes;
constexpr std::uint64_t kAlignment = 2 * kLinkBytes;
constexpr std::uint64_t kBlockHead = 4 * kLinkBytes;  // two sizes, two links
constexpr std::size_t kMostArenas = 1024;
constexpr std::array<std::uint64_t, 3> kThresholds = {128 << 10, 64 << 10, 32 << 10};
constexpr std::size_t kMostChecks = 1'000'000;  // of heads

// Memory that was read last: lists lead here and there.
class ReadAhead {
 public:
  explicit ReadAhead(const HeapMemory& memory) : memory_(memory) {}

  // 0: it is not there, or too much was read.
  std::uint64_t word(std::uint64_t address) {
    Window& window = windows_[address / kWindow % kWindows];
    if (window.has(address)) return window.words[(address - window.begin) / kLinkBytes];
    const HeapPart* part = memory_.part_at(address);
    if (part == nullptr || ++reads_ > kMostReads) return 0;
    window.begin = std::max(part->begin, address / kWindow * kWindow);
    const std::uint64_t end = std::min(part->end, address / kWindow * kWindow + kWindow);
    window.words.resize((end - window.begin) / kLinkBytes);
    if (!memory_.read_words(window.begin, window.words)) window.words.clear();
    return window.has(address) ? window.words[(address - window.begin) / kLinkBytes] : 0;
  }

 private:
  static constexpr std::uint64_t kWindow = 64 << 10;
  static constexpr std::size_t kWindows = 2048;
  static constexpr std::size_t kMostReads = 8 * kWindows;
  struct Window {
    std::uint64_t begin = 0;
    std::vector<std::uint64_t> words;
    bool has(std::uint64_t address) const {
      return address >= begin && (address - begin) / kLinkBytes < words.size();
    }
  };

  const HeapMemory& memory_;
  std::vector<Window> windows_ = std::vector<Window>(kWindows);
  std::size_t reads_ = 0;
};

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
    add_whole_pages();
    return FreeMemory{in_order(std::move(pages_)), mmap_threshold()};
  }

 private:
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
    constexpr std::array<std::uint64_t, 3> kDistances = {112, 104,
                                                         24};  // since 2.27, before, since 2.43
    for (const std::uint64_t distance : kDistances) {
      std::array<std::uint64_t, 2 * kLists> heads{};
      if (memory_.read(arena + distance, heads) && are_lists(arena + distance, heads))
        return arena + distance;
    }
    return std::nullopt;
  }

  void add_arena(std::uint64_t lists, FreeIn top_is) {
    for (std::size_t i = 0; i < kLists; ++i) add_list(lists + i * 2 * kLinkBytes - kLinksAt);
    for (std::size_t i = 0; i < kFastBins; ++i) add_fast_bin(lists - kFastBinsBefore, i);
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
    for (; at != head && blocks_ < kMostBlocks; ++blocks_) {
      const HeapPart* part = memory_.part_at(at);
      if (part == nullptr || at % kAlignment != 0) return;
      const std::uint64_t size = heap_.word(at + kLinkBytes) & ~kFlags;
      const bool fits = size >= kBlockHead && size < part->end - at;
      if (!fits || heap_.word(at + kLinksAt + kLinkBytes) != before ||
          heap_.word(at + size) != size)
        return;
      add_block(at, size);
      count_size(size, heap_.word(at + size + kLinkBytes) & ~kFlags);
      before = at;
      at = heap_.word(at + kLinksAt);
    }
  }

  // Small blocks of one size, which are free but have not been joined: the next trim does that.
  // Since glibc 2.32 a link is mixed with its own address.
  void add_fast_bin(std::uint64_t heads, std::size_t bin) {
    const std::uint64_t size = (bin + 2) * kAlignment;
    const auto is_block = [&](std::uint64_t at) {
      return at % kAlignment == 0 && (heap_.word(at + kLinkBytes) & ~kFlags) == size;
    };
    std::uint64_t at = memory_.word(heads + bin * kLinkBytes);
    for (; blocks_ < kMostBlocks && is_block(at); ++blocks_) {
      add_block(at, size);
      const std::uint64_t place = at + kLinksAt;
      const std::uint64_t link = heap_.word(place);
      const std::uint64_t mixed = link ^ place / kPageSize;
      at = is_block(mixed) ? mixed : link;
    }
  }

  // Of blocks that meet, the page in both is free, too.
  void add_block(std::uint64_t begin, std::uint64_t size) {
    if (freed_.empty() || !last_freed_->first->has(begin)) {
      const HeapPart* part = memory_.part_at(begin);
      if (part == nullptr) return;
      last_freed_ = freed_.try_emplace(part, (part->end - part->begin) / kPageSize).first;
    }
    const HeapPart& part = *last_freed_->first;
    const std::uint64_t end = std::min(begin + size, part.end);
    for (std::uint64_t at = begin; at < end;) {
      const std::uint64_t next = std::min(end, (at / kPageSize + 1) * kPageSize);
      std::uint16_t& bytes = last_freed_->second[(at - part.begin) / kPageSize];
      bytes = static_cast<std::uint16_t>(std::min(kPageSize, bytes + next - at));
      at = next;
    }
  }

  void add_whole_pages() {
    for (const auto& [part, pages] : freed_)
      for (std::size_t i = 0; i < pages.size(); ++i) {
        if (pages[i] != kPageSize) continue;
        const std::size_t first = i;
        while (i < pages.size() && pages[i] == kPageSize) ++i;
        pages_.push_back({part->begin + first * kPageSize, part->begin + i * kPageSize});
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
    const std::uint64_t begin = (block + kBlockHead + kPageSize - 1) / kPageSize * kPageSize;
    const std::uint64_t end = (block + size) / kPageSize * kPageSize;
    if (begin < end) pages_.push_back({begin, end, in});
  }

  const HeapMemory memory_;
  ReadAhead heap_{memory_};
  // The bytes of each page that are free.
  using Freed = std::map<const HeapPart*, std::vector<std::uint16_t>>;
  Freed freed_;
  Freed::iterator last_freed_;
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
