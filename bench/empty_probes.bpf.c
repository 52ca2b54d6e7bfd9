/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */

/* On the events that cowtop's programs use for every copy, programs that return at once: the least
 * that any program there costs. */

/* clang-format off */
#include <linux/types.h> /* libbpf's header needs these two first */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
/* clang-format on */

SEC("tp_btf/page_fault_user")
int on_user_fault(void* context) { return context == 0; }

SEC("tp_btf/mm_page_alloc")
int on_page_alloc(void* context) { return context == 0; }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
