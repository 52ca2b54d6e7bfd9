/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts the entries of do_wp_page, mm/memory.c: the one place where a write to a present page that
 * the page table does not let through is decided.  By process. */

#include "count_by_process.bpf.h"

SEC("fentry/do_wp_page")
int enter_do_wp_page(void* context) {
  (void)context;
  count_one();
  return 0;
}
