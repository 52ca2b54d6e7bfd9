/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "copy_sample.bpf.h"
#include "fault_class.bpf.h"
#include "huge_split.bpf.h"
#include "lineage.bpf.h"

/* Since Linux 7.0 the programs of most tracepoints may be preempted.  While one is, BPF skips it
 * for every other task on that CPU, so on_page_alloc may miss the page of a fault.  The programs of
 * the faults themselves run with interrupts off and miss nothing.  They read the page table entry
 * when the fault enters.  If on_page_alloc has missed a run by the thread's next event, the entry
 * of that time decides: another page is a copy, the same page was reused. */

static __always_inline int may_miss(void) { return may_be_preempted; }

static __always_inline int read_misses(__u32 cpu, __u64* misses) {
  __u64 at = cpu < MOST_CPUS ? misses_at[cpu & (MOST_CPUS - 1)] : 0;
  return at && !bpf_probe_read_kernel(misses, sizeof *misses, (void*)at);
}

/* Whether a run on this CPU was preempted, so that the next one will be skipped. */
static __always_inline int is_active(__u32 cpu) {
  __u64 at = cpu < MOST_CPUS ? active_at[cpu & (MOST_CPUS - 1)] : 0;
  __u32 active = 0;
  return at && !bpf_probe_read_kernel(&active, sizeof active, (void*)at) && active;
}

static __always_inline __u64 cached_pages(struct thread_state* thread) {
  return BPF_CORE_READ(inode_of(thread), i_mapping, nrpages);
}

/* When the fault enters. */
static __always_inline void remember_page(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct fault_details* details = &thread->details;
  __u32 traits = thread->pending.traits;
  if (!may_miss()) return;
  details->cpu = bpf_get_smp_processor_id();
  details->switches = task->nvcsw + task->nivcsw;
  details->misses_known = read_misses(details->cpu, &details->misses);
  view_page(&details->before, number(&details->stack, task->mm->pgd), thread->address, traits);
  if (traits & MAPPING_SHARED) details->cached = cached_pages(thread);
  else if (thread->pending.protection && !details->before.is_huge && is_active(details->cpu))
    details->before.sharers = sharers_of(details->before.page);
}

static long find_miss(__u32 cpu, int* is_missed) {
  __u64 misses = 0;
  *is_missed = read_misses(cpu, &misses) && misses;
  return *is_missed;
}

/* Whether on_page_alloc may have missed the page of the pending fault of `task`.  Unless the thread
 * was switched out, it has been on one CPU since then. */
static __always_inline int may_have_missed(struct thread_state* thread, struct task_struct* task) {
  struct fault_details* details = &thread->details;
  __u64 misses = 0;
  int is_missed = 0;
  if (!may_miss()) return 0;
  if (!details->misses_known || !read_misses(details->cpu, &misses) || misses != details->misses)
    return 1;
  if (details->switches == task->nvcsw + task->nivcsw) return 0;
  bpf_loop(cpus, find_miss, &is_missed, 0);
  return is_missed;
}

static __always_inline int is_mapped(struct page_view* view) {
  return view->entry == ENTRY_PRESENT || view->entry == ENTRY_PROT_NONE;
}

/* Looks up the page of the pending fault again, if `task` still has the memory in which it faulted.
 */
static __always_inline void view_again(struct thread_state* thread, struct task_struct* task,
                                       struct page_view* now) {
  now->entry = ENTRY_UNKNOWN;
  if (task->mm && thread->program == (__u64)task->mm && state_of(task) == thread)
    view_page(now, (__u64)BPF_CORE_READ(task, mm, pgd), thread->address, 0);
}

/* The class of a fault on a page that was there, if neither it nor another one is there now. */
static __always_inline __u32 class_by_sharers(struct pending_fault* fault,
                                              struct page_view* before) {
  if (fault->traits & MAPPING_UFFD_WP) return COWSHED_CLASSES;
  if (!before->is_anonymous || before->sharers == SHARERS_SOME) return copied_class(fault->traits);
  return before->sharers == SHARERS_NONE ? fault->fault_class : COWSHED_CLASSES;
}

/* The class of the pending fault by its page before and now.  COWSHED_CLASSES: unknown.  A fault
 * that failed has ended by its signal. */
static __always_inline __u32 class_by_page(struct thread_state* thread, struct page_view* now) {
  struct pending_fault* fault = &thread->pending;
  struct page_view* before = &thread->details.before;
  __u32 traits = fault->traits;
  if (!traits) return COWSHED_CLASSES;
  if (before->entry == ENTRY_PROT_NONE) return fault->fault_class;
  if (traits & MAPPING_SHARED) {
    if (before->entry == ENTRY_PRESENT || !(traits & MAPPING_SHMEM)) return fault->fault_class;
    return cached_pages(thread) == thread->details.cached ? fault->fault_class
                                                          : COWSHED_ZERO_FILLED;
  }
  if (before->entry == ENTRY_PRESENT) {
    if (is_mapped(now) && now->page == before->page) return fault->fault_class;
    if (before->is_zeros) return COWSHED_ZERO_PAGE_WRITE;
    if (is_mapped(now)) return copied_class(traits);
    return class_by_sharers(fault, before);
  }
  if (traits & MAPPING_ABSENT && !is_mapped(now)) return fault->fault_class;
  if (before->entry != ENTRY_NONE) return COWSHED_CLASSES;
  if (!(traits & MAPPING_FILE)) return COWSHED_ZERO_FILLED;
  if (traits & MAPPING_UFFD_MISSING) return COWSHED_CLASSES;
  return is_beyond_file(thread) ? COWSHED_FAILED : COWSHED_COPIED_FILE;
}

/* 0: unknown, or several processes added pages to a shared file. */
static __always_inline __u64 filled_pages(struct thread_state* thread, struct page_view* now) {
  if (thread->pending.traits & MAPPING_SHARED) {
    __u64 added = cached_pages(thread) - thread->details.cached;
    return added == 1 || added == PAGES_OF_HUGE ? added : 0;
  }
  if (!is_mapped(now)) return 0;
  return now->is_huge ? PAGES_OF_HUGE : pages_of_folio(now->page);
}

static __always_inline void count_zero_filled(struct pending_fault* fault,
                                              struct cowshed_counts* counts, __u64 pages) {
  counts->zero_filled_pages += pages;
  if (fault->traits & MAPPING_SHARED) counts->shared_memory_pages += pages;
}

/* Counts what a fault of that class did to its page, apart from the fault itself. */
static __always_inline void count_page(struct thread_state* thread, __u32 fault_class,
                                       struct page_view* now, struct cowshed_counts* counts) {
  if (fault_class == COWSHED_ZERO_FILLED) {
    __u64 pages = filled_pages(thread, now);
    if (!pages) counts->vma_misses++;
    count_zero_filled(&thread->pending, counts, pages ? pages : 1);
  }
  if (fault_class <= COWSHED_COPIED_FILE && thread->details.before.is_huge && !now->is_huge)
    counts->huge_splits++;
  if (fault_class <= COWSHED_COPIED_FILE && thread->details.before.is_merged)
    counts->copied_merged++;
}

struct pieces {
  struct thread_state* thread;
  __u64 begin;
  __u64 end;
};

/* Whether the mapping at `address` is a private one of thread->file with the same origin. */
static __always_inline struct vm_area_struct* piece_at(struct thread_state* thread, __u64 address) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct vm_area_struct* vma = mapping_at(thread, task->mm, address);
  __u64 origin = BPF_CORE_READ(vma, vm_start) - (BPF_CORE_READ(vma, vm_pgoff) << PAGE_SHIFT);
  int is_piece = vma && BPF_CORE_READ(vma, vm_file, f_inode) == inode_of(thread) &&
                 origin == thread->file.begin && !(BPF_CORE_READ(vma, vm_flags) & VM_SHARED);
  return is_piece ? vma : 0;
}

static long add_pieces(__u32 index, struct pieces* pieces) {
  struct vm_area_struct* next = piece_at(pieces->thread, pieces->end);
  if (next) pieces->end = BPF_CORE_READ(next, vm_end);
  struct vm_area_struct* last = piece_at(pieces->thread, pieces->begin - 1);
  if (last) pieces->begin = BPF_CORE_READ(last, vm_start);
  return !next && !last;
}

#define MOST_PIECES 64 /* on each side, as mprotect() leaves them */

static __always_inline void describe_data(struct thread_state* thread, struct cowshed_arena* data) {
  struct pieces pieces = {thread, thread->mapping.start, thread->mapping.end};
  bpf_loop(MOST_PIECES, add_pieces, &pieces, 0);
  data->begin = pieces.begin;
  data->end = pieces.end;
  data->file_bytes = thread->file.bytes;
  if (thread->mapping.traits & MAPPING_WRITTEN)
    data->written_pages = written_pages(thread, pieces.begin, pieces.end);
}

const struct cowshed_arena new_arena = {};

/* A call, as written_pages(), because the stack has no room. */
static __noinline struct cowshed_arena* arena_of(struct thread_state* thread) {
  struct cowshed_arena_key key = {.process = thread->key,
                                  .memory = thread->memory,
                                  .inode = thread->arena.inode,
                                  .origin = thread->arena.origin};
  struct cowshed_arena* arena = bpf_map_lookup_elem(&arenas, &key);
  if (arena) return arena;
  bpf_map_update_elem(&arenas, &key, &new_arena, BPF_NOEXIST);
  __sync_fetch_and_add(&arenas_added, 1);
  return bpf_map_lookup_elem(&arenas, &key);
}

/* Not static, as walk_node(). */
__noinline int count_arena(struct thread_state* thread, __u32 pages, __u32 again) {
  if (!thread) return 0;
  struct cowshed_arena* arena = arena_of(thread);
  if (!arena) {
    __sync_fetch_and_add(&losses.arenas, 1);
    return 0;
  }
  if (!arena->name[0]) {
    __builtin_memcpy(arena->name, thread->arena.name, sizeof arena->name);
    if (thread->arena.origin) describe_data(thread, arena);
  }
  if (thread->mapping.start < arena->begin) arena->begin = thread->mapping.start;
  if (thread->mapping.end > arena->end) arena->end = thread->mapping.end;
  __sync_fetch_and_add(&arena->copied_pages, pages);
  if (again) __sync_fetch_and_add(&arena->copied_again, pages);
  return 0;
}

/* `is_shared`: whether the page that was copied had been written before. */
static __always_inline void count_file_copy(struct thread_state* thread, int is_shared) {
  struct pending_fault* fault = &thread->pending;
  int is_settled = fault->traits & MAPPING_SETTLED && 1;
  if (fault->traits & MAPPING_ARENA) count_arena(thread, 1, is_shared);
  if (is_settled && !is_shared) note_settled_copy(thread);
  if (is_settled || (is_shared && !(fault->traits & MAPPING_ARENA)))
    thread->counts.copied_shared_file++;
}

/* Gives the pending fault the class of its page, if on_page_alloc may have missed that.  The
 * thread's registers are others by now, so its sample is lost. */
static __noinline int settle_missed_page(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct pending_fault* fault = &thread->pending;
  struct page_view now = {};
  if (!may_have_missed(thread, task)) return 0;
  view_again(thread, task, &now);
  __u32 fault_class = class_by_page(thread, &now);
  if (fault_class == fault->fault_class) return 0;
  if (fault_class == COWSHED_CLASSES) {
    __sync_fetch_and_add(&losses.missed, 1);
    return 0;
  }
  count_page(thread, fault_class, &now, &thread->counts);
  fault->fault_class = fault_class;
  if (fault_class > COWSHED_COPIED_FILE) return 0;
  if (!thread->details.before.is_merged) note_copies(thread, 1);
  lose_sample(thread);
  if (fault_class == COWSHED_COPIED_FILE)
    count_file_copy(thread, fault->protection && thread->details.before.is_anonymous);
  return 0;
}
