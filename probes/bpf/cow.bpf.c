/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts the write faults of the tracked threads by class, in the order of a page's life:
 *
 * 1. Fork: a new task of a tracked thread is tracked, too.  Exec and exit move its counters.
 * 2. Fault: an exception by a write (page_fault_user, page_fault_kernel) makes the thread's fault
 *    pending, with the class that it has if the kernel allocates no page.
 * 3. Copy: if the fault needs a page, the kernel allocates it (mm_page_alloc) before the thread
 *    does anything else.  An allocation that provably belongs to the pending fault decides its
 *    class: a copy, for example.  Without one the thread's next event ends the fault.
 *
 * fault_class.bpf.h names the class, pending_fault.bpf.h holds the state of a fault, lineage.bpf.h
 * has the records of processes and threads, and adopt.bpf.h finds processes that already run. */

#include "adopt.bpf.h"
#include "copy_sample.bpf.h"
#include "fork_costs.bpf.h"
#include "pending_fault.bpf.h"
#include "sent_signals.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* 1. Fork, exec, exit. */

static __always_inline int track_new_task(struct task_struct* child) {
  struct task_struct* parent = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(parent);
  if (!thread) return 0;
  struct cowshed_key key = {};
  fill_key(&key, child);
  if (child->tgid != parent->tgid) {
    struct cowshed_process* creator = bpf_map_lookup_elem(&processes, &thread->key);
    __u32 flags =
        child->mm == parent->mm ? COWSHED_SHARES_MEMORY : COWSHED_FORK_SEEN | COWSHED_FORKED;
    if (add_process(child, &key, creator, flags, 0, thread) < 0) return 0;
  }
  int added = add_thread(child, &key, 0);
  if (added < 0) {
    if (child->tgid != parent->tgid) bpf_map_delete_elem(&processes, &key);
  } else if (added && sample_period && child->mm != parent->mm) {
    struct thread_state* its = state_of(child);
    if (its) keep_fork(its);
  }
  return 0;
}

/* Unlike sched_process_fork, these events include the threads that the kernel adds to a process,
 * for io_uring and vhost.  The loader chooses one. */
SEC("tp_btf/task_newtask")
int BPF_PROG(on_new_task, struct task_struct* child) { return track_new_task(child); }

/* With interrupts off, so that no child is missed.  Before 6.4 a thread's state might not be
 * allocated here. */
SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct* child) { return track_new_task(child); }

/* After on_new_task: a fork lasts until its child is tracked.  The kernel allocates per-CPU memory
 * for threads, too (futexes, since 6.16). */
SEC("tp_btf/task_newtask")
int BPF_PROG(on_forked, struct task_struct* child) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread) return 0;
  if (child->tgid == task->tgid) thread->fork_begin = 0;
  else count_fork(thread, child->mm == task->mm);
  return 0;
}

static __noinline int begin_program(struct thread_state* thread, __u64 memory, const void* comm) {
  begin_update(thread);
  end_fault_without_page(thread);
  thread->program = memory;
  thread->mapping.mm = 0; /* the next address space may lie where an older one lay */
  if (thread->has_fork) drop_fork(thread);
  begin_fresh_samples(thread);
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &thread->key);
  if (process) {
    process->least_anonymous_bytes = process->most_risen_bytes = process->hugetlb_at_start = 0;
    struct cowshed_counts* counts = &thread->counts;
    if (thread->await_exec) {
      thread->await_exec = 0;
      __builtin_memset(counts, 0, sizeof *counts);
    }
    begin_record_change();
    if (!process->execs++) {
      process->copied_before_exec =
          counts->faults[COWSHED_COPIED_ANON] + counts->faults[COWSHED_COPIED_FILE] +
          process->counts.faults[COWSHED_COPIED_ANON] +
          process->counts.faults[COWSHED_COPIED_FILE] + counts->copied_hugetlb_pages +
          process->counts.copied_hugetlb_pages;
    }
    end_sharing(process);
    struct task_struct* task = bpf_get_current_task_btf();
    process->resident_before_exec = BPF_CORE_READ(task, signal, maxrss);
    process->memory = thread->memory = process->image = new_memory();
    thread->python_thread = 0;
    bpf_probe_read_kernel_str(process->comm, sizeof process->comm, comm);
    end_record_change();
  }
  end_update(thread);
  return 0;
}

/* An exec renames the thread as soon as it has its new address space.  The pages that it copies
 * there, before sched_process_exec, belong to the new program.  If this event is missed, the first
 * fault of the new program shows it. */
SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct* task, const char* comm) {
  if (task != bpf_get_current_task_btf()) return 0;
  struct thread_state* thread = state_of(task);
  if (!thread || thread->program == (__u64)task->mm) return 0;
  return begin_program(thread, (__u64)task->mm, comm);
}

/* While the address space is still there, where the page of a missed allocation can be seen. */
static __always_inline int end_last_fault(struct task_struct* task) {
  struct thread_state* thread = state_of(task);
  if (!thread || thread->pending.mode == PENDING_NONE || task != bpf_get_current_task_btf())
    return 0;
  begin_update(thread);
  end_fault_without_page(thread);
  end_update(thread);
  return 0;
}

SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_prepare_exec, struct task_struct* task) { return end_last_fault(task); }

/* It has work only if the first was missed.  So it is hardly ever preempted, and both are hardly
 * ever missed together. */
SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_prepare_exec_again, struct task_struct* task) { return end_last_fault(task); }

static __always_inline int count_exit(struct thread_state* thread, struct task_struct* task) {
  if (thread->exited || __sync_fetch_and_add(&thread->exits, 1)) return 0;
  begin_update(thread);
  end_fault_without_page(thread);
  end_update(thread);
  flush_counts(thread, task);
  if (thread->has_fork) drop_fork(thread);
  return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct* task) {
  struct thread_state* thread = state_of(task);
  return thread ? count_exit(thread, task) : 0;
}

/* As on_prepare_exec_again.  on_free counts the exit. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit_again, struct task_struct* task) { return end_last_fault(task); }

/* In a softirq, so that it is not missed, but long after the thread's end. */
SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct* task) {
  struct thread_state* thread = state_of(task);
  if (!thread) return 0;
  if (!thread->exited) return count_exit(thread, task);
  if (thread->pending.mode != PENDING_NONE && may_have_missed(thread, task))
    __sync_fetch_and_add(&losses.missed, 1); /* it faulted after on_exit */
  return 0;
}

/* 2. Fault. */

/* The pages that a read allocates do not belong to the write fault before it. */
static __always_inline int enter_read_fault(struct thread_state* thread) {
  if (thread->pending.mode != PENDING_NONE) {
    begin_update(thread);
    end_fault_without_page(thread);
    end_update(thread);
  }
  return 0;
}

/* With page faults disabled the kernel gives up at once.  Its slow path raises no exception. */
static __always_inline int is_refused(struct task_struct* task, unsigned long error_code,
                                      __u32 mode) {
  return error_code & PF_KEY || (mode == PENDING_KERNEL && task->pagefault_disabled);
}

/* Private huge pages of hugetlbfs come from a pool, so no allocation shows a copy.  What the kernel
 * will do is found before it does it.  If no page is mapped, the file's page may be copied
 * (hugetlb_no_page, mm/hugetlb.c): it counts as copied if the file has any page.  Returns the
 * number of small pages copied, of which the caller takes samples: here the stack of Linux 6.1 has
 * no room. */
static __noinline int count_hugetlb(struct thread_state* thread, __u64 address, __u32 mode) {
  struct pending_fault* fault = &thread->pending;
  if ((fault->traits & (MAPPING_WRITABLE | MAPPING_SHARED)) != MAPPING_WRITABLE) return 0;
  __u32 fate = cached_pages(thread) ? PAGE_OF_FILE_COPIED : PAGE_REUSED;
  if (fault->protection) fate = fate_of_page(address);
  if (fate == PAGE_REUSED && fault->protection) return 0;
  __u32 bits = BPF_CORE_READ(inode_of(thread), i_blkbits);
  __u32 pages = bits > PAGE_SHIFT ? 1U << ((bits - PAGE_SHIFT) & 31) : PAGES_OF_HUGE;
  thread->address = address;
  fault->mode = mode;
  if (fate == PAGE_REUSED) {
    thread->counts.zero_filled_pages += pages;
    thread->counts.filled_hugetlb += pages;
    fault->fault_class = COWSHED_ZERO_FILLED;
    sample_large(thread, pages);
    return 0;
  }
  thread->counts.copied_hugetlb_pages += pages;
  if (fate == PAGE_OF_FILE_COPIED) {
    thread->counts.copied_hugetlb_file += pages;
    if (fault->traits & MAPPING_ARENA) count_arena(thread, pages, 0);
  }
  note_copies(thread, pages);
  return pages;
}

static __always_inline int enter_write_fault(struct thread_state* thread, struct task_struct* task,
                                             unsigned long address, struct pt_regs* regs,
                                             unsigned long error_code, __u32 mode) {
  begin_update(thread);
  if (thread->exited) take_back(thread);
  end_fault_without_page(thread);
  thread->counts.write_faults++;
  if (is_refused(task, error_code, mode)) {
    count_class(thread, COWSHED_FAILED);
  } else if (begin_fault(thread, address, error_code, mapping_traits(thread, address))) {
    thread->pending.mode = mode;
    if (mode == PENDING_USER) thread->pending.ip = regs->ip;
    else save_kernel_fault(thread, task, regs);
  } else if (thread->pending.traits & MAPPING_HUGETLB) {
    sample_copies(thread, count_hugetlb(thread, address, mode));
    thread->pending.mode = PENDING_NONE;
  }
  end_update(thread);
  if (thread->exited) flush_after_exit(thread, task);
  return 0;
}

static __always_inline int enter_fault(unsigned long address, struct pt_regs* regs,
                                       unsigned long error_code, __u32 mode) {
  /* The kernel handles every access by a shadow stack's instructions as a write
   * (arch/x86/mm/fault.c). */
  int is_write = (error_code & (PF_WRITE | PF_SHADOW_STACK)) != 0;
  if (mode == PENDING_KERNEL && (!is_write || address >> 63)) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread) return 0;
  if (may_miss() && thread->program != (__u64)task->mm)
    begin_program(thread, (__u64)task->mm, &task->comm);
  if (!is_write) return enter_read_fault(thread);
  return enter_write_fault(thread, task, address, regs, error_code, mode);
}

SEC("tp_btf/page_fault_user")
int on_user_fault(__u64* context) {
  return enter_fault(context[0], (struct pt_regs*)context[1], context[2], PENDING_USER);
}

SEC("tp_btf/page_fault_kernel")
int on_kernel_fault(__u64* context) {
  return enter_fault(context[0], (struct pt_regs*)context[1], context[2], PENDING_KERNEL);
}

/* 3. Copy. */

static __always_inline void count_copy(struct thread_state* thread) {
  struct pending_fault* fault = &thread->pending;
  if (fault->traits & MAPPING_MERGEABLE && was_merged(thread->address))
    thread->counts.copied_merged++;
  else note_copies(thread, 1);
  if (was_split(thread)) thread->counts.huge_splits++;
  if (fault->fault_class == COWSHED_COPIED_FILE)
    count_file_copy(thread, fault->protection && was_written(thread->address));
  sample_copy(thread);
}

static __always_inline void end_fault_with_page(struct thread_state* thread, __u32 order,
                                                __u32 gfp) {
  __u32 fault_class = class_with_page(thread, order, gfp);
  if (fault_class == COWSHED_CLASSES) return; /* the fault is still pending */
  thread->pending.fault_class = fault_class;
  if (fault_class == COWSHED_ZERO_FILLED)
    count_zero_filled(&thread->pending, &thread->counts, 1ULL << (order & 31));
  sample_fresh(thread, fault_class, 1U << (order & 31));
  if (fault_class <= COWSHED_COPIED_FILE) count_copy(thread);
  end_fault(thread);
}

/* Reclaim allocates for itself while a fault waits for it. */
static __always_inline int in_reclaim(struct task_struct* task) {
  return task->flags & PF_MEMALLOC;
}

SEC("tp_btf/mm_page_alloc")
int on_page_alloc(__u64* context) {
  __u32 order = context[1];
  __u32 gfp = context[2];
  if (!can_be_for_fault((const void*)context[0], order, gfp)) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread || thread->pending.mode == PENDING_NONE || in_reclaim(task)) return 0;
  int is_for_fault = in_pending_fault(thread, task, context);
  begin_update(thread);
  if (is_for_fault) {
    if (thread->exited) take_back(thread);
    end_fault_with_page(thread, order, gfp);
  }
  end_update(thread);
  if (is_for_fault && thread->exited) flush_after_exit(thread, task);
  return 0;
}

static __always_inline int is_kept_by_parent(struct thread_state* thread, struct task_struct* task,
                                             __u64 address) {
  struct vm_area_struct* vma = mapping_at(thread, task->real_parent->mm, address);
  return vma && BPF_CORE_READ(vma, vm_flags) & VM_DONTCOPY;
}

/* The address is mapped, but not for this access. */
static __always_inline __u32 why_not_permitted(struct thread_state* thread,
                                               struct task_struct* task, __u64 address, __u64 ip) {
  struct vm_area_struct* vma = mapping_at(thread, task->mm, address);
  if (!vma) return COWSHED_OTHER_FAILURE;
  __u64 flags = BPF_CORE_READ(vma, vm_flags);
  if (address == ip) return flags & VM_EXEC ? COWSHED_OTHER_FAILURE : COWSHED_NOT_EXECUTABLE;
  if (flags & VM_WRITE) return COWSHED_OTHER_FAILURE;
  return flags & VM_READ ? COWSHED_READ_ONLY : COWSHED_NO_ACCESS;
}

static __always_inline int is_handled(struct task_struct* task, int signal) {
  if (signal == SIGBUS) return BPF_CORE_READ(task, sighand, action[SIGBUS - 1].sa.sa_handler) != 0;
  return BPF_CORE_READ(task, sighand, action[SIGSEGV - 1].sa.sa_handler) != 0;
}

#define SEGV_MAPERR 1
#define SEGV_ACCERR 2

static __always_inline __u32 failure_of(struct thread_state* thread, const struct signal_info* info,
                                        __u64 ip) {
  struct task_struct* task = bpf_get_current_task_btf();
  if (info->number == SIGBUS) return COWSHED_NO_PAGE;
  if (info->code == SEGV_ACCERR) return why_not_permitted(thread, task, info->address, ip);
  if (info->code != SEGV_MAPERR) return COWSHED_OTHER_FAILURE;
  if (is_kept_by_parent(thread, task, info->address)) return COWSHED_NOT_INHERITED;
  /* In a mapping: a guard page (MADV_GUARD_INSTALL). */
  return mapping_at(thread, task->mm, info->address) ? COWSHED_NO_ACCESS : COWSHED_NOT_MAPPED;
}

/* The kernel raises SIGSEGV or SIGBUS inside a fault that fails: the access hit a guard page, an
 * address beyond the end of a file, or no mapping. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int signal, const void* info, struct task_struct* task) {
  if ((signal != SIGSEGV && signal != SIGBUS) || task != bpf_get_current_task_btf()) return 0;
  struct thread_state* thread = state_of(task);
  struct signal_info what;
  if (!thread || bpf_probe_read_kernel(&what, sizeof what, info) || what.code <= 0) return 0;
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  begin_update(thread);
  if (thread->pending.mode == PENDING_USER && entry->ip == thread->pending.ip &&
      entry->orig_ax == ~0UL) {
    thread->pending.fault_class = COWSHED_FAILED;
    end_fault(thread);
  }
  int handled = is_handled(task, signal);
  if (thread->pending.mode == PENDING_NONE && wants_failure(thread, handled))
    sample_failure(thread, what.address, failure_of(thread, &what, entry->ip), handled);
  end_update(thread);
  return 0;
}

/* The number of pages that a collapse found missing, by the ID of the thread that collapses. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 4096);
  __type(key, __u32);
  __type(value, __u32);
} collapses SEC(".maps");

#define SCAN_SUCCEED 1 /* mm/khugepaged.c */

SEC("tp_btf/mm_collapse_huge_page_isolate")
int BPF_PROG(on_isolate, void* page, int missing) {
  __u32 thread = bpf_get_current_pid_tgid();
  __u32 pages = missing;
  bpf_map_update_elem(&collapses, &thread, &pages, BPF_ANY);
  return 0;
}

/* MADV_COLLAPSE or khugepaged copies the pages of 2 MiB, or since 7.2 of less, into one large page
 * of the process, without a fault.  Context: mm, whether it was isolated, the status, the order. */
SEC("tp_btf/mm_collapse_huge_page")
int on_collapse(__u64* context) {
  struct mm_struct* mm = (struct mm_struct*)context[0];
  __u32 pages = has_collapse_order ? 1U << (context[3] & 31) : PAGES_OF_HUGE;
  __u32 thread = bpf_get_current_pid_tgid();
  __u32* missing = bpf_map_lookup_elem(&collapses, &thread);
  struct task_struct* owner = BPF_CORE_READ(mm, owner);
  if ((int)context[2] != SCAN_SUCCEED || !missing || *missing > pages || !owner) return 0;
  struct cowshed_key key = {};
  fill_key(&key, owner);
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  if (process) {
    begin_record_change();
    __sync_fetch_and_add(&process->collapsed_pages, pages - *missing);
    end_record_change();
  }
  return 0;
}

/* The loader reads the counters of live threads. */

#define READ_ATTEMPTS 16

struct reading {
  struct thread_state* thread;
  struct task_struct* task;
  struct page_view now;
  struct cowshed_thread_record record;
};

/* Returns 1, which ends the loop, if the thread has changed nothing meanwhile. */
static long read_counts(__u32 attempt, struct reading* reading) {
  struct thread_state* thread = reading->thread;
  struct cowshed_thread_record* record = &reading->record;
  __u64 before = *(volatile __u64*)&thread->update_end;
  compiler_barrier();
  record->counts = thread->counts;
  record->pending = thread->pending.mode != PENDING_NONE;
  if (record->pending && has_left_fault(thread, reading->task)) {
    __u32 fault_class = thread->pending.fault_class;
    if (may_have_missed(thread, reading->task)) {
      view_again(thread, reading->task, &reading->now);
      fault_class = class_by_page(thread, &reading->now);
    }
    if (fault_class < COWSHED_CLASSES) {
      record->pending = 0;
      ++*class_count(&record->counts, fault_class);
      count_page(thread, fault_class, &reading->now, &record->counts);
    }
  }
  compiler_barrier();
  record->is_torn = before != *(volatile __u64*)&thread->update_begin;
  return !record->is_torn;
}

SEC("iter/task")
int dump_threads(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (!task) return 0;
  struct thread_state* thread = state_of(task);
  if (!thread || thread->exited) return 0;
  if (may_miss() && task->exit_state) return count_exit(thread, task);
  struct reading reading = {.thread = thread, .task = task};
  bpf_loop(READ_ATTEMPTS, read_counts, &reading, 0);
  struct cowshed_thread_record* record = &reading.record;
  record->key = thread->key;
  record->is_leader = task->pid == task->tgid;
  bpf_probe_read_kernel(record->comm, sizeof record->comm, &task->comm);
  bpf_seq_write(ctx->meta->seq, record, sizeof *record);
  return 0;
}
