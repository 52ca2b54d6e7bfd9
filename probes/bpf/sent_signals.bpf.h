/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "lineage.bpf.h"

/* How the kernel's siginfo begins: as siginfo_t does, which programs know. */
struct signal_info {
  int number;
  int error;
  int code; /* above 0: the kernel raises it */
  int unused;
  __u64 address;
};

#define SI_TIMER (-2)

/* Whether a signal ends a process that has no handler for it. */
static __always_inline int is_deadly(int signal) {
  return signal > 0 && signal <= 64 && (signal < SIGCHLD || signal > SIGURG) && signal != SIGWINCH;
}

/* Who sends a signal that ends a measured process.  The out-of-memory killer runs in the process
 * whose request for memory failed.  Timers interrupt any process, which is no sender. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_sent_signal, int signal, const void* info, struct task_struct* task) {
  struct thread_state* thread = state_of(task);
  if (!thread || !is_deadly(signal)) return 0;
  struct task_struct* sender = bpf_get_current_task_btf();
  int by_kernel = info == SEND_SIG_PRIV;
  struct signal_info what = {};
  if (!by_kernel && info) bpf_probe_read_kernel(&what, sizeof what, info);
  if (what.code > 0 || what.code == SI_TIMER || (!by_kernel && sender->tgid == task->tgid))
    return 0;
  void* handler = 0;
  void* actions =
      (void*)BPF_CORE_READ(task, sighand) + bpf_core_field_offset(struct sighand_struct, action);
  bpf_probe_read_kernel(&handler, sizeof handler,
                        actions + (signal - 1) * bpf_core_type_size(struct k_sigaction) +
                            bpf_core_field_offset(struct k_sigaction, sa.sa_handler));
  int is_ending = BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT;
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &thread->key);
  if (!process || handler || process->sent_signal == (__u32)signal ||
      (is_ending && BPF_CORE_READ(task, signal, group_exit_code) != signal))
    return 0;
  begin_record_change();
  process->sent_signal = signal;
  process->is_sent_by_kernel = by_kernel;
  process->sender = namespace_tgid(sender);
  BPF_CORE_READ_STR_INTO(&process->sender_comm, sender, group_leader, comm);
  end_record_change();
  return 0;
}
