/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "published_arenas.bpf.h"

/* The records of processes and threads: they are created at a fork, and a thread's counters are
 * added to its process when it ends. */

/* The PID of the task's process in the loader's PID namespace; 0 if it has none there. */
static __always_inline __u32 namespace_tgid(struct task_struct* task) {
  struct pid* pid = BPF_CORE_READ(task, group_leader, thread_pid);
  __u32 number = 0;
  if (pid && BPF_CORE_READ(pid, level) >= pid_level) {
    void* numbers = (void*)pid + bpf_core_field_offset(struct pid, numbers);
    void* upid = numbers + (__u64)pid_level * bpf_core_type_size(struct upid);
    bpf_probe_read_kernel(&number, sizeof number, upid + bpf_core_field_offset(struct upid, nr));
  }
  return number;
}

static __always_inline void fill_key(struct cowshed_key* key, struct task_struct* task) {
  key->start_ns = BPF_CORE_READ(task, group_leader, start_time);
  key->tgid = BPF_CORE_READ(task, tgid);
  key->unused = 0;
}

/* A pointer as a number to calculate with.  The verifier permits it by way of memory. */
static __always_inline __u64 number(__u64* memory, const void* pointer) {
  *(volatile __u64*)memory = (__u64)pointer;
  return *(volatile __u64*)memory;
}

/* The distances from a per-CPU pointer to each CPU's part, for the CPUs that were online when the
 * programs were loaded. */
#define MOST_CPUS 4096
__u64 percpu_shifts[MOST_CPUS];
__u32 percpu_parts;

/* Taken from a map of our own, because we may not resolve the kernel's table of offsets. */
static __always_inline __u64 percpu_shift(__u32 cpu) {
  __u32 slot = 0;
  struct cowshed_process* mine = bpf_map_lookup_elem(&new_process, &slot);
  void* there = bpf_map_lookup_percpu_elem(&new_process, &slot, cpu);
  if (!mine || !there) return 0;
  __u64 map = number(&mine->id, &new_process);
  __u64 base = 0;
  bpf_probe_read_kernel(&base, sizeof base,
                        (void*)map + bpf_core_field_offset(struct bpf_array, pptrs));
  return base ? number(&mine->id, there) - base : 0;
}

/* Where each CPU counts the skipped runs of on_page_alloc, and those in progress; 0: unknown. */
__u64 misses_at[MOST_CPUS];
__u64 active_at[MOST_CPUS];
__u32 cpus;             /* that have such a place: 0 to this, without it */
__u64 page_alloc_stats; /* per-CPU pointers of the program; 0: not needed */
__u64 page_alloc_active;
__u32 page_alloc_id; /* the loader sets it */

/* The loader runs it once, before add_cpu(). */
SEC("iter/bpf_prog")
int find_page_alloc_stats(struct bpf_iter__bpf_prog* ctx) {
  struct bpf_prog* program = ctx->prog;
  if (program && BPF_CORE_READ(program, aux, id) == page_alloc_id) {
    page_alloc_stats = (__u64)BPF_CORE_READ(program, stats);
    page_alloc_active = (__u64)BPF_CORE_READ(program, active);
  }
  return 0;
}

struct cpu_number {
  __u64 cpu;
};

/* The loader runs it for each online CPU. */
SEC("syscall")
int add_cpu(struct cpu_number* number) {
  __u64 shift = percpu_shift(number->cpu);
  __u32 part = percpu_parts;
  if (shift && part < MOST_CPUS) {
    percpu_shifts[part & (MOST_CPUS - 1)] = shift;
    percpu_parts = part + 1;
  }
  if (shift && page_alloc_stats && number->cpu < MOST_CPUS) {
    __u32 cpu = number->cpu & (MOST_CPUS - 1);
    misses_at[cpu] =
        page_alloc_stats + shift + bpf_core_field_offset(struct bpf_prog_stats, misses);
    active_at[cpu] = page_alloc_active + shift;
    if (cpus <= cpu) cpus = cpu + 1;
  }
  return 0;
}

struct percpu_sum {
  __u64 counters;
  __s64 sum;
};

static long add_part(__u32 part, struct percpu_sum* sum) {
  if (part >= MOST_CPUS) return 1;
  __s32 value = 0;
  bpf_probe_read_kernel(&value, sizeof value, (void*)(sum->counters + percpu_shifts[part]));
  sum->sum += value;
  return 0;
}

static __always_inline __u64 hugetlb_bytes(struct mm_struct* mm) {
  if (!bpf_core_field_exists(mm->hugetlb_usage)) return 0;
  return BPF_CORE_READ(mm, hugetlb_usage.counter) * COWSHED_PAGE_BYTES;
}

/* Resident anonymous and hugetlbfs memory of `task`.  A percpu_counter alone is wrong by up to 32
 * pages a CPU, the size of a small program, so its parts are added.  Before 6.2 each thread keeps
 * up to 64 pages to itself, and only those of this thread are added. */
static __always_inline __u64 anonymous_bytes(struct task_struct* task) {
  struct mm_struct* mm = task->mm;
  if (!mm) return 0;
  __s64 pages = 0;
  /* Every kernel has this type.  For a missing type libbpf would search all modules, which takes
   * CAP_SYS_ADMIN. */
  if (bpf_core_field_exists(((struct mm_struct___v6_1*)mm)->rss_stat.count)) {
    pages = BPF_CORE_READ((struct mm_struct___v6_1*)mm, rss_stat.count[MM_ANONPAGES].counter);
    pages += BPF_CORE_READ((struct task_struct___v6_1*)task, rss_stat.count[MM_ANONPAGES]);
  } else {
    struct percpu_sum parts = {.counters =
                                   (__u64)BPF_CORE_READ(mm, rss_stat[MM_ANONPAGES].counters)};
    bpf_loop(percpu_parts, add_part, &parts, 0);
    pages = BPF_CORE_READ(mm, rss_stat[MM_ANONPAGES].count) + parts.sum;
  }
  return (pages > 0 ? (__u64)pages * COWSHED_PAGE_BYTES : 0) + hugetlb_bytes(mm);
}

/* The part of it that is shared by a mapping, not by a fork: more than is the process's own. */
static __always_inline __u64 shared_hugetlb_bytes(struct mm_struct* mm,
                                                  struct cowshed_process* process) {
  __u64 pages = process->counts.filled_hugetlb + process->counts.copied_hugetlb_file;
  __u64 own = process->hugetlb_at_start + pages * COWSHED_PAGE_BYTES;
  __u64 all = hugetlb_bytes(mm);
  return all > own ? all - own : 0;
}

/* A parent's copies count for a child from its fork on. */
static __always_inline void begin_sharing(struct cowshed_process* process, __u64 parents_memory) {
  claim_memory(parents_memory);
  process->parents_memory = parents_memory;
  process->parents_copied_at_fork = memory_of(parents_memory)->copied_pages;
  memory_of(process->memory)->settled_pages = memory_of(parents_memory)->settled_pages;
}

/* To the child's exec or its end. */
static __always_inline void end_sharing(struct cowshed_process* process) {
  if (process->flags & COWSHED_PARTED) return;
  struct cowshed_memory* memory = memory_of(process->parents_memory);
  if (memory->id != process->parents_memory) process->parents_memory = 0;
  process->parents_copied_at_parting = memory->copied_pages;
  __sync_fetch_and_or(&process->flags, COWSHED_PARTED);
}

/* Creates the record of `task`'s process unless it exists.  `forking`: the thread that creates it
 * now, if there is one.  1: created, 0: existed, -1: no room. */
static __always_inline int add_process(struct task_struct* task, struct cowshed_key* key,
                                       struct cowshed_process* parent, __u32 flags, __u32 slot,
                                       struct thread_state* forking) {
  if (bpf_map_lookup_elem(&processes, key)) return 0;
  struct cowshed_process* process = bpf_map_lookup_elem(&new_process, &slot);
  if (!process) return -1;
  __builtin_memset(process, 0, sizeof *process);
  process->id = __sync_fetch_and_add(&last_id, 1) + 1;
  process->parent_id = parent ? parent->id : 0;
  process->memory = parent && flags & COWSHED_SHARES_MEMORY ? parent->memory : new_memory();
  /* Of a process that ran before us it is not known whether it executed a program itself. */
  int is_inherited = parent && flags & (COWSHED_SHARES_MEMORY | COWSHED_FORK_SEEN);
  process->image = is_inherited ? parent->image : process->memory;
  if (parent && !(flags & COWSHED_SHARES_MEMORY)) begin_sharing(process, parent->memory);
  process->least_anonymous_bytes = anonymous_bytes(task); /* without what was kept from it */
  process->hugetlb_at_start = hugetlb_bytes(BPF_CORE_READ(task, mm));
  if (flags & COWSHED_FORK_SEEN) {
    process->shared_at_fork_bytes = process->least_anonymous_bytes;
    process->page_tables_at_fork = BPF_CORE_READ(task, mm, pgtables_bytes.counter);
    __u64 written = memory_of(process->memory)->settled_pages * COWSHED_PAGE_BYTES;
    process->shared_arena_bytes = published_bytes(forking, task->mm, written);
  }
  process->pid = namespace_tgid(task);
  process->ppid = namespace_tgid(BPF_CORE_READ(task, real_parent));
  process->flags = flags;
  struct task_struct* leader = BPF_CORE_READ(task, group_leader);
  bpf_probe_read_kernel(process->comm, sizeof process->comm, &leader->comm);
  long refused = bpf_map_update_elem(&processes, key, process, BPF_NOEXIST);
  if (refused == -17) /* -EEXIST: another CPU was quicker */
    return 0;
  if (refused) {
    __sync_fetch_and_add(&losses.processes, 1);
    return -1;
  }
  __sync_fetch_and_add(&processes_added, 1);
  return 1;
}

static __always_inline void begin_fresh_samples(struct thread_state* thread) {
  thread->samples_fresh = 1;
  thread->fresh_missed = 0;
  thread->fresh_turn = (struct sample_turn){};
}

/* Tracks one thread of a process that has a record.  1: tracked, 0: it was already, as another CPU
 * was quicker, -1: it cannot be. */
static __always_inline int add_thread(struct task_struct* task, struct cowshed_key* key,
                                      __u32 await_exec) {
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, key);
  if (!process) return -1;
  begin_record_change();
  __sync_fetch_and_add(&process->threads_live, 1);
  struct thread_state* thread =
      bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (!thread) {
    __sync_fetch_and_add(&process->threads_live, -1);
    end_record_change();
    __sync_fetch_and_add(&losses.threads, 1);
    return -1;
  }
  if (__sync_fetch_and_add(&thread->tracked, 1)) {
    __sync_fetch_and_add(&process->threads_live, -1);
    end_record_change();
    return 0;
  }
  __sync_fetch_and_add(&process->threads_total, 1);
  end_record_change();
  thread->await_exec = await_exec;
  thread->key = *key;
  thread->program = (__u64)BPF_CORE_READ(task, mm);
  thread->memory = process->memory;
  if (!await_exec && (process->execs || !(process->flags & COWSHED_SHARES_MEMORY)))
    begin_fresh_samples(thread);
  return 1;
}

/* Adds the counters of a thread that ends to those of its process. */
static __always_inline void flush_counts(struct thread_state* thread, struct task_struct* task) {
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &thread->key);
  struct cowshed_counts* counts = &thread->counts;
  if (!process) {
    add(&losses.late, counts->write_faults ? counts->write_faults : 1);
    __builtin_memset(counts, 0, sizeof *counts);
    return;
  }
  begin_record_change();
  __sync_fetch_and_add(&process->flush_begin, 1);
  __u64* sum = (__u64*)&process->counts;
  for (int i = 0; i < COWSHED_COUNT_WORDS; i++) add(&sum[i], ((__u64*)counts)[i]);
  __builtin_memset(counts, 0, sizeof *counts);
  if (!thread->exited) {
    thread->exited = 1;
    __u32 others = __sync_fetch_and_add(&process->threads_live, -1) - 1;
    struct signal_struct* signal = BPF_CORE_READ(task, signal);
    /* If several threads end together, `live` alone is 0 for each of them. */
    if (others == 0 && BPF_CORE_READ(signal, live.counter) == 0) {
      __u32 group = BPF_CORE_READ(signal, flags) & SIGNAL_GROUP_EXIT;
      struct task_struct* leader = BPF_CORE_READ(task, group_leader);
      process->exit_code =
          group ? BPF_CORE_READ(signal, group_exit_code) : BPF_CORE_READ(leader, exit_code);
      bpf_probe_read_kernel(process->comm, sizeof process->comm, &leader->comm);
      __u64 most = BPF_CORE_READ(signal, maxrss); /* an exec keeps it */
      process->most_resident_pages = most > process->resident_before_exec ? most : 0;
      process->anonymous_at_end =
          task->mm ? anonymous_bytes(task) - shared_hugetlb_bytes(task->mm, process)
                   : COWSHED_UNKNOWN;
      process->end_ns = bpf_ktime_get_ns();
      end_sharing(process);
      __sync_fetch_and_or(&process->flags, BPF_CORE_READ(signal, oom_mm)
                                               ? COWSHED_ENDED | COWSHED_OUT_OF_MEMORY
                                               : COWSHED_ENDED);
    }
  }
  __sync_fetch_and_add(&process->flush_end, 1);
  end_record_change();
}
