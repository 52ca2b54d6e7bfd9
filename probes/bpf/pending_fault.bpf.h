/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "missed_page.bpf.h"

/* The state of a thread's write fault:
 *
 *   PENDING_NONE --exception--> PENDING_USER or PENDING_KERNEL --its page, its signal, or the
 *   thread's next event--> PENDING_NONE, and the fault is counted in its class. */

/* The verifier takes the mask as proof of the index's bound. */
static __always_inline __u64* class_count(struct cowshed_counts* counts, __u32 fault_class) {
  _Static_assert((COWSHED_CLASSES & (COWSHED_CLASSES - 1)) == 0,
                 "not a power of two: bound the index here by another proof than a mask");
  return &counts->faults[fault_class & (COWSHED_CLASSES - 1)];
}

static __always_inline void count_class(struct thread_state* thread, __u32 fault_class) {
  ++*class_count(&thread->counts, fault_class);
}

static __always_inline void end_fault(struct thread_state* thread) {
  if (thread->pending.mode != PENDING_NONE) {
    count_class(thread, thread->pending.fault_class);
    thread->pending.mode = PENDING_NONE;
  }
}

/* The same, if no allocation of the fault was seen. */
static __always_inline void end_fault_without_page(struct thread_state* thread) {
  if (may_miss() && thread->pending.mode != PENDING_NONE) settle_missed_page(thread);
  end_fault(thread);
}

/* For a thread that is leaving its address space.  Perhaps no event follows, so its pending fault
 * is counted now.  If an allocation follows, that count is taken back. */
static __always_inline void flush_after_exit(struct thread_state* thread,
                                             struct task_struct* task) {
  __u8 pending = thread->pending.mode;
  end_fault(thread);
  flush_counts(thread, task);
  thread->pending.mode = pending;
}

/* What flush_after_exit() has counted. */
static __always_inline void take_back(struct thread_state* thread) {
  if (thread->pending.mode != PENDING_NONE)
    --*class_count(&thread->counts, thread->pending.fault_class);
}

/* Returns whether the fault's class is still open.  Then the caller sets its mode. */
static __always_inline int begin_fault(struct thread_state* thread, __u64 address,
                                       unsigned long error_code, __u32 traits) {
  struct pending_fault* fault = &thread->pending;
  fault->protection = (error_code & PF_PROTECTION) != 0;
  fault->traits = traits;
  fault->fault_class = class_without_page(traits, fault->protection);
  if (is_class_final(traits, fault->protection)) {
    count_class(thread, fault->fault_class);
    return 0;
  }
  thread->address = address;
  watch_split(thread, address);
  remember_page(thread);
  return 1;
}

/* Tells one system call from the next. */
static __always_inline __u64 call_identity(struct pt_regs* entry) {
  return entry->orig_ax ^ entry->sp ^ (entry->di << 12) ^ (entry->si << 20);
}

static __always_inline void save_kernel_fault(struct thread_state* thread, struct task_struct* task,
                                              struct pt_regs* regs) {
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  thread->pending.ip = entry->ip;
  thread->details.call = call_identity(entry);
  thread->details.frame = (__u64)regs;
  bpf_probe_read_kernel(thread->frame, sizeof thread->frame,
                        (void*)(thread->details.frame - sizeof(__u64)));
}

/* A call, so that its copy is on the stack only meanwhile. */
static __noinline int frame_is_live(struct thread_state* thread) {
  if (!thread) return 0;
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

static __always_inline int in_user_fault(struct task_struct* task) {
  return BPF_CORE_READ_BITFIELD(task, in_user_fault);
}

/* Whether the thread is still inside its pending fault.
 *
 * A fault from user mode: handle_mm_fault (mm/memory.c) keeps in_user_fault set if memory cgroups
 * are configured.  Else the task's entry registers have the fault's instruction pointer and no
 * system call number; to read them takes one more call.
 *
 * A fault from kernel mode: the exception's registers are in the middle of the stack.  They are
 * whole during the fault, and the allocation runs below them.  Later calls overwrite them, but not
 * always (3 times in 1,000 if a write to a memfd follows each fault).  So the entry registers must
 * be those of the same system call, too.  `context` is on the stack of the allocation's event. */
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

/* The same, asked by another task: whether the pending fault is over although no event followed. */
static __always_inline int has_left_fault(struct thread_state* thread, struct task_struct* task) {
  struct pending_fault* fault = &thread->pending;
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  if (entry->ip != fault->ip) return 1;
  if (fault->mode == PENDING_USER) return entry->orig_ax != ~0UL;
  return (!task->on_cpu && task->thread.sp > thread->details.frame) ||
         call_identity(entry) != thread->details.call || !frame_is_live(thread);
}
