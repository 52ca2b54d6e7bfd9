/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "maps.bpf.h"

/* Reads memory of the running task for a sample.  It raises no fault, so the process keeps sharing:
 * absent pages cannot be read. */

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096); /* the loader sets it */
} samples SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct cowshed_sample);
} new_sample SEC(".maps");

#define BYTES_TO_PAGE_END(address) (COWSHED_PAGE_BYTES - (__u32)((address) & ~PAGE_MASK))

/* Reads memory in one page of the running task.  A look at the page that is being copied, through
 * the task's own page table, would set its accessed bit.  The kernel would then drop the copy and
 * begin again.  So that page, which has the address `written`, is read at its address in the
 * kernel, `copied`; 0: unknown. */
static __always_inline long read_page(__u64 written, void* to, __u32 bytes, __u64 from,
                                      __u64 copied) {
  if ((from ^ written) & PAGE_MASK) return bpf_probe_read_user(to, bytes, (void*)from);
  if (!copied) return -1;
  return bpf_probe_read_kernel(to, bytes, (void*)(copied + (from & ~PAGE_MASK)));
}

/* Whether none of the bytes, which lie in two pages at most, is in that page. */
static __always_inline int is_elsewhere(__u64 written, __u64 from, __u32 bytes) {
  return (from ^ written) & PAGE_MASK && ((from + bytes - 1) ^ written) & PAGE_MASK;
}

/* Returns an aligned word; 0: absent.  Not static, as walk_node(). */
__noinline __u64 read_word(__u64 written, __u64 from, __u64 copied) {
  __u64 word = 0;
  if (from % sizeof word || read_page(written, &word, sizeof word, from, copied)) return 0;
  return word;
}
