/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* What the programs and the loader know of the CPU, as in base/arch: loader/sample_reader.cc
 * compares the two.  page_table.bpf.h has the page table.  The programs count on x86-64 only: for
 * arm64 they compile, and support.cc keeps them from being loaded. */

#define COWSHED_PAGE_BYTES 4096
#define COWSHED_HUGE_BYTES 0x200000
#if defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
#define COWSHED_ADDRESS_BITS 48
#define COWSHED_REGISTERS 36 /* as struct pt_regs */
#else
#define COWSHED_ADDRESS_BITS 47
#define COWSHED_REGISTERS 21
#endif

#ifdef __bpf__

#define PAGE_SHIFT __builtin_ctz(COWSHED_PAGE_BYTES)
#define PAGE_MASK (~(__u64)(COWSHED_PAGE_BYTES - 1))
#define HUGE_SHIFT __builtin_ctz(COWSHED_HUGE_BYTES)
#define HUGE_MASK (~(__u64)(COWSHED_HUGE_BYTES - 1))
#define PAGES_OF_HUGE (COWSHED_HUGE_BYTES / COWSHED_PAGE_BYTES)

/* As far as code writes below its stack pointer, and where a thread that pthread_create() made has
 * struct pthread, at the top of its stack. */
#define RED_ZONE 128
#define THREAD_POINTER(task) ((task)->thread.fsbase)

/* Numbers of clone(), fork(), vfork() and clone3(). */
static __always_inline int is_fork_call(__u64 call) {
  return (call >= 56 && call <= 58) || call == 435;
}

/* Bits of a page fault's error code (arch/x86/include/asm/trap_pf.h). */
#define PF_PROTECTION 0x1
#define PF_WRITE 0x2
#define PF_KEY 0x20
#define PF_SHADOW_STACK 0x40

struct pt_regs {
  unsigned long si;
  unsigned long di;
  unsigned long orig_ax;
  unsigned long ip;
  unsigned long sp;
} __attribute__((preserve_access_index));

#endif
