#include <array>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <sys/mman.h>
#include <sys/types.h>

#include <cowshed/share/jemalloc/jemalloc.h>

namespace {

constexpr std::size_t kLeafSize = 2U << 20U;
constexpr std::size_t kAddressesPerLeaf = 1U << 30U;

}  // namespace

extern "C" {
int cowshed_je_mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                       std::size_t new_size);

std::size_t cowshed_je_nallocx(std::size_t size, int flags) noexcept;

// jemalloc's defaults are weak; malloc.cc, for whole programs, adds to these.
// One arena of its own, for records; in huge pages where they are more than some MiB, since fork()
// copies page tables of ordinary memory.  (All of them there: 2 MiB for every process that starts.)
// A free extent of any size serves a small request: else they add up in an arena that is filled and
// emptied, for what is freed there does not decay.
// A thread's cache gives back what it seems not to need each time the thread has allocated so much,
// 64 KiB by default (tcache.c): where blocks of a page or so come and go that is every few dozen of
// them, and two threads of one arena then wait for each other at its bins.  What it holds at most
// is the same.
extern const char* const cowshed_je_malloc_conf;
const char* const cowshed_je_malloc_conf =
    "narenas:1,metadata_thp:auto,retain:true,background_thread:false,lg_extent_max_active_fit:48,"
    "tcache_gc_incr_bytes:1048576";

// Large blocks begin at a page, not somewhere in it: else each takes a page more, and one of an
// arena's capacity would not fit into it.
extern bool cowshed_je_je_opt_cache_oblivious;
bool cowshed_je_je_opt_cache_oblivious = false;

// jemalloc 5.3, rtree.h: the map is a tree of two levels; a leaf has 8 bytes for each page of 1
// GiB. Its leaves are ours, aligned, so that one can be given back.
extern char cowshed_je_je_arena_emap_global[];
void cowshed_je_je_rtree_ctx_data_init(void* context);
void* cowshed_je_je_rtree_leaf_elm_lookup_hard(void* thread, void* map, void* context,
                                               std::uintptr_t address, bool must_exist,
                                               bool create);

void* cowshed_je_address_map_memory(void*, void*, std::size_t size, std::size_t) {
  const auto map = [](std::size_t bytes) {
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return got == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(got);
  };
  const auto unmap = [](std::uintptr_t begin, std::uintptr_t end) {
    if (begin < end) munmap(reinterpret_cast<void*>(begin), end - begin);
  };
  std::uintptr_t got = map(size);
  if (got % kLeafSize == 0)  // below the last one, or none
    return reinterpret_cast<void*>(got);
  unmap(got, got + size);
  got = map(size + kLeafSize);
  if (got == 0) return nullptr;
  const std::uintptr_t aligned = (got + kLeafSize - 1) & ~(kLeafSize - 1);
  unmap(got, aligned);
  unmap(aligned + size, got + size + kLeafSize);
  return reinterpret_cast<void*>(aligned);
}

char* cowshed_je_no_environment(const char*) { return nullptr; }

ssize_t cowshed_je_no_link(const char*, char*, std::size_t) {
  errno = ENOENT;
  return -1;
}
}

namespace cowshed::jemalloc {
namespace {

// On the stack: this may run where malloc takes from an arena.
class Key {
 public:
  Key(const char* format, unsigned arena) {
    std::snprintf(text_.data(), text_.size(), format, arena);
  }
  const char* get() const { return text_.data(); }

 private:
  std::array<char, 64> text_{};
};

template <class T>
int set(const char* key, T value) {
  return cowshed_je_mallctl(key, nullptr, nullptr, &value, sizeof value);
}

template <class T>
T get(const Key& key) {
  T value{};
  std::size_t size = sizeof value;
  cowshed_je_mallctl(key.get(), &value, &size, nullptr, 0);
  return value;
}

}  // namespace

void initialise() { (void)cowshed_je_nallocx(1, 0); }

int create_arena(ExtentHooks* hooks, unsigned& arena) {
  struct {
    ExtentHooks* hooks;
    bool metadata_use_hooks;
  } config = {hooks, false};
  std::size_t size = sizeof arena;
  int error =
      cowshed_je_mallctl("experimental.arenas_create_ext", &arena, &size, &config, sizeof config);
  if (error == EAGAIN) error = ENOMEM;  // what it means here
  // Nothing is given back by itself: what is freed stays warm for the next allocation.
  for (const char* key : {"arena.%u.dirty_decay_ms", "arena.%u.muzzy_decay_ms"})
    if (error == 0) error = set(Key(key, arena).get(), ssize_t{-1});
  return error;
}

int destroy_arena(unsigned arena) {
  return cowshed_je_mallctl(Key("arena.%u.destroy", arena).get(), nullptr, nullptr, nullptr, 0);
}

int purge_arena(unsigned arena) {
  return cowshed_je_mallctl(Key("arena.%u.purge", arena).get(), nullptr, nullptr, nullptr, 0);
}

int create_cache(unsigned& cache) {
  std::size_t size = sizeof cache;
  return cowshed_je_mallctl("tcache.create", &cache, &size, nullptr, 0);
}

int flush_cache(unsigned cache) { return set("tcache.flush", cache); }
int destroy_cache(unsigned cache) { return set("tcache.destroy", cache); }

ArenaCounts count_arena(unsigned arena) {
  set("epoch", std::uint64_t{1});
  ArenaCounts counts;
  counts.live_bytes = get<std::size_t>(Key("stats.arenas.%u.small.allocated", arena)) +
                      get<std::size_t>(Key("stats.arenas.%u.large.allocated", arena));
  counts.live_blocks = get<std::uint64_t>(Key("stats.arenas.%u.small.nmalloc", arena)) +
                       get<std::uint64_t>(Key("stats.arenas.%u.large.nmalloc", arena)) -
                       get<std::uint64_t>(Key("stats.arenas.%u.small.ndalloc", arena)) -
                       get<std::uint64_t>(Key("stats.arenas.%u.large.ndalloc", arena));
  return counts;
}

bool has_block(const void* address) {
  unsigned arena = 0;
  std::size_t size = sizeof arena;
  return cowshed_je_mallctl("arenas.lookup", &arena, &size, static_cast<void*>(&address),
                            sizeof address) == 0;
}

namespace {

// The map's word on this page; null: no leaf there.
std::atomic<std::uintptr_t>* find_record(std::uintptr_t address, void* context) {
  return static_cast<std::atomic<std::uintptr_t>*>(cowshed_je_je_rtree_leaf_elm_lookup_hard(
      nullptr, cowshed_je_je_arena_emap_global, context, address, false, false));
}

// What jemalloc keeps in a thread (rtree_ctx_t of rtree_tsd.h, 384 bytes) to look up faster.
struct Context {
  Context() { cowshed_je_je_rtree_ctx_data_init(bytes.data()); }
  alignas(64) std::array<std::byte, 1024> bytes{};
};

}  // namespace

bool has_extent(const void* begin) {
  Context context;
  const auto* record = find_record(reinterpret_cast<std::uintptr_t>(begin), context.bytes.data());
  return record != nullptr && record->load(std::memory_order_relaxed) != 0;
}

void forget_addresses(std::uintptr_t begin, std::uintptr_t end) {
  Context context;
  for (std::uintptr_t address = (begin + kAddressesPerLeaf - 1) & ~(kAddressesPerLeaf - 1);
       address + kAddressesPerLeaf <= end; address += kAddressesPerLeaf) {
    auto* leaf = find_record(address, context.bytes.data());
    // Mapped anew rather than emptied: that frees the page table, too.  If it fails, it is kept.
    if (leaf != nullptr) {
      (void)mmap(leaf, kLeafSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                 -1, 0);
    }
  }
}

int thread_arena(unsigned& arena) {
  std::size_t size = sizeof arena;
  return cowshed_je_mallctl("thread.arena", &arena, &size, nullptr, 0);
}

int set_thread_arena(unsigned arena) { return set("thread.arena", arena); }

void flush_thread_cache() {
  cowshed_je_mallctl("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
}

}  // namespace cowshed::jemalloc
