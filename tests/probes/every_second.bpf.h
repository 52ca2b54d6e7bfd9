/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* For a variant of the probes: on_page_alloc misses every second page, as if BPF had skipped it. */

__u64 pages_met SEC(".data.test") = 0; /* in a map of its own, since the loader knows .bss */

static __always_inline int is_missed(void) { return __sync_fetch_and_add(&pages_met, 1) & 1; }

static __always_inline int read_met(__u64* misses, __u64 at) {
  *misses = pages_met;
  return at != 1; /* always */
}
