/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "kernel_types.h"

/* Which kernel stacks belong to tracked threads: what a fault of anybody else costs is the look at
 * one word of this.  The context of a program lies on the stack of its event, so there is no need
 * even to ask for the current task (by BPF's clock, some 25 ns a fault).  Blocks whose numbers
 * agree in their low 16 bits share a mark, and a thread that finds one that is not its own is told
 * apart by its missing state.  Events on an interrupt's stack are no thread's. */

#define STACK_BLOCK_SHIFT 14 /* the least THREAD_SIZE of x86-64 (KASAN has more) */
#define STACK_BLOCKS 65536
#define MOST_BLOCKS_OF_A_STACK 4

struct stack_blocks {
  __u32 first;
  __u32 last;
  __u32 are_marked;
  __u32 unused;
};

__u32 stack_marks[STACK_BLOCKS]; /* how many tracked threads have a block of that number */

/* An address moved as 32 bits is a number to the verifier. */
static __always_inline __u32 low_half(const void* address) {
  __u32 low;
  asm volatile("%0 = %1" : "=w"(low) : "w"((__u32)(unsigned long)address));
  return low;
}

static __always_inline __u32 stack_block(const void* address) {
  return low_half(address) >> STACK_BLOCK_SHIFT;
}

static __always_inline int may_be_tracked(const void* context) {
  return stack_marks[stack_block(context) & (STACK_BLOCKS - 1)] != 0;
}

static __always_inline void count_marks(struct stack_blocks* stack, __u32 amount) {
  for (__u32 i = 0; i < MOST_BLOCKS_OF_A_STACK; i++) {
    __u32 block = stack->first + i;
    __sync_fetch_and_add(&stack_marks[block & (STACK_BLOCKS - 1)], amount);
    if (block == stack->last) {
      break;
    }
  }
}

/* Before the thread's first fault that counts. */
static __always_inline void mark_stack(struct stack_blocks* stack, struct task_struct* task) {
  stack->first = stack_block(task->stack);
  stack->last = stack_block((void*)bpf_task_pt_regs(task)); /* at its end */
  stack->are_marked = 1;
  count_marks(stack, 1);
}

/* When the thread's stack is another's, or nobody's. */
static __always_inline void unmark_stack(struct stack_blocks* stack) {
  if (stack->are_marked) {
    stack->are_marked = 0;
    count_marks(stack, -1);
  }
}
