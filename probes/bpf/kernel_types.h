/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* The kernel's structures as far as we read them, and every difference between 6.1 and 7.3.
 * Offsets are relocated when the programs are loaded (CO-RE), so only names and nesting matter; no
 * generated vmlinux.h, which would tie the build to the machine that builds. */

/* clang-format off */
#include <linux/types.h> /* libbpf's headers need these two first */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
/* clang-format on */

#include "arch.h"

/* include/linux/mm.h: unchanged 6.1 to 7.3. */
#define VM_READ 0x1
#define VM_WRITE 0x2
#define VM_EXEC 0x4
#define VM_SHARED 0x8
#define VM_UFFD_MISSING 0x200
#define VM_UFFD_WP 0x1000
#define VM_DONTCOPY 0x20000 /* MADV_DONTFORK */
#define VM_HUGETLB 0x400000
#define VM_MERGEABLE 0x80000000

#define TMPFS_MAGIC 0x01021994 /* include/uapi/linux/magic.h: tmpfs, memfd, shared anonymous */
#define MM_ANONPAGES 1         /* include/linux/mm_types_task.h */
#define S_IFMT 0170000         /* include/uapi/linux/stat.h */
#define S_IFREG 0100000
#define SIGNAL_GROUP_EXIT 0x4 /* include/linux/sched/signal.h */
#define PF_MEMALLOC 0x800     /* include/linux/sched.h: in reclaim */
#define SIGBUS 7
#define SIGSEGV 11
#define SIGCHLD 17
#define SIGTTOU 22 /* SIGCONT, SIGSTOP, SIGTSTP and SIGTTIN are before it */
#define SIGURG 23
#define SIGWINCH 28
#define SEND_SIG_PRIV ((void*)1) /* include/linux/sched/signal.h: the kernel sends it */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
  long counter;
} kernel_atomic_long;

struct super_block {
  unsigned long s_magic;
};

struct xa_node {
  void* slots[1];
};

struct xarray {
  void* xa_head;
};

struct address_space {
  struct xarray i_pages;
  unsigned long nrpages;
};

struct inode {
  unsigned short i_mode;
  struct super_block* i_sb;
  struct address_space* i_mapping;
  unsigned long i_ino;
  long long i_size;
  unsigned char i_blkbits;
};

struct qstr {
  const unsigned char* name;
};

struct dentry {
  struct qstr d_name;
};

struct path {
  struct dentry* dentry;
};

struct file {
  struct path f_path;
  struct inode* f_inode;
};

struct fdtable {
  unsigned int max_fds;
  struct file** fd;
};

struct files_struct {
  struct fdtable* fdt;
};

struct maple_tree {
  void* ma_root;
};

/* lib/maple_tree.c; the slot counts are taken from the offsets. */
struct maple_range_64 {
  unsigned long pivot[15];
  void* slot[16];
};

struct maple_arange_64 {
  unsigned long pivot[9];
  void* slot[10];
};

struct percpu_counter {
  __s64 count;
  __s32* counters;
};

struct task_struct;

struct mm_struct {
  void* pgd;
  struct file* exe_file;
  struct task_struct* owner; /* with CONFIG_MEMCG */
  struct maple_tree mm_mt;
  struct percpu_counter rss_stat[4];
  kernel_atomic_long hugetlb_usage; /* with CONFIG_HUGETLB_PAGE */
  kernel_atomic_long pgtables_bytes;
  unsigned long start_stack;
  unsigned long ksm_merging_pages; /* with CONFIG_KSM */
};

/* Before 6.2 (f1a7941243c1 "mm: convert mm's rss stats into percpu_counter"). */
struct mm_rss_stat {
  kernel_atomic_long count[4];
};

struct mm_struct___v6_1 {
  struct mm_rss_stat rss_stat;
};

struct task_rss_stat {
  int count[4];
};

struct task_struct___v6_1 {
  struct task_rss_stat rss_stat;
};

/* Since 6.4 (per-VMA locks, 5e31275cc997): moves on whenever a writer of the address space is done.
 * A seqcount since 6.13 (eb449bd96954). */
struct mm_struct___v6_4 {
  int mm_lock_seq;
};

struct seqcount {
  unsigned int sequence;
};

struct mm_struct___v6_13 {
  struct seqcount mm_lock_seq;
};

/* vm_flags is a member of an anonymous union since 6.3: the same name, so the same code. */
struct vm_area_struct {
  unsigned long vm_start;
  unsigned long vm_end;
  struct mm_struct* vm_mm;
  unsigned long vm_flags;
  const void* vm_ops;
  void* anon_vma; /* not 0: one of its pages is or was anonymous */
  unsigned long vm_pgoff;
  struct file* vm_file;
};

struct upid {
  int nr;
};

struct pid {
  unsigned int level;
  struct upid numbers[1];
};

struct sigaction {
  void* sa_handler; /* 0: SIG_DFL */
};

struct k_sigaction {
  struct sigaction sa;
};

struct sighand_struct {
  struct k_sigaction action[64];
};

typedef struct {
  unsigned long sig[1];
} sigset_t;

struct sigpending {
  sigset_t signal;
};

struct list_head {
  struct list_head* next;
};

struct signal_struct {
  struct list_head thread_head;
  struct sigpending shared_pending;
  struct {
    int counter;
  } live;
  int group_exit_code;
  unsigned int flags;
  unsigned long maxrss;
  struct mm_struct* oom_mm; /* not 0: the out-of-memory killer chose it */
};

struct rq;

struct cfs_rq {
  struct rq* rq; /* with CONFIG_FAIR_GROUP_SCHED */
};

struct sched_entity {
  struct cfs_rq* cfs_rq; /* with CONFIG_FAIR_GROUP_SCHED */
};

struct thread_struct {
  unsigned long sp;
  unsigned long fsbase;
};

struct page {
  unsigned long flags;
  struct {
    int counter;
  } _mapcount;
  struct {
    int counter;
  } _refcount;
};

enum pageflags { PG_head = 6 };

struct vm_struct {
  struct page** pages;
};

struct folio {
  struct address_space* mapping;
  struct {
    int counter;
  } _entire_mapcount;
};

/* Before 6.2. */
struct folio___v6_1 {
  struct {
    int counter;
  } _total_mapcount;
};

struct task_struct {
  unsigned int flags;
  unsigned int on_cpu; /* u8 since 7.2; the size of a signed one could not change */
  struct sched_entity se;
  struct mm_struct* mm;
  unsigned int exit_state; /* not 0: a zombie, or about to be freed */
  int exit_code;
  int pid;
  int tgid;
  struct task_struct* real_parent;
  struct task_struct* group_leader;
  struct pid* thread_pid;
  unsigned long nvcsw;
  unsigned long nivcsw;
  __u64 start_time;
  char comm[16];
  struct files_struct* files;
  struct signal_struct* signal;
  struct list_head thread_node;
  struct sigpending pending;
  sigset_t blocked;
  struct sighand_struct* sighand;
  int pagefault_disabled;
  unsigned in_user_fault : 1;
  void* bpf_storage;
  void* stack;
  struct vm_struct* stack_vm_area; /* with CONFIG_VMAP_STACK */
  struct thread_struct thread;
};

/* A per-CPU map keeps one per-CPU pointer an element. */
struct bpf_array {
  void* pptrs[1];
};

struct kernel_clone_args {
  __u64 flags;
};

struct seq_file;

struct bpf_iter_meta {
  struct seq_file* seq;
};

struct bpf_prog_stats {
  struct {
    __u64 value;
  } misses;
};

struct bpf_prog_aux {
  __u32 id;
};

struct bpf_prog {
  struct bpf_prog_stats* stats; /* per CPU */
  unsigned char* active;        /* per CPU: an int that is not 0 while the program runs */
  struct bpf_prog_aux* aux;
};

struct bpf_iter__bpf_prog {
  struct bpf_prog* prog;
};

struct bpf_iter__task {
  struct bpf_iter_meta* meta;
  struct task_struct* task;
};

#pragma clang attribute pop

enum vm_event_item { THP_SPLIT_PMD = 1 };

/* Differs while a writer works and after it, so what was read under one value still holds under the
 * same value.  0 (never equal to itself to the caller) where the kernel has no such number. */
static __always_inline __u32 mapping_generation(struct mm_struct* mm, __u32* generation) {
  if (bpf_core_field_exists(struct mm_struct___v6_13, mm_lock_seq.sequence)) {
    *generation = ((struct mm_struct___v6_13*)mm)->mm_lock_seq.sequence;
    return 1;
  }
  if (bpf_core_field_exists(struct mm_struct___v6_4, mm_lock_seq)) {
    *generation = ((struct mm_struct___v6_4*)mm)->mm_lock_seq;
    return 1;
  }
  return 0;
}
