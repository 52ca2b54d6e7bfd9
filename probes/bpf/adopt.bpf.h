/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "lineage.bpf.h"

/* Tracks processes that already run: the roots that the loader names, and their descendants.  The
 * loader repeats the iterator `adopt` until it adds no thread. */

#define MOST_ANCESTORS 64

static __always_inline struct cowshed_root* as_root(struct task_struct* task) {
  __u32 pid = namespace_tgid(task);
  return bpf_map_lookup_elem(&roots, &pid);
}

struct descent {
  struct task_struct* task;
  __u32 loader;
  __u32 is_found;
};

static __always_inline int ends_descent(struct descent* descent, struct task_struct* task) {
  if (!BPF_CORE_READ(task, pid) || BPF_CORE_READ(task, tgid) == descent->loader) return 1;
  descent->task = BPF_CORE_READ(task, real_parent);
  return 0;
}

static long climb(__u32 level, struct descent* descent) {
  struct task_struct* task = descent->task;
  struct cowshed_root* root = as_root(task);
  if (root && root->is_found) { /* else the next run of adopt() finds it */
    descent->is_found = 1;
    return 1;
  }
  return ends_descent(descent, task);
}

/* For a task that is no root itself. */
static __always_inline int descends_from_root(struct task_struct* task, __u32 loader) {
  struct descent descent = {.loader = loader};
  if (!ends_descent(&descent, task)) bpf_loop(MOST_ANCESTORS, climb, &descent, 0);
  return descent.is_found;
}

/* Of a process that ran before us, by its executable. */
static __always_inline int runs_parents_program(struct task_struct* task) {
  struct inode* own = BPF_CORE_READ(task, mm, exe_file, f_inode);
  return own && own == BPF_CORE_READ(task, group_leader, real_parent, mm, exe_file, f_inode);
}

SEC("iter/task")
int adopt(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (!task || adoption.mode == COWSHED_ADOPT_NOTHING) return 0;
  struct task_struct* self = bpf_get_current_task_btf();
  pid_level = BPF_CORE_READ(self, thread_pid, level);
  struct signal_struct* signal = task->signal;
  if (!task->mm || !signal || !BPF_CORE_READ(signal, live.counter))
    return 0; /* a kernel thread, or ending */
  struct cowshed_root* root = as_root(task);
  if (root) root->is_found = 1;
  else if (adoption.mode != COWSHED_ADOPT_TREES) return 0;
  /* The loader and its descendants are adopted only if they are roots. */
  if (state_of(task) || !(root || descends_from_root(task, self->tgid))) return 0;
  struct cowshed_key key = {};
  fill_key(&key, task);
  struct cowshed_key parent_key = {};
  fill_key(&parent_key, BPF_CORE_READ(task, group_leader, real_parent));
  struct cowshed_process* parent = bpf_map_lookup_elem(&processes, &parent_key);
  __u32 flags = root ? COWSHED_ROOT : runs_parents_program(task) ? COWSHED_FORKED : 0;
  int added = add_process(task, &key, parent, flags, 1, 0);
  if (added < 0) return 0;
  adoption.processes += added;
  adoption.threads += add_thread(task, &key, adoption.mode == COWSHED_ADOPT_COMMAND) > 0;
  return 0;
}
