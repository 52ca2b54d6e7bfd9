#include <cstddef>
#include <new>
#include <random>
#include <sys/mman.h>

#include <cowshed/share/arena_table.h>
#include <cowshed/share/reference_counts.h>

namespace cowshed {
namespace internal {

constinit std::array<CountChunk, 65536> count_chunks{};

namespace {

constexpr std::size_t kSlotBytes = kCountsPerChunk * sizeof(CountSlot);
constexpr std::size_t kBlockBytes = kCountsPerChunk * sizeof(std::atomic<CountedBlock*>);

// What counting itself has no use for; the blocks are apart from the counts, since a forked child
// that counts copies those pages, and not these.
struct ChunkRecord {
  std::atomic<std::atomic<CountedBlock*>*> blocks;
  std::atomic<const ArenaCore*> owner;
  std::atomic<std::uint32_t> next_vacant;
};

constinit std::array<ChunkRecord, 65536> chunk_records{};
constinit std::atomic<std::uint32_t> chunks_made = 1;  // chunk 0 is never used

// A lock-free stack of numbers from 1.  Its head carries a number that changes with every push and
// pop, so that a thread that slept meanwhile cannot mistake it for what it saw.
class NumberStack {
 public:
  // `next(number)` is where the number below is kept.  pop() gives 0 when there is none.
  template <class Next>
  std::uint32_t pop(Next next) noexcept {
    std::uint64_t head = head_.load(std::memory_order_acquire);
    for (;;) {
      const auto number = static_cast<std::uint32_t>(head);
      if (number == 0) {
        return 0;
      }
      const std::uint32_t below = next(number).load(std::memory_order_relaxed);
      if (head_.compare_exchange_weak(head, changed(head) | below, std::memory_order_acquire)) {
        return number;
      }
    }
  }

  template <class Next>
  void push(std::uint32_t number, Next next) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    do {
      next(number).store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
    } while (!head_.compare_exchange_weak(head, changed(head) | number, std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
  }

  void clear() noexcept { head_.store(0, std::memory_order_relaxed); }

 private:
  static std::uint64_t changed(std::uint64_t head) { return ((head >> 32U) + 1) << 32U; }

  std::atomic<std::uint64_t> head_ = 0;
};

// The counts of one arena, or of all blocks that lie in none.
struct Pool {
  std::atomic<const ArenaCore*> owner;
  NumberStack vacant;                // counts used before
  std::atomic<std::uint64_t> fresh;  // the next count never used; at a chunk's start: none left
};

constinit std::array<Pool, kMaxArenas + 1> pools{};  // the first is of no arena
constinit NumberStack vacant_chunks;

Pool& pool_of(const ArenaCore* arena) noexcept {
  if (arena == nullptr) {
    return pools[0];
  }
  for (std::size_t i = 1;; ++i) {
    const ArenaCore* owner = pools[i].owner.load(std::memory_order_relaxed);
    if (owner == nullptr &&
        pools[i].owner.compare_exchange_strong(owner, arena, std::memory_order_relaxed)) {
      return pools[i];
    }
    if (owner == arena) {  // cores are never freed: whose pool it is, stays
      return pools[i];
    }
  }
}

CountSlot& slot_at(std::uint32_t index) noexcept {
  return count_chunks[index / kCountsPerChunk].slots.load(
      std::memory_order_acquire)[index % kCountsPerChunk];
}

std::atomic<CountedBlock*>& block_at(std::uint32_t index) noexcept {
  return chunk_records[index / kCountsPerChunk].blocks.load(
      std::memory_order_acquire)[index % kCountsPerChunk];
}

// A vacant count keeps the one below it on the stack where its uses were.
std::atomic<std::uint32_t>& below_count(std::uint32_t index) noexcept {
  return slot_at(index).uses;
}

std::atomic<std::uint32_t>& below_chunk(std::uint32_t chunk) noexcept {
  return chunk_records[chunk].next_vacant;
}

std::uint32_t make_chunk() {
  std::uint32_t chunk = chunks_made.load(std::memory_order_relaxed);
  do {
    if (chunk == count_chunks.size()) {
      throw std::bad_alloc();
    }
  } while (!chunks_made.compare_exchange_weak(chunk, chunk + 1, std::memory_order_relaxed));
  // Not by malloc, which the caller may have directed into an arena.
  void* memory = mmap(nullptr, kSlotBytes + kBlockBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  count_chunks[chunk].slots.store(static_cast<CountSlot*>(memory), std::memory_order_release);
  chunk_records[chunk].blocks.store(
      reinterpret_cast<std::atomic<CountedBlock*>*>(static_cast<std::byte*>(memory) + kSlotBytes),
      std::memory_order_release);
  return chunk;
}

std::uint32_t take_chunk(const ArenaCore* owner) {
  std::random_device random;
  std::uint32_t id = 0;
  while (id == 0) {
    id = random();
  }
  std::uint32_t chunk = vacant_chunks.pop(below_chunk);
  if (chunk == 0) {
    chunk = make_chunk();
  }
  chunk_records[chunk].owner.store(owner, std::memory_order_relaxed);
  count_chunks[chunk].id.store(id, std::memory_order_release);
  return chunk;
}

void give_back_chunk(std::uint32_t chunk) noexcept {
  count_chunks[chunk].id.store(0, std::memory_order_relaxed);
  chunk_records[chunk].owner.store(nullptr, std::memory_order_relaxed);
  vacant_chunks.push(chunk, below_chunk);
}

std::uint32_t take_count(Pool& pool, const ArenaCore* owner) {
  if (const std::uint32_t index = pool.vacant.pop(below_count); index != 0) {
    return index;
  }
  std::uint64_t fresh = pool.fresh.load(std::memory_order_acquire);
  for (;;) {
    if (fresh % kCountsPerChunk != 0) {
      if (pool.fresh.compare_exchange_weak(fresh, fresh + 1, std::memory_order_acq_rel)) {
        return static_cast<std::uint32_t>(fresh);
      }
      continue;
    }
    const std::uint32_t chunk = take_chunk(owner);
    const std::uint32_t first = chunk * kCountsPerChunk;
    if (pool.fresh.compare_exchange_strong(fresh, std::uint64_t{first} + 1,
                                           std::memory_order_acq_rel)) {
      return first;
    }
    give_back_chunk(chunk);  // another thread was faster
  }
}

}  // namespace

bool may_destroy(const void* address) noexcept {
  const ArenaCore* arena = find_arena(address);
  return arena == nullptr || arena->state() == ArenaState::open;
}

CountHandle add_count(CountedBlock* block) {
  const ArenaCore* arena = find_arena(block);
  const std::uint32_t index = take_count(pool_of(arena), arena);
  CountSlot& slot = slot_at(index);
  slot.uses.store(1, std::memory_order_relaxed);
  slot.weak.store(1, std::memory_order_relaxed);
  block_at(index).store(block, std::memory_order_relaxed);
  return {index, count_chunks[index / kCountsPerChunk].id.load(std::memory_order_acquire)};
}

void last_use_dropped(CountHandle handle, CountSlot& slot) noexcept {
  CountedBlock* block = block_at(handle.index).load(std::memory_order_relaxed);
  if (may_destroy(block)) {
    block->destroy();
  }
  if (drop_reference(slot.weak)) {
    last_weak_dropped(handle);
  }
}

void last_weak_dropped(CountHandle handle) noexcept {
  CountedBlock* block = block_at(handle.index).load(std::memory_order_relaxed);
  const ArenaCore* arena = find_arena(block);
  if (arena == nullptr || arena->state() == ArenaState::open) {
    block->deallocate();
    pool_of(arena).vacant.push(handle.index, below_count);
  }
}

}  // namespace internal

void release_counts_in(const ArenaCore* arena) noexcept {
  using namespace internal;  // NOLINT: its own implementation
  Pool& pool = pool_of(arena);
  pool.vacant.clear();
  pool.fresh.store(0, std::memory_order_relaxed);
  const std::uint32_t made = chunks_made.load(std::memory_order_acquire);
  for (std::uint32_t chunk = 1; chunk < made; ++chunk) {
    if (chunk_records[chunk].owner.load(std::memory_order_relaxed) == arena) {
      madvise(count_chunks[chunk].slots.load(), kSlotBytes + kBlockBytes, MADV_DONTNEED);
      give_back_chunk(chunk);
    }
  }
}

}  // namespace cowshed
