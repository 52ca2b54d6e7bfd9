/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts write accesses that raised a page fault, by process: those of user mode, and those of
 * kernel mode to user memory.  Knows nothing of what became of them. */

/* clang-format off */
#include <linux/types.h> /* libbpf's headers need these two first */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
/* clang-format on */

#define PF_WRITE 0x2

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __type(key, __u32);
  __type(value, __u64);
} exceptions SEC(".maps");

static __always_inline int count(unsigned long error_code) {
  if (!(error_code & PF_WRITE)) {
    return 0;
  }
  __u32 process = bpf_get_current_pid_tgid() >> 32;
  __u64* number = bpf_map_lookup_elem(&exceptions, &process);
  if (!number) {
    __u64 none = 0;
    bpf_map_update_elem(&exceptions, &process, &none, BPF_NOEXIST);
    number = bpf_map_lookup_elem(&exceptions, &process);
  }
  if (number) {
    __sync_fetch_and_add(number, 1);
  }
  return 0;
}

SEC("raw_tp/page_fault_user")
int on_user_fault(struct bpf_raw_tracepoint_args* args) { return count(args->args[2]); }

SEC("raw_tp/page_fault_kernel")
int on_kernel_fault(struct bpf_raw_tracepoint_args* args) {
  return args->args[0] >> 63 ? 0 : count(args->args[2]);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
