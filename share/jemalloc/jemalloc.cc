#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <sys/types.h>

#include <cowshed/share/jemalloc/jemalloc.h>
#include <cowshed/share/os/huge_pages.h>

using cowshed::arch::kLargestPage;
using cowshed::internal::keep_in_small_pages;

namespace {

// jemalloc's map of pages is a tree of two levels, which halve the bits of a page's number.  A leaf
// has 8 bytes for each of its pages.
constexpr unsigned kAddressBits = 48;  // as cmake/private_jemalloc configures it, and its pages
constexpr unsigned kLeafBits = (kAddressBits - std::countr_zero(kLargestPage)) / 2;
constexpr std::size_t kLeafSize = std::size_t{8} << kLeafBits;
constexpr std::size_t kAddressesPerLeaf = kLargestPage << kLeafBits;

}  // namespace

extern "C" {
int cowshed_je_mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                       std::size_t new_size);

std::size_t cowshed_je_nallocx(std::size_t size, int flags) noexcept;

// We provide the leaves of jemalloc's map, aligned, so that one can be unmapped.
std::atomic<std::uintptr_t>* cowshed_je_find_record(std::uintptr_t address);

void* cowshed_je_extent_alloc_mmap(void* address, std::size_t size, std::size_t alignment,
                                   bool* zero, bool* commit);
void* cowshed_je_map_memory(void* address, std::size_t size, std::size_t alignment, bool* zero,
                            bool* commit) {
  static std::atomic<int> blocks = 0;
  void* got = cowshed_je_extent_alloc_mmap(address, size, alignment, zero, commit);
  if (got != nullptr && blocks++ < 4) keep_in_small_pages(got, size);
  return got;
}

void* cowshed_je_map_leaf(void* root, std::size_t root_size, std::size_t size) {
  const auto map = [](std::size_t bytes) {
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return got == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(got);
  };
  if (size != kLeafSize) std::abort();  // jemalloc is configured differently
  const auto unmap = [](std::uintptr_t begin, std::uintptr_t end) {
    if (begin < end) munmap(reinterpret_cast<void*>(begin), end - begin);
  };
  keep_in_small_pages(root, root_size);
  std::uintptr_t got = map(size);
  if (got % kLeafSize != 0) {  // else it is below the last one, or none
    unmap(got, got + size);
    got = map(size + kLeafSize);
    if (got == 0) return nullptr;
    const std::uintptr_t aligned = (got + kLeafSize - 1) & ~(kLeafSize - 1);
    unmap(got, aligned);
    unmap(aligned + size, got + size + kLeafSize);
    got = aligned;
  }
  if (got != 0) keep_in_small_pages(reinterpret_cast<void*>(got), size);
  return reinterpret_cast<void*>(got);
}

// Of cowshed::malloc, if it is linked.
[[gnu::weak]] void cowshed_check_first_malloc();

char* cowshed_je_no_environment(const char*) {
  if (&cowshed_check_first_malloc != nullptr) cowshed_check_first_malloc();
  return nullptr;
}
}

namespace cowshed::jemalloc {
namespace {

// On the stack, because the thread's malloc may allocate from an arena here.
using Key = std::array<char, 64>;
Key key(const char* format, unsigned arena) {
  Key text{};
  std::snprintf(text.data(), text.size(), format, arena);
  return text;
}

int act(const char* key) { return cowshed_je_mallctl(key, nullptr, nullptr, nullptr, 0); }

template <class T>
int set(const char* key, T value) {
  return cowshed_je_mallctl(key, nullptr, nullptr, &value, sizeof value);
}

template <class T>
int get(const char* key, T& value) {
  std::size_t size = sizeof value;
  return cowshed_je_mallctl(key, &value, &size, nullptr, 0);
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
  if (error == EAGAIN) error = ENOMEM;  // jemalloc means that
  // No memory is returned to the kernel by itself; it stays warm for the next allocation.
  for (const char* decay : {"arena.%u.dirty_decay_ms", "arena.%u.muzzy_decay_ms"})
    if (error == 0) error = set(key(decay, arena).data(), ssize_t{-1});
  return error;
}

int destroy_arena(unsigned arena) { return act(key("arena.%u.destroy", arena).data()); }
int purge_arena(unsigned arena) { return act(key("arena.%u.purge", arena).data()); }

int create_cache(unsigned& cache) { return get("tcache.create", cache); }
int flush_cache(unsigned cache) { return set("tcache.flush", cache); }
int destroy_cache(unsigned cache) { return set("tcache.destroy", cache); }

ArenaCounts count_arena(unsigned arena) {
  set("epoch", std::uint64_t{1});
  const auto count = [&](const char* what) {
    std::uint64_t value = 0;
    get(key(what, arena).data(), value);
    return value;
  };
  return {count("stats.arenas.%u.small.allocated") + count("stats.arenas.%u.large.allocated"),
          count("stats.arenas.%u.small.nmalloc") + count("stats.arenas.%u.large.nmalloc") -
              count("stats.arenas.%u.small.ndalloc") - count("stats.arenas.%u.large.ndalloc")};
}

bool has_block(const void* address) {
  unsigned arena = 0;
  std::size_t size = sizeof arena;
  return cowshed_je_mallctl("arenas.lookup", &arena, &size, static_cast<void*>(&address),
                            sizeof address) == 0;
}

bool has_extent(const void* page) {
  const auto* record = cowshed_je_find_record(reinterpret_cast<std::uintptr_t>(page));
  return record != nullptr && record->load(std::memory_order_relaxed) != 0;
}

void forget_addresses(std::uintptr_t begin, std::uintptr_t end) {
  for (std::uintptr_t address = (begin + kAddressesPerLeaf - 1) & ~(kAddressesPerLeaf - 1);
       address + kAddressesPerLeaf <= end; address += kAddressesPerLeaf) {
    auto* leaf = cowshed_je_find_record(address);
    // A new mapping also frees the page table, which zeroing would not.  If it fails, the leaf
    // stays.
    if (leaf != nullptr) {
      (void)mmap(leaf, kLeafSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                 -1, 0);
      keep_in_small_pages(leaf, kLeafSize);
    }
  }
}

int thread_arena(unsigned& arena) { return get("thread.arena", arena); }
int set_thread_arena(unsigned arena) { return set("thread.arena", arena); }
void flush_thread_cache() { act("thread.tcache.flush"); }

}  // namespace cowshed::jemalloc
