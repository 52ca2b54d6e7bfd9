// jemalloc 5.3.0 as one object, for cmake/PrivateJemalloc.cmake.  Only cowshed_je_* stays global.

// ThreadSanitizer understands this mutex (mutex.cc).  libc's headers declare it by these names.
#define pthread_mutex_init cowshed_je_mutex_init
#define pthread_mutex_lock cowshed_je_mutex_lock
#define pthread_mutex_trylock cowshed_je_mutex_trylock
#define pthread_mutex_unlock cowshed_je_mutex_unlock

#define extent_alloc_mmap cowshed_je_extent_alloc_mmap  // jemalloc.cc calls it

#define JEMALLOC_NO_PRIVATE_NAMESPACE
#include "src/arena.c"
#include "src/background_thread.c"
#include "src/bin.c"
#include "src/bin_info.c"
#include "src/bitmap.c"
#include "src/buf_writer.c"
#include "src/cache_bin.c"
#include "src/ckh.c"
#include "src/counter.c"
#include "src/ctl.c"
#include "src/decay.c"
#include "src/div.c"
#include "src/ecache.c"
#include "src/edata.c"
#include "src/edata_cache.c"
#include "src/eset.c"
#include "src/exp_grow.c"
#include "src/extent.c"
#include "src/extent_dss.c"
#include "src/extent_mmap.c"
#include "src/fxp.c"
#include "src/hook.c"
#include "src/hpa.c"
#include "src/hpa_hooks.c"
#include "src/hpdata.c"
#include "src/inspect.c"
#include "src/large.c"
#include "src/log.c"
#include "src/malloc_io.c"
#include "src/mutex.c"
#include "src/nstime.c"
#include "src/pa.c"
#include "src/pa_extra.c"
#include "src/pac.c"
#include "src/pages.c"
#include "src/pai.c"
#include "src/peak_event.c"
#include "src/prof.c"
#include "src/prof_data.c"
#include "src/prof_log.c"
#include "src/prof_recent.c"
#include "src/prof_stats.c"
#include "src/prof_sys.c"
#include "src/psset.c"
#include "src/safety_check.c"
#include "src/san.c"
#include "src/san_bump.c"
#include "src/sc.c"
#include "src/sec.c"
#include "src/stats.c"
#include "src/sz.c"
#include "src/tcache.c"
#include "src/test_hooks.c"
#include "src/thread_event.c"
#include "src/ticker.c"
#include "src/tsd.c"
#include "src/witness.c"

// Which free neighbours join: all of one arena.  jemalloc's own rule takes neighbours that came by
// one request for theirs.  But by cowshed_je_take_free_range() they may belong to two arenas, and
// come back.  The record of another arena's range stays readable, and always names that arena.
static bool can_acquire_neighbor(edata_t* range, rtree_contents_t neighbor, extent_pai_t pai,
                                 extent_state_t state, bool forward, bool expanding) {
  edata_t* const other = neighbor.edata;
  return other != NULL && neighbor.metadata.state == state && edata_pai_get(other) == pai &&
         edata_arena_ind_get(other) == edata_arena_ind_get(range) &&
         (expanding || edata_committed_get(other) == edata_committed_get(range));
}
#define extent_can_acquire_neighbor can_acquire_neighbor
#include "src/emap.c"

// jemalloc.cc defines these.
void* cowshed_je_map_memory(void*, size_t, size_t, bool*, bool*);
void* cowshed_je_map_leaf(void* root, size_t root_size, size_t size);
char* cowshed_je_no_environment(const char*);

#undef extent_alloc_mmap
#define extent_alloc_mmap cowshed_je_map_memory
#include "src/ehooks.c"

// jemalloc would retain the records of a destroyed arena, 2 MiB each, and never use them again.
#define extent_dalloc_mmap(address, size) (munmap(address, size) != 0)
#include "src/base.c"

// The map from addresses to records gets memory that jemalloc::forget_addresses() can take away.
#define base_alloc(thread, base, size, alignment) \
  cowshed_je_map_leaf(rtree->root, sizeof rtree->root, size)
#include "src/rtree.c"
#undef base_alloc

// No environment variable and no file configures this jemalloc.
#undef secure_getenv
#define secure_getenv cowshed_je_no_environment
#undef readlink
#define readlink(path, buffer, size) (-1)
// malloc/malloc.cc may define it.
#undef je_malloc_conf_2_conf_harder
#define je_malloc_conf_2_conf_harder cowshed_je_malloc_conf_2_conf_harder
// jemalloc::initialise() starts it.
#define constructor unused
#include "src/jemalloc.c"

// There is one arena for records.  Beyond some MiB it uses huge pages, because fork() copies the
// page tables of ordinary memory.  From the start they would cost each process 2 MiB.
//
// A free extent of any size serves a small request.  Else extents would add up in an arena that is
// filled and emptied, because free memory does not decay there.
//
// Thread caches are trimmed less often than after each 64 KiB (tcache.c).  That would be every few
// dozen blocks of a page, and two threads would wait for each other at the arena's bins.
const char* je_malloc_conf =
    "narenas:1,metadata_thp:auto,retain:true,background_thread:false,lg_extent_max_active_fit:48,"
    "tcache_gc_incr_bytes:1048576";

// Returns the map's entry of a page; null if there is no leaf.
void* cowshed_je_find_record(uintptr_t address) {
  rtree_ctx_t context;
  rtree_ctx_data_init(&context);
  return rtree_leaf_elm_lookup_hard(NULL, &arena_emap_global.rtree, &context, address, false,
                                    false);
}

static pac_t* ranges_of(tsdn_t* thread, unsigned arena) {
  return &arena_get(thread, arena, false)->pa_shard.pac;
}

// jemalloc.h says what these do.
void cowshed_je_grow_by(unsigned arena, size_t size) {
  exp_grow_t* const next = &ranges_of(tsdn_fetch(), arena)->exp_grow;
  next->next = next->limit = sz_psz2ind(size);
}

void* cowshed_je_take_free_range(unsigned arena, size_t size, size_t alignment, bool* was_used) {
  tsdn_t* const thread = tsdn_fetch();
  pac_t* const ranges = ranges_of(thread, arena);
  ecache_t* const caches[] = {&ranges->ecache_retained, &ranges->ecache_dirty};
  for (int i = 0; i < 2; ++i) {
    bool commit = false;
    edata_t* const range = extent_recycle(thread, ranges, pac_ehooks_get(ranges), caches[i], NULL,
                                          size, alignment, false, &commit, true, false);
    if (range == NULL) continue;
    void* const begin = edata_base_get(range);
    *was_used = edata_committed_get(range);
    extent_deregister(thread, ranges, range);
    edata_cache_put(thread, ranges->edata_cache, range);
    return begin;
  }
  return NULL;
}

bool cowshed_je_add_free_range(unsigned arena, void* begin, size_t size) {
  tsdn_t* const thread = tsdn_fetch();
  pac_t* const ranges = ranges_of(thread, arena);
  edata_t* const range = edata_cache_get(thread, ranges->edata_cache);
  if (range == NULL) return false;
  edata_init(range, arena, begin, size, false, SC_NSIZES, 0, extent_state_active, true, false,
             EXTENT_PAI_PAC, EXTENT_NOT_HEAD);
  if (extent_register(thread, ranges, range)) return false;  // never: the map has its leaves
  extent_record(thread, ranges, pac_ehooks_get(ranges), &ranges->ecache_retained, range);
  return true;
}

void cowshed_je_give_free_ranges(unsigned from, unsigned to) {
  tsdn_t* const thread = tsdn_fetch();
  pac_t* const giver = ranges_of(thread, from);
  edata_t* range = NULL;
  bool taken = true;
  while (taken && (range = ecache_evict(thread, giver, pac_ehooks_get(giver),
                                        &giver->ecache_retained, 0)) != NULL) {
    taken = cowshed_je_add_free_range(to, edata_base_get(range), edata_size_get(range));
    edata_cache_put(thread, giver->edata_cache, range);
  }
}

// The entries.  A thread without memory for its data fails as an allocation does, and leaks what it
// frees.  jemalloc's fast paths leave a thread without a block to the slow ones.
static void* no_memory(void) {
  errno = ENOMEM;
  return NULL;
}
static JEMALLOC_NOINLINE void* malloc_slowly(size_t size) {
  return has_block() ? malloc_default(size) : no_memory();
}

void* cowshed_je_malloc(size_t size) { return imalloc_fastpath(size, &malloc_slowly); }
// libc frees null pointers at the end of a thread that never had a block.
void cowshed_je_free(void* block) {
  if (!free_fastpath(block, 0, false) && block != NULL && has_block()) free_default(block);
}
void* cowshed_je_calloc(size_t count, size_t size) {
  return has_block() ? je_calloc(count, size) : no_memory();
}
void* cowshed_je_realloc(void* block, size_t size) {
  return has_block() ? je_realloc(block, size) : no_memory();
}
void* cowshed_je_memalign(size_t alignment, size_t size) {
  return has_block() ? je_memalign(alignment, size) : no_memory();
}
void* cowshed_je_aligned_alloc(size_t alignment, size_t size) {
  return has_block() ? je_aligned_alloc(alignment, size) : no_memory();
}
int cowshed_je_posix_memalign(void** block, size_t alignment, size_t size) {
  return has_block() ? je_posix_memalign(block, alignment, size) : ENOMEM;
}
void* cowshed_je_mallocx(size_t size, int flags) {
  return has_block() ? je_mallocx(size, flags) : NULL;
}
size_t cowshed_je_nallocx(size_t size, int flags) {
  return has_block() ? je_nallocx(size, flags) : 0;
}
size_t cowshed_je_malloc_usable_size(void* block) {
  return has_block() ? je_malloc_usable_size(block) : 0;
}
int cowshed_je_mallctl(const char* name, void* old, size_t* old_size, void* new, size_t new_size) {
  return has_block() ? je_mallctl(name, old, old_size, new, new_size) : EAGAIN;
}
void cowshed_je_dallocx(void* block, int flags) {
  if (has_block()) je_dallocx(block, flags);
}
void cowshed_je_sdallocx(void* block, size_t size, int flags) {
  if (has_block()) je_sdallocx(block, size, flags);
}
