/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "process.bpf.h"

/* How long the faults take that copy: from the exception's tracepoint to the end of handle_mm_fault
 * (mm_account_fault, mm/memory.c), where the kernel has perf's events PAGE_FAULTS_MIN and _MAJ for
 * each exception that was handled, retries and all. */

const volatile __u32 time_copies = 0; /* 0: no such program, and the verifier removes the rest */

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 262144);
  __type(key, struct cowshed_key);
  __type(value, struct cowshed_copy_times);
} copy_times SEC(".maps");

const struct cowshed_copy_times no_copy_times = {};

static __always_inline void begin_timing(struct thread_state* thread) {
  if (time_copies) {
    thread->timing.has_copied = 0;
    thread->timing.began_ns = bpf_ktime_get_ns();
  }
}

static __always_inline __u32 binary_logarithm(__u64 value) {
  __u32 result = 0;
  for (__u32 step = 32; step; step >>= 1) {
    if (value >> step) {
      value >>= step;
      result += step;
    }
  }
  return result;
}

static __always_inline void count_time(struct thread_state* thread, __u64 ns) {
  struct cowshed_copy_times* times = bpf_map_lookup_elem(&copy_times, &thread->key);
  if (!times && !thread->exited) { /* else its process's record may have been taken */
    bpf_map_update_elem(&copy_times, &thread->key, &no_copy_times, BPF_NOEXIST);
    times = bpf_map_lookup_elem(&copy_times, &thread->key);
  }
  if (!times) {
    return;
  }
  __u32 time = binary_logarithm(ns);
  if (time >= COWSHED_COPY_TIMES) {
    time = COWSHED_COPY_TIMES - 1;
  }
  __sync_fetch_and_add(&times->ns, ns);
  __sync_fetch_and_add(&times->faults[time], 1);
}

/* As struct bpf_perf_event_data, whose registers are the kernel's own type. */
struct fault_end {
  __u64 registers[PT_REGS_WORDS];
  __u64 sample_period;
  __u64 address;
};

static __noinline int end_fault(struct fault_end* context) {
  __u64 now = bpf_ktime_get_ns();
  struct task_struct* task = bpf_get_current_task_btf();
  struct thread_state* thread = state_of(task);
  if (!thread || !thread->timing.has_copied || thread->address != context->address) {
    return 0;
  }
  begin_update(thread);
  thread->timing.has_copied = 0;
  if (!thread->await_exec) {
    count_time(thread, now - thread->timing.began_ns);
  }
  end_update(thread);
  if (thread->exited) {
    flush(thread, task);
  }
  return 0;
}

SEC("perf_event")
int on_fault_end(struct fault_end* context) {
  return may_be_tracked(context) ? end_fault(context) : 0;
}
