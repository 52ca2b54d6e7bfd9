#include <algorithm>
#include <array>
#include <cstddef>

#include <cowshed/cow/code_reader/heaps.h>
#include <cowshed/cow/measurement.h>

namespace cowshed::cow {
namespace {

// As in CPython's obmalloc.
struct ArenaObject {
  std::uint64_t begin = 0;   // 0: the arena was given back, or never made
  std::uint64_t unused = 0;  // the first pool that was never used
  std::uint32_t free_pools = 0;
  std::uint32_t pools = 0;
  std::uint64_t first_free = 0;
  std::uint64_t next = 0;
  std::uint64_t previous = 0;
};
struct PoolHead {
  std::uint32_t used = 0;
  std::uint32_t padding = 0;
  std::uint64_t free_block = 0;
  std::uint64_t next = 0;
  std::uint64_t previous = 0;
  std::uint32_t arena = 0;  // its place in the list
  std::uint32_t size_class = 0;
  std::uint32_t next_offset = 0;
  std::uint32_t last_offset = 0;
};

// What arenas are made of: since 3.10, with huge pages (since 3.15), and before 3.10.
struct Sizes {
  std::uint64_t arena;
  std::uint64_t pool;
};
constexpr std::array<Sizes, 3> kSizes = {Sizes{1 << 20, 16 << 10}, Sizes{2 << 20, 16 << 10},
                                         Sizes{256 << 10, 4 << 10}};
constexpr std::uint64_t kBlockAlignment = 16;
constexpr std::uint32_t kSizeClasses = 32;
constexpr std::size_t kMostArenas = 1 << 16;
constexpr std::size_t kMostWords = 20'000;  // of the data, that are read as pointers
constexpr std::size_t kMostPools = 50'000;
constexpr std::size_t kFirstArenas = 16;  // in the list, which is doubled when it is full

struct Arena {
  ArenaObject object;
  Sizes sizes;
  std::uint64_t pools = 0;  // the address of the first
  std::uint32_t place = 0;
};

class PythonHeap {
 public:
  PythonHeap(const std::vector<HeapPart>& parts, const ReadMemory& read) : memory_(parts, read) {}

  std::optional<std::vector<FreePages>> free_pages() {
    const std::uint64_t list = arenas();
    if (list == 0) return std::nullopt;
    std::size_t known = kFirstArenas;  // an arena that was given back leaves a gap
    for (std::size_t i = 0; i < std::min(2 * known, kMostArenas); ++i) {
      ArenaObject object;
      if (!memory_.read(list + i * sizeof object, object)) break;
      if (object.begin == 0) continue;
      const auto arena = arena_of(object);
      if (!arena || arena->place != i) break;
      add_free_pools(*arena);
      known = std::max(known, i + 1);
    }
    return in_order(std::move(pages_));
  }

 private:
  // A head of a pool whose numbers fit each other.
  std::optional<PoolHead> pool_at(std::uint64_t address, const Sizes& sizes) const {
    PoolHead head;
    if (address % sizes.pool != 0 || !memory_.read(address, head)) return std::nullopt;
    if (head.size_class >= kSizeClasses) return std::nullopt;
    const std::uint64_t block = (head.size_class + 1) * kBlockAlignment;
    const bool fits = head.last_offset == sizes.pool - block && head.used <= sizes.pool / block;
    return fits ? std::optional(head) : std::nullopt;
  }

  std::optional<Arena> arena_of(const ArenaObject& object) const {
    for (const Sizes& sizes : kSizes) {
      const std::uint64_t pools = (object.begin + sizes.pool - 1) / sizes.pool * sizes.pool;
      const std::uint64_t whole =
          sizes.arena / sizes.pool - static_cast<std::uint64_t>(pools != object.begin);
      const HeapPart* part = memory_.part_at(object.begin);
      if (part == nullptr || part->end - object.begin < sizes.arena) continue;
      const bool fits = object.begin % kPageSize == 0 && object.pools == whole &&
                        object.free_pools <= whole && object.unused > pools &&
                        object.unused <= pools + whole * sizes.pool &&
                        (object.unused - pools) % sizes.pool == 0;
      if (!fits) continue;
      if (const auto head = pool_at(pools, sizes)) return Arena{object, sizes, pools, head->arena};
    }
    return std::nullopt;
  }

  // Returns the address of the list; 0: none is found.
  std::uint64_t arenas() const {
    std::uint64_t list = 0;
    std::uint64_t last = 0;
    std::size_t read = 0;
    memory_.visit_data(&HeapPart::is_of_python,
                       [&](std::uint64_t, std::span<const std::uint64_t> words) {
                         for (const std::uint64_t word : words) {
                           if (word % kBlockAlignment != 0 || word == last || word == 0) continue;
                           last = word;
                           const HeapPart* part = memory_.part_at(word);
                           ArenaObject object;
                           if (part == nullptr || part->is_data) continue;
                           if (++read > kMostWords) return true;
                           if (!memory_.read(word, object)) continue;
                           if (object.begin == 0) continue;
                           const auto arena = arena_of(object);
                           if (!arena || arena->place >= kMostArenas) continue;
                           list = word - arena->place * sizeof object;
                           return true;
                         }
                         return false;
                       });
    return list;
  }

  // Of an arena, by its list of freed pools, and behind them those that were never used.
  void add_free_pools(const Arena& arena) {
    const std::uint64_t end = arena.pools + arena.object.pools * arena.sizes.pool;
    if (arena.object.unused < end) pages_.push_back({arena.object.unused, end, FreeIn::pymalloc});
    std::uint64_t at = arena.object.first_free;
    for (std::uint32_t i = 0; i < arena.object.free_pools && read_pools_ < kMostPools; ++i) {
      ++read_pools_;
      if (at < arena.pools || at >= arena.object.unused) return;
      const auto head = pool_at(at, arena.sizes);
      if (!head || head->used != 0 || head->arena != arena.place) return;
      pages_.push_back({at, at + arena.sizes.pool, FreeIn::pymalloc});
      at = head->next;
    }
  }

  const HeapMemory memory_;
  std::size_t read_pools_ = 0;
  std::vector<FreePages> pages_;
};

}  // namespace

std::optional<std::vector<FreePages>> free_pages_of_python(const std::vector<HeapPart>& parts,
                                                           const ReadMemory& read) {
  return PythonHeap(parts, read).free_pages();
}

}  // namespace cowshed::cow
