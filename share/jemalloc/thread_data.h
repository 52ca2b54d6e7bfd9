#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Stands in for jemalloc's tsd_tls.h, which takes 2.6 KiB of static TLS: dlopen() has less.  Here a
// thread has a pointer to a block with its data.  Later threads use the block again.

#define COWSHED_FORK_STATE __attribute__((section("cowshed_fork_state")))  // os/fork_state.h

struct thread_block {
  _Alignas(64) tsd_t data;
  struct thread_block* next;  // in the list of left blocks
  pid_t owner;                // of a left block: the thread that ends, or 0
};

// tsd.c defines the initial value of a thread's data.
#define JEMALLOC_TSD_TYPE_ATTR(type) const type
extern const tsd_t tsd_tls;
extern pthread_key_t tsd_tsd;
extern bool tsd_booted;

static __thread struct thread_block* thread_block JEMALLOC_TLS_MODEL;

static struct thread_block first_block COWSHED_FORK_STATE;
static struct thread_block* left_blocks COWSHED_FORK_STATE = &first_block;
static pthread_mutex_t blocks_mutex COWSHED_FORK_STATE;  // held over a fork

static void lock_blocks(void) { pthread_mutex_lock(&blocks_mutex); }
static void unlock_blocks(void) { pthread_mutex_unlock(&blocks_mutex); }
static void unlock_after_fork(void) {
  if (thread_block != NULL && thread_block->owner != 0) thread_block->owner = gettid();
  unlock_blocks();
}

// Blocks are never unmapped.  Returns false if there is no memory.
static bool map_blocks(void) {
  const size_t size = 64 << 10;
  struct thread_block* const blocks =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (blocks == MAP_FAILED) return false;
  for (size_t i = 0; i < size / sizeof *blocks; ++i) {
    blocks[i].next = left_blocks;
    left_blocks = &blocks[i];
  }
  return true;
}

static bool is_in_use(const struct thread_block* block) {
  return block->owner != 0 && tgkill(getpid(), block->owner, 0) == 0;
}

static JEMALLOC_NOINLINE bool take_block(void) {
  lock_blocks();
  struct thread_block** at = &left_blocks;
  while (*at != NULL && is_in_use(*at)) at = &(*at)->next;
  if (*at == NULL && map_blocks()) at = &left_blocks;
  struct thread_block* const block = *at;
  if (block != NULL) *at = block->next;
  unlock_blocks();
  if (block == NULL) return false;
  memcpy(&block->data, &tsd_tls, sizeof tsd_tls);
  block->owner = 0;
  thread_block = block;
  return true;
}

static inline bool has_block(void) { return likely(thread_block != NULL) || take_block(); }

// Called when a thread ends, up to four times.  The thread keeps the block until it is gone: libc
// calls free() after the destructors.
static void leave_block(void* data) {
  struct thread_block* const block = data;
  tsd_cleanup(data);
  if (block->owner != 0) return;
  block->owner = gettid();
  lock_blocks();
  block->next = left_blocks;
  left_blocks = block;
  unlock_blocks();
}

static inline bool tsd_boot0(void) {
  // Before jemalloc registers its handlers, which need a block.
  tsd_booted = pthread_key_create(&tsd_tsd, &leave_block) == 0 &&
               pthread_atfork(&lock_blocks, &unlock_after_fork, &unlock_after_fork) == 0;
  return !tsd_booted;
}

static inline void tsd_boot1(void) {}
static inline bool tsd_booted_get(void) { return tsd_booted; }
static inline bool tsd_get_allocates(void) { return false; }

// Only a fork handler may come here without a block.  libc, too, aborts if a thread's data finds no
// memory.
JEMALLOC_ALWAYS_INLINE tsd_t* tsd_get(bool init) {
  if (init && !has_block()) abort();
  return &thread_block->data;
}

static inline void tsd_set(tsd_t* data) {
  if (pthread_setspecific(tsd_tsd, data) != 0) malloc_write("<jemalloc>: Error setting tsd.\n");
}
