/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* Counts the entries of do_wp_page, mm/memory.c: the one place where a write to a present page that
 * the page table does not let through is decided.  By process. */

/* clang-format off */
#include <linux/types.h> /* libbpf's header needs these two first */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
/* clang-format on */

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __type(key, __u32);
  __type(value, __u64);
} wp_faults SEC(".maps");

SEC("fentry/do_wp_page")
int enter_do_wp_page(void* context) {
  (void)context;
  __u32 process = bpf_get_current_pid_tgid() >> 32;
  __u64* count = bpf_map_lookup_elem(&wp_faults, &process);
  if (!count) {
    __u64 none = 0;
    bpf_map_update_elem(&wp_faults, &process, &none, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&wp_faults, &process);
  }
  if (count) {
    __sync_fetch_and_add(count, 1);
  }
  return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
