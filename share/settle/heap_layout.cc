#include <algorithm>
#include <array>
#include <bit>
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <malloc.h>
#include <optional>
#include <pthread.h>
#include <unistd.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/share/settle/heap_layout.h>

// Weak, so that a static program with another malloc need not link glibc's.
// NOLINTNEXTLINE(readability-redundant-declaration)
extern "C" [[gnu::weak]] struct mallinfo2 mallinfo2() noexcept;

namespace cowshed::settling {
namespace {

using namespace size_literals;
using arch::kPage;

constexpr std::uintptr_t kThreadHeap = 64_MiB;  // HEAP_MAX_SIZE of malloc/arena.c

std::uintptr_t rounded_down(std::uintptr_t address, std::uintptr_t unit) {
  return address / unit * unit;
}

// The first fields of struct heap_info (malloc/arena.c), the same from glibc 2.10 on.
struct HeapInfo {
  std::uint64_t arena;
  std::uint64_t previous;
  std::uint64_t size;
  std::uint64_t writable_size;
};

// In the first heap of an arena, the arena follows the header.
bool has_arena(std::uintptr_t heap, std::uint64_t arena) {
  return arena >= heap + sizeof(HeapInfo) && arena <= heap + 2 * sizeof(HeapInfo);
}

bool is_sound(std::uintptr_t heap, const HeapInfo& info) {
  return info.size > 0 && info.size <= info.writable_size && info.writable_size <= kThreadHeap &&
         info.size % kPage == 0 && info.writable_size % kPage == 0 &&
         (has_arena(heap, info.arena) ? info.previous == 0
                                      : info.previous != 0 && info.previous % kThreadHeap == 0);
}

// The header of struct malloc_chunk (malloc/malloc.c).
struct BlockHeader {
  std::uint64_t before;
  std::uint64_t size_and_flags;

  // Of a large block's mapping.  From glibc 2.43 the field has the size without a header.
  std::size_t size() const {
    const std::size_t own = size_and_flags & ~std::uint64_t{7};
    return (own + sizeof *this) % kPage == 0 ? own + sizeof *this : own;
  }
  bool is_large_block() const {
    constexpr std::uint64_t kIsMapped = 2;
    constexpr std::uint64_t kIsHuge = 1;  // from glibc 2.43; `before` has the offset otherwise
    return (before & ~kIsHuge) == 0 && (size_and_flags & 7U) == kIsMapped && size() > 0 &&
           size() % kPage == 0;
  }
};

class Finder {
 public:
  Finder(const Mappings& mappings, const OwnPages& pages)
      : mappings_(mappings),
        pages_(pages),
        parts_(mappings.get_allocator()),
        blocks_(mappings.get_allocator()) {}

  std::pmr::vector<HeapPart> find() {
    for (const Mapping& mapping : mappings_)
      if (is_candidate(mapping) && mapping.is_anonymous) find_thread_heaps(mapping);
    find_blocks();
    const struct mallinfo2 counted = mallinfo2();
    std::size_t bytes = 0;
    for (const Range& block : blocks_) bytes += block.size();
    // glibc 2.43 counts 16 bytes too many at each realloc() of such a block.
    constexpr std::size_t kMostTooMany = 64_KiB;
    const bool is_exact = counted.hblks == blocks_.size() && counted.hblkhd - bytes <= kMostTooMany;
    for (const Mapping& mapping : mappings_)
      if (mapping.is_anonymous && mapping.name == "[heap]") add_main_heap(mapping);
      else if (mapping.is_anonymous && is_candidate(mapping)) add_blocks(mapping, is_exact);
    std::ranges::sort(parts_, {}, [](const HeapPart& part) { return part.range.begin; });
    return std::move(parts_);
  }

 private:
  static bool is_candidate(const Mapping& mapping) {
    if (mapping.is_settled) return mapping.settled_as == SettledKind::large_blocks;
    return mapping.is_anonymous &&
           (mapping.name.empty() || mapping.name.starts_with("[anon: glibc: malloc"));
  }

  template <class Words>
  std::optional<Words> peek(std::uintptr_t address) const {
    std::array<std::uint64_t, sizeof(Words) / sizeof(std::uint64_t)> words;
    if (!pages_.peek(address, words)) return std::nullopt;
    return std::bit_cast<Words>(words);
  }

  // Whether a read of the address allocates nothing.
  bool has_page(std::uintptr_t address) {
    const std::uintptr_t window = rounded_down(address, window_.size() * kPage);
    if (window_begin_ != window) {
      if (pages_.look(window, window_) != 0) window_.fill(0);
      window_begin_ = window;
    }
    return window_[(address - window) / kPage] != 0;
  }

  const Mapping* mapping_at(std::uintptr_t address) const {
    const auto next = std::ranges::upper_bound(mappings_, address, {},
                                               [](const Mapping& m) { return m.range.begin; });
    if (next == mappings_.begin()) return nullptr;
    return std::prev(next)->range.contains(address) ? &*std::prev(next) : nullptr;
  }

  std::optional<HeapInfo> heap_at(std::uintptr_t address) {
    const Mapping* mapping = mapping_at(address);
    if (mapping == nullptr) return std::nullopt;
    if (mapping->is_settled ? mapping->settled_as != SettledKind::thread_heap
                            : !mapping->is_anonymous || !has_page(address)) {
      return std::nullopt;
    }
    auto info = peek<HeapInfo>(address);
    return info && is_sound(address, *info) ? info : std::nullopt;
  }

  void find_thread_heaps(const Mapping& mapping) {
    for (std::uintptr_t heap = rounded_down(mapping.range.begin, kThreadHeap);
         heap < mapping.range.end; heap += kThreadHeap) {
      const auto info = heap_at(heap);
      if (!info) continue;
      const std::uintptr_t first = rounded_down(info->arena, kThreadHeap);
      if (!has_arena(heap, info->arena)) {
        const auto first_info = heap_at(first);
        if (!first_info || first_info->arena != info->arena) continue;
      }
      // Behind its writable part, a heap has a part that nobody can access.
      const std::uintptr_t end = heap + info->writable_size;
      if (end < mapping.range.end && info->writable_size < kThreadHeap) continue;
      const Range range = {std::max(heap, mapping.range.begin), std::min(end, mapping.range.end)};
      add_steps(range, SettledKind::thread_heap, heap, has_arena(heap, info->arena),
                info->size < kThreadHeap);
    }
  }

  void find_blocks() {
    for (std::size_t first = 0, next = 0; first < mappings_.size(); first = next) {
      next = first + 1;
      if (!is_candidate(mappings_[first])) continue;
      while (next < mappings_.size() && is_candidate(mappings_[next]) &&
             mappings_[next].range.begin == mappings_[next - 1].range.end) {
        ++next;
      }
      find_blocks_of(std::span(mappings_).subspan(first, next - first));
    }
  }

  // Blocks may reach over neighbouring mappings.
  void find_blocks_of(std::span<const Mapping> mappings) {
    const std::uintptr_t end = mappings.back().range.end;
    std::uintptr_t at = mappings.front().range.begin;
    while (at < end) {
      while (at >= mappings.front().range.end) mappings = mappings.subspan(1);
      const Mapping& mapping = mappings.front();
      const auto heap = std::ranges::find_if(
          parts_, [at](const HeapPart& part) { return part.range.contains(at); });
      if (heap != parts_.end()) {
        at = heap->range.end;
        continue;
      }
      if (mapping.is_settled || has_page(at)) {
        const auto header = peek<BlockHeader>(at);
        if (header && header->is_large_block() && header->size() <= end - at) {
          blocks_.push_back({at, at + header->size()});
          at += header->size();
          continue;
        }
      }
      // Others reserve much more than they use.
      constexpr std::size_t kMostToSearch = 1_GiB;
      const bool is_sparse = mapping.range.size() > kMostToSearch + 16 * mapping.resident;
      at = is_sparse || mapping.resident == 0 ? mapping.range.end : at + kPage;
    }
  }

  bool follows_settled(const Mapping& mapping) const {
    const Mapping* before = mapping_at(mapping.range.begin - 1);
    return before != nullptr && before->is_settled;
  }

  void add_main_heap(const Mapping& mapping) {
    Range range = mapping.range;
    // In a static program it begins with the thread's variables, to which the kernel writes, too.
    constexpr std::size_t kControlBlock = 16_KiB;
    const auto thread = static_cast<std::uintptr_t>(pthread_self());
    if (range.contains(thread))
      range.begin = std::min(range.end, rounded_down(thread, kPage) + kControlBlock);
    const bool is_whole = range.begin == mapping.range.begin && !follows_settled(mapping);
    add_steps(range, SettledKind::main_heap, range.begin, is_whole, true);
  }

  // malloc keeps an arena's records in the first page, and takes new blocks from the last pages.
  // What is written all the time is not worth a move.
  void add_steps(Range heap, SettledKind kind, std::uintptr_t proof, bool begins_busy,
                 bool ends_busy) {
    constexpr std::size_t kBusyEnd = 64_KiB;
    if (heap.begin == proof && begins_busy) heap.begin += kPage;
    if (ends_busy) heap.end = pages_.occupied(heap).end - kBusyEnd;
    for (; heap.begin < heap.end; heap.begin = step_end(heap.begin))
      parts_.push_back({{heap.begin, std::min(step_end(heap.begin), heap.end)},
                        kind,
                        kind == SettledKind::main_heap ? heap.begin : proof});
  }

  void add_blocks(const Mapping& mapping, bool is_exact) {
    const auto block_end = [](const Range& block) { return block.end; };
    auto block = std::ranges::upper_bound(blocks_, mapping.range.begin, {}, block_end);
    std::pmr::vector<HeapPart> parts(parts_.get_allocator());
    std::size_t found = 0;
    while (block != blocks_.end() && block->begin < mapping.range.end) {
      // As many whole blocks as a step has room for, or a part of one.
      const std::uintptr_t begin = parts.empty() || parts.back().range.end < block->begin
                                       ? std::max(block->begin, mapping.range.begin)
                                       : parts.back().range.end;
      const std::uintptr_t proof = block->begin;
      std::uintptr_t end = std::min(step_end(begin), block->end);
      if (end == block->end) {
        ++block;
        for (; block != blocks_.end() && block->begin == end && block->end <= step_end(begin);
             ++block) {
          end = block->end;
        }
      }
      end = std::min(end, mapping.range.end);
      parts.push_back({{begin, end}, SettledKind::large_blocks, proof});
      found += end - begin;
      if (end == mapping.range.end) break;
    }
    if (is_exact || found == mapping.range.size())
      parts_.insert(parts_.end(), parts.begin(), parts.end());
  }

  const Mappings& mappings_;
  const OwnPages& pages_;
  std::pmr::vector<HeapPart> parts_;
  std::pmr::vector<Range> blocks_;
  std::array<std::uint64_t, 512> window_ = {};
  std::uintptr_t window_begin_ = 1;
};

// The first library that defines malloc, in the order in which symbols are looked up.
bool find_malloc_of_libraries(Dl_info& found) {
  void* const program = dlopen(nullptr, RTLD_LAZY);
  const link_map* map = nullptr;
  bool has_found = false;
  if (dlinfo(program, RTLD_DI_LINKMAP, static_cast<void*>(&map)) == 0) map = map->l_next;
  for (; map != nullptr && !has_found; map = map->l_next) {
    Dl_info library{};
    void* const handle = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) continue;  // the kernel's
    void* const symbol = dlsym(handle, "malloc");
    has_found = symbol != nullptr && dladdr(symbol, &found) != 0 &&
                dladdr(map->l_ld, &library) != 0 && library.dli_fbase == found.dli_fbase;
    dlclose(handle);
  }
  dlclose(program);
  return has_found;
}

}  // namespace

std::string foreign_malloc() {
  if (mallinfo2 == nullptr) return "another library's";
  Dl_info of_malloc{};
  Dl_info of_libc{};
  if (dladdr(reinterpret_cast<void*>(&gnu_get_libc_version), &of_libc) == 0) return {};  // static
  void* symbol = nullptr;
  auto* const address = reinterpret_cast<void*>(&malloc);
  if (dladdr1(address, &of_malloc, &symbol, RTLD_DL_SYMENT) == 0) return "another library's";
  // Of a program that is not position-independent, the address may be that of a jump to malloc.
  const bool is_jump =
      symbol != nullptr && static_cast<const ElfW(Sym)*>(symbol)->st_shndx == SHN_UNDEF;
  if (is_jump && !find_malloc_of_libraries(of_malloc)) return "another library's";
  if (of_malloc.dli_fbase == of_libc.dli_fbase) return {};
  return std::string(of_malloc.dli_fname) + "'s";
}

std::pmr::vector<HeapPart> find_heap(const Mappings& mappings, const OwnPages& pages) {
  return Finder(mappings, pages).find();
}

bool is_still_heap(const HeapPart& part) {
  if (part.kind == SettledKind::thread_heap) {
    const auto& info = *reinterpret_cast<const HeapInfo*>(part.proof);
    return is_sound(part.proof, info) && part.proof + info.writable_size >= part.range.end;
  }
  if (part.kind != SettledKind::large_blocks) return true;
  std::uintptr_t at = part.proof;
  while (at < part.range.end) {
    const auto& header = *reinterpret_cast<const BlockHeader*>(at);
    if (!header.is_large_block()) return false;
    at += header.size();
  }
  return true;
}

}  // namespace cowshed::settling
