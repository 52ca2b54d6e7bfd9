/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "maps.bpf.h"

/* Whether a fault has split a huge page.  The kernel splits it before it copies 4 KiB of it, and
 * counts splits per CPU.  An increase is ours if no other task has run meanwhile: without a context
 * switch the CPU is the same, too. */

/* This CPU's count of THP_SPLIT_PMD.  Per-CPU variables have no symbol that we may resolve unless
 * the kernel has KALLSYMS_ALL.  But the task's run queue is one, and BTF gives the distance. */
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

static __noinline int begin_split(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  thread->details.switches = task->nvcsw + task->nivcsw;
  thread->details.splits = split_count(task);
  return 0;
}

/* After one copy in an aligned 2 MiB its pages are small.  They stay small until a collapse or a
 * fork, which gives the address space a new generation, so that `mapping` is looked up again. */
static __always_inline void watch_split(struct thread_state* thread, __u64 address) {
  struct pending_fault* fault = &thread->pending;
  fault->may_split = vm_events_from_runqueue && fault->protection &&
                     fault->traits & MAPPING_MAY_BE_HUGE &&
                     address >> HUGE_SHIFT != thread->mapping.small_block;
  if (fault->may_split) begin_split(thread);
}

static __noinline int end_split(struct thread_state* thread) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct fault_details* details = &thread->details;
  thread->mapping.small_block = thread->address >> HUGE_SHIFT;
  return details->switches == task->nvcsw + task->nivcsw && details->splits != split_count(task);
}

static __always_inline int was_split(struct thread_state* thread) {
  if (!thread->pending.may_split) return 0;
  return end_split(thread);
}
