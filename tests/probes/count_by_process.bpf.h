/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* A count for each process of the machine's own PID namespace, by PID.  A new process begins with
 * 0, also where its PID was another's. */

/* clang-format off */
#include <linux/types.h> /* libbpf's headers need these two first */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
/* clang-format on */

struct task_struct {
  int pid;
} __attribute__((preserve_access_index));

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __type(key, __u32);
  __type(value, __u64);
} counts SEC(".maps");

static __always_inline void count_one(void) {
  __u32 process = bpf_get_current_pid_tgid() >> 32;
  __u64* count = bpf_map_lookup_elem(&counts, &process);
  if (!count) {
    __u64 none = 0;
    bpf_map_update_elem(&counts, &process, &none, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&counts, &process);
  }
  if (count) __sync_fetch_and_add(count, 1);
}

/* Before it runs.  A thread's own PID is no process's. */
SEC("raw_tp/task_newtask")
int on_new_task(struct bpf_raw_tracepoint_args* args) {
  __u32 process = BPF_CORE_READ((struct task_struct*)args->args[0], pid);
  bpf_map_delete_elem(&counts, &process);
  return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
