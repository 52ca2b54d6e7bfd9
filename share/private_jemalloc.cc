#include <cerrno>
#include <cstddef>
#include <string>
#include <sys/types.h>

#include <cowshed/share/private_jemalloc.h>

extern "C" {
void* cowshed_je_mallocx(std::size_t size, int flags);
void cowshed_je_sdallocx(void* block, std::size_t size, int flags);
int cowshed_je_mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                       std::size_t new_size);

// jemalloc's defaults are weak.  One arena of its own, for its records; records in huge pages,
// since fork() copies page tables of ordinary memory (with 1 GiB in the arena 130 us against 140
// us, 95 us against 85 us with none); nothing is ever given back by itself.
extern const char* const cowshed_je_malloc_conf;
const char* const cowshed_je_malloc_conf =
    "narenas:1,metadata_thp:always,retain:true,background_thread:false,"
    "dirty_decay_ms:-1,muzzy_decay_ms:-1";

char* cowshed_je_no_environment(const char*) { return nullptr; }

ssize_t cowshed_je_no_link(const char*, char*, std::size_t) {
  errno = ENOENT;
  return -1;
}
}

namespace cowshed::jemalloc {
namespace {

// MALLOCX_ARENA, MALLOCX_TCACHE, MALLOCX_TCACHE_NONE and MALLOCX_LG_ALIGN of jemalloc.h.  Small
// alignments come by themselves, and asking for them leaves jemalloc's fast path.
int flags_for(unsigned arena, unsigned cache, std::size_t size, std::size_t alignment) {
  const unsigned cache_bits = cache == kNoCache ? 1U << 8U : (cache + 2) << 8U;
  const bool natural = alignment <= 8 || (alignment == 16 && size >= 16);
  const unsigned alignment_bits = natural ? 0 : static_cast<unsigned>(__builtin_ctzll(alignment));
  return static_cast<int>((arena + 1) << 20U | cache_bits | alignment_bits);
}

std::string arena_key(unsigned arena, const char* leaf) {
  return "arena." + std::to_string(arena) + "." + leaf;
}

}  // namespace

int create_arena(ExtentHooks* hooks, unsigned& arena) {
  struct {
    ExtentHooks* hooks;
    bool metadata_use_hooks;
  } config = {hooks, false};
  std::size_t size = sizeof arena;
  return cowshed_je_mallctl("experimental.arenas_create_ext", &arena, &size, &config,
                            sizeof config);
}

int destroy_arena(unsigned arena) {
  return cowshed_je_mallctl(arena_key(arena, "destroy").c_str(), nullptr, nullptr, nullptr, 0);
}

int set_growth_limit(unsigned arena, std::size_t bytes) {
  return cowshed_je_mallctl(arena_key(arena, "retain_grow_limit").c_str(), nullptr, nullptr, &bytes,
                            sizeof bytes);
}

int create_cache(unsigned& cache) {
  std::size_t size = sizeof cache;
  return cowshed_je_mallctl("tcache.create", &cache, &size, nullptr, 0);
}

int destroy_cache(unsigned cache) {
  return cowshed_je_mallctl("tcache.destroy", nullptr, nullptr, &cache, sizeof cache);
}

void* allocate(unsigned arena, unsigned cache, std::size_t size, std::size_t alignment) noexcept {
  return cowshed_je_mallocx(size == 0 ? 1 : size, flags_for(arena, cache, size, alignment));
}

void deallocate(unsigned arena, unsigned cache, void* block, std::size_t size,
                std::size_t alignment) noexcept {
  cowshed_je_sdallocx(block, size == 0 ? 1 : size, flags_for(arena, cache, size, alignment));
}

}  // namespace cowshed::jemalloc
