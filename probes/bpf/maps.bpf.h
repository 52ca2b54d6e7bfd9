/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "kernel_types.h"
#include "record.h"

/* The maps, and the state of a tracked thread, which is in its task storage. */

/* Traits of the mapping at an address; 0: unknown. */

#define MAPPING_FOUND 1u
#define MAPPING_ABSENT 2u /* nothing is mapped there */
#define MAPPING_WRITABLE 4u
#define MAPPING_SHARED 8u
#define MAPPING_HUGETLB 16u
#define MAPPING_UFFD_WP 32u
#define MAPPING_FILE 64u
#define MAPPING_SHMEM 128u
#define MAPPING_ARENA 256u       /* or of the data of a file */
#define MAPPING_MAY_BE_HUGE 512u /* contains a whole aligned 2 MiB */
#define MAPPING_UFFD_MISSING 1024u
#define MAPPING_SETTLED 2048u /* of a memfd of settle() */
#define MAPPING_WRITTEN 4096u /* may have anonymous pages */
#define MAPPING_MERGEABLE 8192u

/* The mapping of the thread's last fault. */
struct mapping {
  struct mm_struct* mm; /* compared, never dereferenced */
  __u64 start;
  __u64 end;
  __u32 generation;
  __u32 traits;
  __u64 small_block; /* number of the last 2 MiB known to consist of small pages */
};

/* The mapping's file, if it has the trait MAPPING_ARENA. */
struct mapped_arena {
  __u64 inode;
  __u64 origin; /* as in cowshed_arena_key */
  char name[COWSHED_ARENA_NAME_BYTES];
};

/* The mapping's file, if it has the trait MAPPING_FILE. */
struct mapped_file {
  __u64 size_at; /* address of its size; 0: has no end, as a device */
  __u64 bytes;   /* its size when it was looked up */
  __u64 begin;   /* address of its first byte, mapped or not */
};

enum pending_mode { PENDING_NONE, PENDING_USER, PENDING_KERNEL };

/* A write fault without a final class: the fields of every fault.  pending_fault.bpf.h has its
 * states. */
struct pending_fault {
  __u8 mode;
  __u8 fault_class; /* enum cowshed_class, if the kernel allocates no page */
  __u8 protection;  /* the page was there, but write-protected */
  __u8 may_split;
  __u32 traits;
  __u64 ip; /* of the user's instruction; in kernel mode, of the system call */
};

enum page_entry {
  ENTRY_UNKNOWN,
  ENTRY_NONE, /* or a mark */
  ENTRY_PRESENT,
  ENTRY_PROT_NONE, /* a NUMA hint */
  ENTRY_SWAP,      /* or in migration */
};

enum page_sharers { SHARERS_UNKNOWN, SHARERS_NONE, SHARERS_SOME };

/* What the page table says of an address. */
struct page_view {
  __u64 page; /* its physical address, if one is mapped */
  __u8 entry; /* enum page_entry */
  __u8 is_huge;
  __u8 is_zeros;     /* the zero page, or the huge one */
  __u8 is_anonymous; /* only where `is_zeros` or a private copy of a file's page is in question */
  __u8 is_merged;    /* by KSM; only in a mapping where it merges */
  __u8 sharers;      /* enum page_sharers; only when the fault entered */
};

/* More fields: of kernel-mode faults, of faults on a huge page, and of faults whose allocation may
 * be missed (missed_page.bpf.h). */
struct fault_details {
  __u64 call;  /* the system call's number and arguments, mixed */
  __u64 frame; /* address of the exception's registers */
  __u64 stack; /* of the allocation */
  __u64 splits;
  __u64 switches;
  struct page_view before; /* when the fault entered */
  __u64 cached;            /* pages of a shared file that were in memory */
  __u64 misses;            /* of on_page_alloc, on that CPU */
  __u32 cpu;
  __u32 misses_known;
};

#define FRAME_WORDS (COWSHED_REGISTERS + 1)
#define MAPLE_NODE_WORDS 32

/* In order of use: a fault in the same mapping as the last fault uses the first 128 bytes. */
struct thread_state {
  __u64 update_begin; /* unequal to update_end while the counts change */
  __u64 update_end;
  struct pending_fault pending;
  struct mapping mapping;
  __u64 address; /* of the pending fault */
  struct cowshed_counts counts;
  __u32 exited;
  __u32 await_exec;
  struct cowshed_key key;
  __u64 program; /* the address space of its program: compared, never dereferenced */
  __u64 memory;  /* the number of its address space */
  struct sample_turn turn;
  struct sample_turn fresh_turn; /* of new memory */
  __u32 failures;                /* that were sampled */
  __u32 failure;                 /* of the sample that is taken: enum cowshed_failure */
  __u32 is_handled;
  __u32 has_fork;      /* in `forks` */
  __u32 tracked;       /* attempts to track it: the first does */
  __u32 samples_fresh; /* new memory */
  __u32 fresh_missed;  /* pages without a sample since the last one */
  __u32 exits;         /* programs that noticed its end: the first counts it */
  __u64 fork_begin;    /* when it entered kernel_clone(), or 0 */
  __u64 fork_counters; /* of the child's address space: compared, never dereferenced */
  __u64 python_thread; /* where its PyThreadState was last found */
  struct fault_details details;
  struct mapped_arena arena;
  struct mapped_file file;
  __u64 frame[FRAME_WORDS];     /* of a kernel-mode fault: registers and return address */
  __u64 node[MAPLE_NODE_WORDS]; /* scratch, too large for the stack */
};

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct thread_state);
} threads SEC(".maps");

static __always_inline struct thread_state* state_of(struct task_struct* task) {
  return task->bpf_storage ? bpf_task_storage_get(&threads, task, 0, 0) : 0;
}

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 262144);
  __type(key, struct cowshed_key);
  __type(value, struct cowshed_process);
} processes SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct cowshed_arena_key);
  __type(value, struct cowshed_arena);
} arenas SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 262144);
  __type(key, __u32);
  __type(value, struct cowshed_root);
} roots SEC(".maps");

/* Scratch for new records.  Programs of new tasks cannot be preempted and use slot 0.  Iterators
 * can, and use slot 1. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, struct cowshed_process);
} new_process SEC(".maps");

struct cowshed_memory memories[COWSHED_MEMORIES]; /* no map: a lookup would be a call */
__u64 last_memory;

static __always_inline struct cowshed_memory* memory_of(__u64 id) {
  return &memories[id & (COWSHED_MEMORIES - 1)];
}

static __always_inline void claim_memory(__u64 id) {
  struct cowshed_memory* memory = memory_of(id);
  if (memory->id == id) return;
  memory->copied_pages = 0;
  memory->settled_pages = 0;
  memory->id = id;
}

static __always_inline void note_copies(struct thread_state* thread, __u64 pages) {
  struct cowshed_memory* memory = memory_of(thread->memory);
  if (memory->id == thread->memory) __sync_fetch_and_add(&memory->copied_pages, pages);
}

static __always_inline void note_settled_copy(struct thread_state* thread) {
  struct cowshed_memory* memory = memory_of(thread->memory);
  if (memory->id == thread->memory) __sync_fetch_and_add(&memory->settled_pages, 1);
}

static __always_inline __u64 new_memory(void) {
  __u64 id = __sync_fetch_and_add(&last_memory, 1) + 1;
  claim_memory(id);
  return id;
}

struct cowshed_losses losses;
struct cowshed_adoption adoption;
__u64 last_id;
__u64 processes_added; /* to the map: tells the loader whether it has seen all */
__u64 arenas_added;
/* Changes to the records in `processes`.  While the two numbers are equal and constant, no record
 * has changed, and the loader need not read them again. */
__u64 record_changes_begun;
__u64 record_changes_done;
__u64 slow_lookups; /* mappings that only bpf_find_vma found */
__u32 pid_level;    /* the level of the loader's PID namespace */

const volatile __u32 may_be_preempted = 0;   /* the programs of tracepoints: since 7.0 */
const volatile __u32 has_collapse_order = 0; /* an argument of the collapse's event: since 7.2 */
const volatile __s64 vm_events_from_runqueue = 0; /* vm_event_states - runqueues, 0: unknown */
const volatile __u32 gfp_movable = 0x8; /* ___GFP_* as of 6.1; the loader asks newer kernels */
const volatile __u32 gfp_zero = 0x100;
const volatile __u32 gfp_page_cache = 0x11000; /* ___GFP_NORETRY and ___GFP_WRITE */

static __always_inline void add(__u64* counter, __u64 amount) {
  if (amount) __sync_fetch_and_add(counter, amount);
}

static __always_inline void begin_record_change(void) {
  __sync_fetch_and_add(&record_changes_begun, 1);
}

static __always_inline void end_record_change(void) {
  __sync_fetch_and_add(&record_changes_done, 1);
}

#define compiler_barrier() asm volatile("" ::: "memory")

/* Only the thread's own programs write here.  x86 keeps the order of stores. */
static __always_inline void begin_update(struct thread_state* thread) {
  thread->update_begin++;
  thread->counts.events++;
  compiler_barrier();
}

static __always_inline void end_update(struct thread_state* thread) {
  compiler_barrier();
  thread->update_end++;
}
