/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "state.bpf.h"

/* Where the state of a thread is found without a call.  A call of the kernel's costs some 15 ns
 * where returns are guarded against speculation, and task storage takes two or three of them for
 * each event.  So a thread that faults sits down in an array, at the place that its stack's address
 * says, and the context of its programs, which lies on that stack, finds it again.  Where another
 * one sits already the state stays in task storage, which costs time, nothing else.
 *
 * A thread sits down and gets up by itself, the latter before it is dead: so nobody else can run on
 * its stack as long as it sits, and whoever does is that thread. */

#define SEATS 4096
#define STACK_BLOCK_SHIFT 14 /* the least THREAD_SIZE of x86-64 (KASAN has more) */

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SEATS);
  __type(key, __u32);
  __type(value, struct thread_state);
} seats SEC(".maps");

/* What moves between storage and seat. */
#define STATE_FROM __builtin_offsetof(struct thread_state, update_begin)
#define STATE_BYTES (__builtin_offsetof(struct thread_state, frame) - STATE_FROM)

/* An address moved as 32 bits is a number to the verifier. */
static __always_inline __u32 low_half(const void* address) {
  __u32 low;
  asm volatile("%0 = %1" : "=w"(low) : "w"((__u32)(unsigned long)address));
  return low;
}

static __always_inline __u32 stack_block(const void* address) {
  return low_half(address) >> STACK_BLOCK_SHIFT;
}

static __always_inline struct thread_state* seat_at(__u32 number) {
  return bpf_map_lookup_elem(&seats, &number);
}

/* How far an address is from a fixed one, all 64 bits of it: the verifier takes the difference of
 * two pointers for a number. */
static __always_inline __u64 distance_of(const void* address) {
  __u64 distance = (__u64)address;
  asm volatile("%0 -= %1" : "+r"(distance) : "r"(&losses));
  return distance;
}

static __always_inline struct thread_state* seated_thread(const void* context) {
  struct thread_state* seat = seat_at(stack_block(context) & (SEATS - 1));
  return seat && distance_of(context) - seat->stack_begin < 1 << STACK_BLOCK_SHIFT ? seat : 0;
}

/* Of a thread that sits: itself, to read from.  bpf_rdonly_cast is a kernel function that the
 * verifier turns into a move; its number is the loader's to put in, for libbpf would look for it in
 * all modules, which takes CAP_SYS_ADMIN. */
static __always_inline struct task_struct* task_of(struct thread_state* seat) {
  struct task_struct* task;
  asm volatile(
      "r1 = %1\n"
      "r2 = %2\n"
      ".8byte 0x2085\n" /* call of kernel function 0 */
      "%0 = r0"
      : "=r"(task)
      : "r"(seat->task), "r"((__u64)bpf_core_type_id_kernel(struct task_struct))
      : "r0", "r1", "r2", "r3", "r4", "r5");
  return task;
}

static __always_inline struct thread_state* own_state(struct task_struct* task) {
  return bpf_task_storage_get(&threads, task, 0, 0);
}

static __always_inline struct thread_state* state_of(struct task_struct* task) {
  struct thread_state* own = own_state(task);
  return own && own->seat ? seat_at(own->seat - 1) : own;
}

/* By the thread itself, with no fault pending.  Returns where its state is then. */
static __always_inline struct thread_state* sit_down(struct thread_state* own,
                                                     struct task_struct* task) {
  const void* end = (const void*)bpf_task_pt_regs(task);
  if (!can_cast || own->exited || task->flags & PF_EXITING ||
      stack_block(task->stack) != stack_block(end)) {
    return own;
  }
  __u32 number = stack_block(end) & (SEATS - 1);
  struct thread_state* seat = seat_at(number);
  if (!seat || __sync_val_compare_and_swap(&seat->is_taken, 0, 1)) return own;
  __builtin_memcpy((void*)seat + STATE_FROM, (void*)own + STATE_FROM, STATE_BYTES);
  seat->task = (__u64)task;
  compiler_barrier();
  own->seat = number + 1;
  seat->stack_begin = distance_of(end) - (low_half(end) & ((1 << STACK_BLOCK_SHIFT) - 1));
  return seat;
}

/* Readers that came by its number find that it has got up, before somebody else sits there. */
static __always_inline void get_up(struct thread_state* own, struct thread_state* seat) {
  __builtin_memcpy((void*)own + STATE_FROM, (void*)seat + STATE_FROM, STATE_BYTES);
  seat->stack_begin = 0;
  compiler_barrier();
  own->seat = 0;
  compiler_barrier();
  seat->is_taken = 0;
}
