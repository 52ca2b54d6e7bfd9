/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts what write faults do.  A fault is an exception (page_fault_user, page_fault_kernel) and,
 * if it needs a page, an allocation (mm_page_alloc) before the thread does anything else.  So an
 * exception with the write bit makes the thread's fault *pending*; an allocation that provably
 * belongs to it decides its class; and without one its class is what the mapping said at entry,
 * settled at the thread's next event.  Everything else is lineage: which threads are tracked. */

#include "copy_sample.bpf.h"
#include "lineage.bpf.h"
#include "page_table.bpf.h"
#include "vma_lookup.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void settle(struct thread_state* thread) {
  if (thread->pending.mode != PENDING_NONE) {
    thread->counts.faults[thread->pending.outcome & (COWSHED_CLASSES - 1)]++;
    thread->pending.mode = PENDING_NONE;
  }
}

/* The class of a fault that allocates nothing. */
static __always_inline __u32 outcome_without_page(__u32 traits, __u32 protection) {
  /* Where nothing is mapped, unless the stack grows: then it allocates. */
  if (traits && !(traits & MAPPING_WRITABLE)) return COWSHED_FAILED;
  if (traits & (MAPPING_HUGETLB | MAPPING_UFFD_WP)) return COWSHED_OTHER;
  if (!protection) return COWSHED_OTHER;
  if (traits & MAPPING_SHARED) return COWSHED_WRITE_NOTIFY;
  return COWSHED_REUSED;
}

/* Whether no allocation can change the class.  The file system may well allocate while it makes a
 * page of a shared mapping writable; and the kernel allocates a page for an anonymous mapping
 * before it finds out that userfaultfd is to give one. */
static __always_inline int is_final(__u32 traits, __u32 protection) {
  if (!traits || traits & MAPPING_ABSENT) return 0;
  if (!(traits & MAPPING_WRITABLE)) return 1;
  if (traits & MAPPING_HUGETLB) return 1;
  if (!protection && traits & MAPPING_UFFD_MISSING) return !(traits & MAPPING_FILE);
  return protection && traits & MAPPING_SHARED;
}

/* This CPU's count of THP_SPLIT_PMD.  Per-CPU variables have no symbol that we may resolve unless
 * the kernel was built with KALLSYMS_ALL; but the run queue of the task is one, and BTF says how
 * far apart the two lie. */
static __always_inline __u64 split_count(struct task_struct* task) {
  __u64 count = 0;
  if (bpf_core_enum_value_exists(enum vm_event_item, THP_SPLIT_PMD) &&
      bpf_core_field_exists(task->se.cfs_rq)) {
    __u64 at = (__u64)task->se.cfs_rq->rq + (__u64)vm_events_from_runqueue +
               bpf_core_enum_value(enum vm_event_item, THP_SPLIT_PMD) * sizeof(unsigned long);
    bpf_probe_read_kernel(&count, sizeof count, (void*)at);
  }
  return count;
}

/* The kernel splits a huge page on the way to copying 4 KiB of it and counts that per CPU.  The
 * count is ours if no other task has run in between: no context switch, and so the same CPU.  Once
 * one 4 KiB of a huge page's place has been copied, the others are small too, until a writer of the
 * address space (a collapse, a fork) gives it a new generation and `mapping` is looked up again. */
static __noinline int begin_split(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  thread->details.switches = task->nvcsw + task->nivcsw;
  thread->details.splits = split_count(task);
  return 0;
}

static __always_inline void watch_split(struct thread_state* thread, __u64 address) {
  struct pending_fault* fault = &thread->pending;
  fault->may_split = vm_events_from_runqueue && fault->protection &&
                     fault->traits & MAPPING_MAY_BE_HUGE &&
                     address >> 21 != thread->mapping.small_block;
  if (fault->may_split) begin_split(thread);
}

static __noinline int end_split(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct fault_details* details = &thread->details;
  thread->mapping.small_block = thread->address >> 21;
  return details->switches == task->nvcsw + task->nivcsw && details->splits != split_count(task);
}

/* Tells a system call from the next. */
static __always_inline __u64 call_identity(struct pt_regs* entry) {
  return entry->orig_ax ^ entry->sp ^ (entry->di << 12) ^ (entry->si << 20);
}

static __always_inline int was_split(struct thread_state* thread) {
  if (!thread->pending.may_split) return 0;
  return end_split(thread);
}

/* Of a thread on its way out of its address space.  Nothing may follow, so its pending fault is
 * counted at once, and counted again if there is an allocation. */
static __always_inline void flush_after_exit(struct thread_state* thread,
                                             struct task_struct* task) {
  __u8 pending = thread->pending.mode;
  settle(thread);
  flush(thread, task);
  thread->pending.mode = pending;
}

/* Whether the fault's class is still open, and then it is pending once it has a mode. */
static __always_inline int is_open(struct thread_state* thread, __u64 address,
                                   unsigned long error_code, __u32 traits) {
  struct pending_fault* fault = &thread->pending;
  fault->protection = (error_code & PF_PROTECTION) != 0;
  fault->traits = traits;
  fault->outcome = outcome_without_page(traits, fault->protection);
  if (is_final(traits, fault->protection)) {
    thread->counts.faults[fault->outcome & (COWSHED_CLASSES - 1)]++;
    return 0;
  }
  thread->address = address;
  watch_split(thread, address);
  return 1;
}

static __always_inline int enter_fault(unsigned long address, struct pt_regs* regs,
                                       unsigned long error_code, __u32 mode) {
  /* Every access by a shadow stack's instructions is handled as a write (arch/x86/mm/fault.c). */
  int is_write = (error_code & (PF_WRITE | PF_SHADOW_STACK)) != 0;
  if (mode == PENDING_KERNEL && (!is_write || address >> 63)) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread) return 0;
  if (!is_write) {
    /* What it allocates is not the earlier fault's. */
    if (thread->pending.mode != PENDING_NONE) {
      begin_update(thread);
      settle(thread);
      end_update(thread);
    }
    return 0;
  }
  begin_update(thread);
  if (thread->exited) thread->pending.mode = PENDING_NONE; /* it has been counted, see below */
  settle(thread);
  thread->counts.write_faults++;
  /* With page faults disabled the kernel gives up at once, and takes its slow path instead, which
   * raises no exception. */
  if (error_code & PF_KEY || (mode == PENDING_KERNEL && task->pagefault_disabled)) {
    thread->counts.faults[COWSHED_FAILED]++;
  } else if (is_open(thread, address, error_code, mapping_traits(thread, address))) {
    thread->pending.mode = mode;
    if (mode == PENDING_USER) {
      thread->pending.ip = regs->ip;
    } else {
      struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
      thread->pending.ip = entry->ip;
      thread->details.call = call_identity(entry);
      thread->details.frame = (__u64)regs;
      bpf_probe_read_kernel(thread->frame, sizeof thread->frame,
                            (void*)(thread->details.frame - sizeof(__u64)));
    }
  }
  end_update(thread);
  if (thread->exited) flush_after_exit(thread, task);
  return 0;
}

SEC("tp_btf/page_fault_user")
int on_user_fault(__u64* context) {
  return enter_fault(context[0], (struct pt_regs*)context[1], context[2], PENDING_USER);
}

SEC("tp_btf/page_fault_kernel")
int on_kernel_fault(__u64* context) {
  return enter_fault(context[0], (struct pt_regs*)context[1], context[2], PENDING_KERNEL);
}

static __always_inline int frame_is_live(struct thread_state* thread) {
  __u64 now[FRAME_WORDS];
  if (bpf_probe_read_kernel(now, sizeof now, (void*)(thread->details.frame - sizeof(__u64))))
    return 0;
  __u64 difference = 0;
  for (int i = 0; i < FRAME_WORDS; i++) difference |= now[i] ^ thread->frame[i];
  return !difference;
}

static __always_inline int has_user_fault_flag(void) {
  return bpf_core_field_exists(struct task_struct, in_user_fault);
}

/* What is allocated then is not the fault's that had to wait for it. */
static __always_inline int in_reclaim(struct task_struct* task) {
  return task->flags & PF_MEMALLOC;
}

static __always_inline int in_user_fault(struct task_struct* task) {
  return BPF_CORE_READ_BITFIELD(task, in_user_fault);
}

/* Whether we are still inside the pending fault.  In one from user mode, of which ours is the
 * thread's last, handle_mm_fault (mm/memory.c) keeps in_user_fault set where memory cgroups are
 * configured; and it left its instruction pointer, and no system call number, in the task's entry
 * registers, which costs a call more to ask.  A fault from kernel mode left
 * its registers in the middle of the stack: they are whole while it lasts, we run below them, and
 * afterwards other calls overwrite them; not always all of them (3 times in 1,000 where each fault
 * was followed by a write to a memfd), so the entry registers must be those of the same call, too.
 * The context of a program lies on the stack of its event. */
static __always_inline int in_pending_fault(struct thread_state* thread, struct task_struct* task,
                                            const void* context) {
  struct pending_fault* fault = &thread->pending;
  if (fault->mode == PENDING_USER && has_user_fault_flag()) return in_user_fault(task);
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  if (entry->ip != fault->ip) return 0;
  if (fault->mode == PENDING_USER) return entry->orig_ax == ~0UL;
  struct fault_details* details = &thread->details;
  __u64 stack = number(&details->stack, context);
  return stack < details->frame && call_identity(entry) == details->call && frame_is_live(thread);
}

static __noinline int count_arena(struct thread_state* thread) {
  struct cowshed_arena_key key = {.process = thread->key, .inode = thread->arena.inode};
  struct cowshed_arena* arena = bpf_map_lookup_elem(&arenas, &key);
  if (!arena) {
    struct cowshed_arena fresh = {};
    __builtin_memcpy(fresh.name, thread->arena.name, sizeof fresh.name);
    bpf_map_update_elem(&arenas, &key, &fresh, BPF_NOEXIST);
    __sync_fetch_and_add(&arenas_added, 1);
    arena = bpf_map_lookup_elem(&arenas, &key);
  }
  if (arena) __sync_fetch_and_add(&arena->copied_pages, 1);
  else __sync_fetch_and_add(&losses.arenas, 1);
  return 0;
}

/* Of a write to a private page that is not there, for which the kernel allocates a page that it
 * does not fill with zeros.  COWSHED_CLASSES: that page is not what it was for, so the fault is
 * still pending. */
static __noinline __u32 outcome_with_absent_page(struct thread_state* thread, __u32 order) {
  __u32 traits = thread->pending.traits;
  __u32 entry = page_entry(thread->address);
  /* A page that the fault has fetched from swap, and now copies, since others have it too. */
  if (entry == ENTRY_PRESENT)
    return traits & MAPPING_FILE ? COWSHED_COPIED_FILE : COWSHED_COPIED_ANON;
  if (entry == ENTRY_SWAP || entry == ENTRY_PROT_NONE) return COWSHED_CLASSES;
  if (entry == ENTRY_UNKNOWN) thread->counts.vma_misses++;
  if (traits & MAPPING_FILE) {
    /* The kernel takes a page before it asks the file for what to copy (do_cow_fault). */
    return is_beyond_file(thread) ? COWSHED_FAILED : COWSHED_COPIED_FILE;
  }
  return order ? COWSHED_ZERO_FILLED : COWSHED_OTHER; /* a huge page is cleared later */
}

#define LOOKS_AT_MAPPING 8

/* The mapping was not found when the fault entered, as while another thread maps or unmaps.  Now
 * the kernel holds on to it. */
static __noinline int look_again(struct thread_state* thread) {
  struct pending_fault* fault = &thread->pending;
  for (int i = 0; i < LOOKS_AT_MAPPING && !(fault->traits & MAPPING_FOUND); i++) {
    if (!fault->traits) thread->counts.vma_misses--;
    fault->traits = mapping_traits(thread, thread->address);
  }
  return 0;
}

static __always_inline __u32 outcome_with_page(struct thread_state* thread, __u32 order,
                                               __u32 gfp) {
  struct pending_fault* fault = &thread->pending;
  if (!(fault->traits & MAPPING_FOUND)) look_again(thread);
  __u32 traits = fault->traits;
  if (fault->protection) {
    __u32 copied = traits & MAPPING_FILE ? COWSHED_COPIED_FILE : COWSHED_COPIED_ANON;
    return gfp & gfp_zero || order ? COWSHED_ZERO_PAGE_WRITE : copied;
  }
  if (gfp & gfp_zero) return COWSHED_ZERO_FILLED;
  if (traits & MAPPING_ABSENT) return COWSHED_FAILED; /* of the file that a core is dumped into */
  if (traits & MAPPING_SHARED) return traits & MAPPING_SHMEM ? COWSHED_ZERO_FILLED : COWSHED_OTHER;
  return outcome_with_absent_page(thread, order);
}

static __always_inline int may_be_for_fault(const void* page, __u32 order, __u32 gfp) {
  if (!(gfp & gfp_movable) || !page) return 0;
  /* What a read ahead or a write(2) asks for is a page of the page cache. */
  if (!order && gfp & gfp_page_cache) return 0;
  return 1;
}

static __always_inline void allocate(struct thread_state* thread, __u32 order, __u32 gfp,
                                     int is_for_fault) {
  begin_update(thread);
  if (is_for_fault) {
    struct pending_fault* fault = &thread->pending;
    __u32 outcome = outcome_with_page(thread, order, gfp);
    if (outcome == COWSHED_CLASSES) {
      end_update(thread);
      return;
    }
    fault->outcome = outcome;
    if (outcome == COWSHED_ZERO_FILLED) thread->counts.zero_filled_pages += 1ULL << (order & 31);
    if (outcome <= COWSHED_COPIED_FILE) {
      if (was_split(thread)) thread->counts.huge_splits++;
      if (outcome == COWSHED_COPIED_FILE && fault->traits & MAPPING_ARENA) count_arena(thread);
      sample_copy(thread);
    }
    settle(thread);
  }
  end_update(thread);
}

SEC("tp_btf/mm_page_alloc")
int on_page_alloc(__u64* context) {
  __u32 order = context[1];
  __u32 gfp = context[2];
  if (!may_be_for_fault((const void*)context[0], order, gfp)) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread || thread->pending.mode == PENDING_NONE || in_reclaim(task)) return 0;
  int is_for_fault = in_pending_fault(thread, task, context);
  if (is_for_fault && thread->exited)
    thread->counts.faults[thread->pending.outcome & (COWSHED_CLASSES - 1)]--;
  allocate(thread, order, gfp, is_for_fault);
  if (is_for_fault && thread->exited) flush_after_exit(thread, task);
  return 0;
}

/* sched_process_fork leaves out the threads that the kernel adds to a process: io_uring's, vhost's.
 */
SEC("tp_btf/task_newtask")
int BPF_PROG(on_new_task, struct task_struct* child) {
  struct task_struct* parent = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(parent);
  if (!thread) return 0;
  struct cowshed_key key = {};
  fill_key(&key, child);
  if (child->tgid != parent->tgid) {
    struct cowshed_process* creator = bpf_map_lookup_elem(&processes, &thread->key);
    __u64 parent_id = creator ? creator->id : 0;
    __u32 flags = COWSHED_FORK_SEEN;
    __u64 shared = 0;
    if (child->mm == parent->mm) flags = COWSHED_SHARES_MEMORY;
    else shared = anonymous_bytes(parent);
    if (add_process(child, &key, parent_id, flags, shared, 0) < 0) return 0;
  }
  if (!add_thread(child, &key, 0) && child->tgid != parent->tgid)
    bpf_map_delete_elem(&processes, &key);
  return 0;
}

/* An exec names the thread as soon as it has its new address space.  The pages that it copies
 * there, before sched_process_exec, are the new program's. */
SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct* task, const char* comm) {
  if (task != bpf_get_current_task_btf()) return 0;
  struct thread_state* thread = state_of(task);
  if (!thread || thread->program == (__u64)task->mm) return 0;
  thread->program = (__u64)task->mm;
  begin_update(thread);
  settle(thread);
  thread->mapping.mm = 0; /* the next address space may lie where an older one lay */
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &thread->key);
  if (process) {
    struct cowshed_counts* counts = &thread->counts;
    if (thread->await_exec) {
      thread->await_exec = 0;
      __builtin_memset(counts, 0, sizeof *counts);
    }
    begin_record_change();
    process->execs++;
    process->copied_before_exec =
        counts->faults[COWSHED_COPIED_ANON] + counts->faults[COWSHED_COPIED_FILE] +
        process->counts.faults[COWSHED_COPIED_ANON] + process->counts.faults[COWSHED_COPIED_FILE];
    bpf_probe_read_kernel_str(process->comm, sizeof process->comm, comm);
    end_record_change();
  }
  end_update(thread);
  return 0;
}

/* The kernel raises this signal within the fault that failed: the store hit a guard page, a place
 * beyond the end of a file, or no mapping. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int signal, struct kernel_siginfo* info, struct task_struct* task) {
  if ((signal != SIGSEGV && signal != SIGBUS) || task != bpf_get_current_task_btf()) return 0;
  struct thread_state* thread = state_of(task);
  int code = 0;
  /* Above 0: the kernel's own. */
  if (!thread || thread->pending.mode != PENDING_USER ||
      bpf_probe_read_kernel(&code, sizeof code,
                            (void*)info + bpf_core_field_offset(struct kernel_siginfo, si_code)) ||
      code <= 0) {
    return 0;
  }
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  if (entry->ip == thread->pending.ip && entry->orig_ax == ~0UL) {
    begin_update(thread);
    thread->pending.outcome = COWSHED_FAILED;
    settle(thread);
    end_update(thread);
  }
  return 0;
}

/* How many pages a collapse found missing, by the thread that does it. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 4096);
  __type(key, __u32);
  __type(value, __u32);
} collapses SEC(".maps");

#define SCAN_SUCCEED 1 /* mm/khugepaged.c */
#define PAGES_OF_HUGE 512

SEC("tp_btf/mm_collapse_huge_page_isolate")
int BPF_PROG(on_isolate, void* page, int missing) {
  __u32 thread = bpf_get_current_pid_tgid();
  __u32 pages = missing;
  bpf_map_update_elem(&collapses, &thread, &pages, BPF_ANY);
  return 0;
}

/* MADV_COLLAPSE, or khugepaged: the pages of 2 MiB become one of the process's own, without a
 * fault. */
SEC("tp_btf/mm_collapse_huge_page")
int BPF_PROG(on_collapse, struct mm_struct* mm, int isolated, int status) {
  __u32 thread = bpf_get_current_pid_tgid();
  __u32* missing = bpf_map_lookup_elem(&collapses, &thread);
  struct task_struct* owner = BPF_CORE_READ(mm, owner);
  if (status != SCAN_SUCCEED || !missing || *missing > PAGES_OF_HUGE || !owner) return 0;
  struct cowshed_key key = {};
  fill_key(&key, owner);
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  if (process) {
    begin_record_change();
    __sync_fetch_and_add(&process->collapsed_pages, PAGES_OF_HUGE - *missing);
    end_record_change();
  }
  return 0;
}

struct cpu_number {
  __u64 cpu;
};

/* Run by the loader for each CPU that is online. */
SEC("syscall")
int add_cpu(struct cpu_number* number) {
  __u64 shift = percpu_shift(number->cpu);
  __u32 part = percpu_parts;
  if (shift && part < MOST_CPUS) {
    percpu_shifts[part & (MOST_CPUS - 1)] = shift;
    percpu_parts = part + 1;
  }
  return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct* task) {
  struct thread_state* thread = state_of(task);
  if (thread) {
    begin_update(thread);
    settle(thread);
    end_update(thread);
    flush(thread, task);
  }
  return 0;
}

/* Whether a thread's pending fault is over although nothing has happened since. */
static __always_inline int has_left_fault(struct thread_state* thread, struct task_struct* task) {
  struct pending_fault* fault = &thread->pending;
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  if (entry->ip != fault->ip) return 1;
  if (fault->mode == PENDING_USER) return entry->orig_ax != ~0UL;
  return (!task->on_cpu && task->thread.sp > thread->details.frame) ||
         call_identity(entry) != thread->details.call || !frame_is_live(thread);
}

#define READ_ATTEMPTS 16

struct reading {
  struct thread_state* thread;
  struct task_struct* task;
  struct cowshed_thread_record record;
};

/* Returns 1 when the thread has changed nothing meanwhile, which ends the loop. */
static long read_counts(__u32 attempt, struct reading* reading) {
  struct thread_state* thread = reading->thread;
  struct cowshed_thread_record* record = &reading->record;
  __u64 before = *(volatile __u64*)&thread->update_end;
  compiler_barrier();
  record->counts = thread->counts;
  record->pending = thread->pending.mode != PENDING_NONE;
  if (record->pending && has_left_fault(thread, reading->task)) {
    record->pending = 0;
    record->counts.faults[thread->pending.outcome & (COWSHED_CLASSES - 1)]++;
  }
  compiler_barrier();
  return before == *(volatile __u64*)&thread->update_begin;
}

SEC("iter/task")
int dump_threads(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (!task) return 0;
  struct thread_state* thread = state_of(task);
  if (!thread || thread->exited) return 0;
  struct reading reading = {.thread = thread, .task = task};
  bpf_loop(READ_ATTEMPTS, read_counts, &reading, 0);
  struct cowshed_thread_record* record = &reading.record;
  record->key = thread->key;
  record->is_leader = task->pid == task->tgid;
  bpf_probe_read_kernel(record->comm, sizeof record->comm, &task->comm);
  bpf_seq_write(ctx->meta->seq, record, sizeof *record);
  return 0;
}

#define MOST_ANCESTORS 64

static __always_inline struct cowshed_root* as_root(struct task_struct* task) {
  __u32 pid = tgid_here(task);
  return bpf_map_lookup_elem(&roots, &pid);
}

struct descent {
  struct task_struct* task;
  __u32 loader;
  __u32 is_found;
};

static __always_inline int ends_descent(struct descent* descent, struct task_struct* task) {
  if (!BPF_CORE_READ(task, pid) || BPF_CORE_READ(task, tgid) == descent->loader) return 1;
  descent->task = BPF_CORE_READ(task, real_parent);
  return 0;
}

static long climb(__u32 level, struct descent* descent) {
  struct task_struct* task = descent->task;
  struct cowshed_root* root = as_root(task);
  if (root && root->is_found) { /* if it is met later, the next round comes here */
    descent->is_found = 1;
    return 1;
  }
  return ends_descent(descent, task);
}

/* Of a task that is no root. */
static __always_inline int descends_from_root(struct task_struct* task, __u32 loader) {
  struct descent descent = {.loader = loader};
  if (!ends_descent(&descent, task)) bpf_loop(MOST_ANCESTORS, climb, &descent, 0);
  return descent.is_found;
}

SEC("iter/task")
int adopt(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (!task || adoption.mode == COWSHED_ADOPT_NOTHING) return 0;
  struct task_struct* self = bpf_get_current_task_btf();
  pid_level = BPF_CORE_READ(self, thread_pid, level);
  struct signal_struct* signal = task->signal;
  if (!task->mm || !signal || !BPF_CORE_READ(signal, live.counter))
    return 0; /* a kernel thread, or ending */
  struct cowshed_root* root = as_root(task);
  if (root) root->is_found = 1;
  else if (adoption.mode != COWSHED_ADOPT_TREES) return 0;
  /* The loader, and whom it started, only where they are named. */
  if (state_of(task) || !(root || descends_from_root(task, self->tgid))) return 0;
  struct cowshed_key key = {};
  fill_key(&key, task);
  struct cowshed_key parent_key = {};
  fill_key(&parent_key, BPF_CORE_READ(task, group_leader, real_parent));
  struct cowshed_process* parent = bpf_map_lookup_elem(&processes, &parent_key);
  __u64 parent_id = parent ? parent->id : 0;
  int added = add_process(task, &key, parent_id, root ? COWSHED_ROOT : 0, 0, 1);
  if (added < 0) return 0;
  adoption.processes += added;
  adoption.threads += add_thread(task, &key, adoption.mode == COWSHED_ADOPT_COMMAND);
  return 0;
}
