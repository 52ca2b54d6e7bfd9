/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts write accesses that raised a page fault, by process: those of user mode, and those of
 * kernel mode to user memory.  Knows nothing of what became of them. */

#include "count_by_process.bpf.h"

#define PF_WRITE 0x2

SEC("raw_tp/page_fault_user")
int on_user_fault(struct bpf_raw_tracepoint_args* args) {
  if (args->args[2] & PF_WRITE) count_one();
  return 0;
}

SEC("raw_tp/page_fault_kernel")
int on_kernel_fault(struct bpf_raw_tracepoint_args* args) {
  if (args->args[2] & PF_WRITE && !(args->args[0] >> 63)) count_one();
  return 0;
}
