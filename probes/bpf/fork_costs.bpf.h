/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "lineage.bpf.h"

/* How often and how long a process forks: from the entry of the kernel's function of all forks to
 * its return.  Where no program may be attached to functions: from the per-CPU counters of the
 * child's address space to the event of the new task, which is some 50 us less. */

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct cowshed_key);
  __type(value, struct cowshed_fork_costs);
} fork_costs SEC(".maps");

struct cowshed_fork_costs no_forks; /* too large for the stack */

static __always_inline struct cowshed_fork_costs* fork_costs_of(struct thread_state* thread) {
  struct cowshed_key key = thread->key;
  struct cowshed_fork_costs* costs = bpf_map_lookup_elem(&fork_costs, &key);
  if (costs) return costs;
  bpf_map_update_elem(&fork_costs, &key, &no_forks, BPF_NOEXIST);
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  costs = bpf_map_lookup_elem(&fork_costs, &key);
  if (!process || !costs) {
    __sync_fetch_and_add(&losses.missed, 1);
    return 0;
  }
  begin_record_change();
  __sync_fetch_and_or(&process->flags, COWSHED_FORKS);
  end_record_change();
  return costs;
}

/* Of a power of two.  The verifier must see the mask. */
static __always_inline __u32* element(__u32* array, __u32 index, __u32 elements) {
  asm volatile("" : "+r"(index));
  return &array[index & (elements - 1)];
}

static __always_inline __u32 duration_index(__u64 ns) {
  if (ns >> COWSHED_FORK_LEAST_LOG == 0) return 0;
  __u32 log = 63 - __builtin_clzll(ns);
  __u32 part = ns >> (log - COWSHED_FORK_PARTS_LOG) & ((1 << COWSHED_FORK_PARTS_LOG) - 1);
  return ((log - COWSHED_FORK_LEAST_LOG) << COWSHED_FORK_PARTS_LOG) + part;
}

/* Which `cowshed run --undo` adds, and which takes no lock of the program. */
#define UNDO_THREAD "cowshed-undo"
static __always_inline int is_undo_thread(struct list_head* node) {
  char name[sizeof UNDO_THREAD] = {};
  struct task_struct* task = (void*)node - bpf_core_field_offset(struct task_struct, thread_node);
  return bpf_core_read_str(name, sizeof name, &task->comm) == sizeof name &&
         begins_with(name, UNDO_THREAD, sizeof name);
}

static __always_inline __u64 other_threads(struct task_struct* task) {
  __u64 others = BPF_CORE_READ(task, signal, live.counter) - 1;
  if (others != 1) return others;
  struct list_head* first = BPF_CORE_READ(task, signal, thread_head.next);
  return !is_undo_thread(first) && !is_undo_thread(BPF_CORE_READ(first, next));
}

/* Of the running thread. */
static __always_inline void count_fork(struct thread_state* thread, int shares_memory) {
  __u64 begin = thread->fork_begin;
  thread->fork_begin = 0;
  struct cowshed_fork_costs* costs = fork_costs_of(thread);
  if (!costs) return;
  if (shares_memory) {
    __sync_fetch_and_add(&costs->spawns, 1);
  } else if (begin) {
    __u64 ns = bpf_ktime_get_ns() - begin;
    __sync_fetch_and_add(element(costs->durations, duration_index(ns), COWSHED_FORK_DURATIONS), 1);
    __sync_fetch_and_add(&costs->total_ns, ns);
    if (ns > costs->longest_ns) costs->longest_ns = ns;
    const __u64* written = thread->counts.faults;
    costs->written_pages =
        written[COWSHED_COPIED_ANON] + written[COWSHED_COPIED_FILE] + written[COWSHED_REUSED];
    __u64 others = other_threads(bpf_get_current_task_btf());
    add(&costs->beside_threads, others > 0);
    if (others > costs->most_threads) costs->most_threads = others;
  }
}

static __always_inline void count_failed_fork(struct thread_state* thread, __u32 error) {
  struct cowshed_fork_costs* costs = fork_costs_of(thread);
  if (costs)
    __sync_fetch_and_add(element(costs->failed, error < COWSHED_ERRNOS ? error : 0, COWSHED_ERRNOS),
                         1);
}

#define CLONE_VM 0x100
#define CLONE_VFORK 0x4000
#define CLONE_THREAD 0x10000
#define EINTR 4 /* of a task that dies */
#define MOST_ERRNO 511

/* All of fork(), vfork(), clone() and clone3(). */
SEC("fentry/kernel_clone")
int BPF_PROG(on_fork) {
  struct thread_state* thread = state_of(bpf_get_current_task_btf());
  if (!thread) return 0;
  if (thread->fork_begin) __sync_fetch_and_add(&losses.missed, 1); /* both ends of the last */
  thread->fork_begin = bpf_ktime_get_ns();
  return 0;
}

/* In the parent alone.  A fork that a signal interrupts begins anew: its error is no errno. */
static __always_inline int end_fork(struct kernel_clone_args* args, int result) {
  struct thread_state* thread = state_of(bpf_get_current_task_btf());
  if (!thread || !thread->fork_begin) return 0;
  if (!(args->flags & CLONE_THREAD)) {
    if (result > 0) count_fork(thread, (args->flags & (CLONE_VM | CLONE_VFORK)) != 0);
    else if (result >= -MOST_ERRNO && result != -EINTR) count_failed_fork(thread, -result);
  }
  thread->fork_begin = 0;
  return 0;
}

SEC("fexit/kernel_clone")
int BPF_PROG(on_fork_end, struct kernel_clone_args* args, int result) {
  return end_fork(args, result);
}

/* It has work only if the first was missed, as often where the new child runs at once. */
SEC("fexit/kernel_clone")
int BPF_PROG(on_fork_end_again, struct kernel_clone_args* args, int result) {
  return end_fork(args, result);
}

/* The next two, and on_forked, where these two may not be attached, since Linux 6.6. */

SEC("tp_btf/percpu_alloc_percpu")
int on_new_memory(__u64* context) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread) return 0;
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  thread->fork_begin = is_fork_call(entry->orig_ax) ? bpf_ktime_get_ns() : 0;
  thread->fork_counters = context[7];
  return 0;
}

static __always_inline int has_signal(struct task_struct* task) {
  __u64 own = BPF_CORE_READ(task, pending.signal.sig[0]);
  __u64 shared = BPF_CORE_READ(task, signal, shared_pending.signal.sig[0]);
  return ((own | shared) & ~BPF_CORE_READ(task, blocked.sig[0])) != 0;
}

/* The child's address space is freed before there is a child: why is not known, but for a signal.
 * Those of other processes may be freed meanwhile, when the thread gets the CPU again. */
SEC("tp_btf/percpu_free_percpu")
int on_freed_memory(__u64* context) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread || !thread->fork_begin || context[2] != thread->fork_counters) return 0;
  thread->fork_begin = 0;
  if (!has_signal(task)) count_failed_fork(thread, 0);
  return 0;
}
