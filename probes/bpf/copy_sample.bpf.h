/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "lineage.bpf.h"
#include "page_table.bpf.h"
#include "python.bpf.h"

/* Samples of copies, in two stages.  A thread proposes one in each block of `sample_period` of its
 * copies, at a random position.  So each copy has the same chance, and no loop runs in step with
 * the sampling.  Of the proposals of all threads on a CPU, one in each block becomes a sample, and
 * stands for as many copies as the block has.  The blocks of the CPUs grow while there are more
 * samples than `samples_per_second`, or than user space takes out of the buffer: then there are
 * fewer, and none is lost.  New memory is sampled in the same way, by blocks of its own.  A sample
 * has all that user space needs to unwind the stack and to find names.  An access that ends in a
 * signal is a sample, too. */

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct cowshed_sample_counts);
} sample_counts SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} alarms SEC(".maps");

const volatile __u32 sample_period = 0;     /* 0: none, and the verifier removes this code */
const volatile __u32 samples_of_period = 0; /* 0: each proposal is a sample */
const volatile __u32 samples_per_second = 1;
const volatile __u32 sample_stack_bytes = 0;

static __always_inline void draw_turn(struct sample_turn* turn, __u32 after, __u32 period) {
  __u32 position = bpf_get_prandom_u32() % period;
  turn->until = after + position + 1;
  turn->after = period - 1 - position;
  turn->block = period;
}

/* Goes on by so many pages, fewer than a block.  Returns the pages of the block of which the sample
 * is among them; 0: none is. */
static __always_inline __u32 take_turn(struct sample_turn* turn, __u32 pages, __u32 next_block) {
  if (turn->until > pages) {
    turn->until -= pages;
    return 0;
  }
  __u32 block = turn->block;
  __u32 beyond = pages - turn->until;
  draw_turn(turn, turn->after > beyond ? turn->after - beyond : 0, next_block);
  return block;
}

/* Returns for how many copies a proposal of this one stands; 0: it is not its turn. */
static __always_inline __u32 copies_of_turn(struct sample_turn* turn) {
  if (!turn->block) draw_turn(turn, 0, sample_period);
  return take_turn(turn, 1, sample_period);
}

/* When the samples until now will be as few as `samples_per_second`, of each kind. */
static __u64 paid_until[2];

#define SECOND_NS 1000000000ULL
#define MOST_DOUBLINGS_OF_BUDGET 6
#define MOST_DOUBLINGS 10

#define PARTS_OF_BUFFER 16

/* Wakes the reader's thread once there is much in the buffer. */
static __always_inline __u32 note_buffer(void) {
  __u64 full = bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) * PARTS_OF_BUFFER /
               bpf_ringbuf_query(&samples, BPF_RB_RING_SIZE);
  if (full >= PARTS_OF_BUFFER / 4 && !bpf_ringbuf_query(&alarms, BPF_RB_AVAIL_DATA))
    bpf_ringbuf_output(&alarms, &full, sizeof full, BPF_RB_FORCE_WAKEUP);
  return full;
}

/* Each `samples_of_period` samples beyond the budget double the block.  So does each quarter of the
 * buffer, and each part of its second half. */
static __always_inline __u32 next_block(int is_fresh) {
  __u64* paid = &paid_until[is_fresh & 1];
  __u64 now = bpf_ktime_get_ns();
  __u64 price = SECOND_NS / samples_per_second;
  if (*paid < now) *paid = now;
  __u32 doublings = (*paid - now) / (price * samples_of_period);
  if (doublings < MOST_DOUBLINGS_OF_BUDGET) __sync_fetch_and_add(paid, price);
  __u32 full = note_buffer();
  const __u32 half = PARTS_OF_BUFFER / 2;
  full = full < half ? full / 4 : full - half + 2;
  if (doublings < full) doublings = full;
  return sample_period << (doublings < MOST_DOUBLINGS ? doublings : MOST_DOUBLINGS);
}

/* Returns for how many pages a sample of this proposal stands; 0: another one of its block is
 * taken. */
static __always_inline __u32 pages_of_proposal(struct cowshed_sample_counts* counts, __u32 pages,
                                               int is_fresh) {
  if (!samples_of_period) {
    note_buffer();
    return pages;
  }
  struct sample_turn* turn = is_fresh ? &counts->fresh_turn : &counts->turn;
  if (!turn->block) draw_turn(turn, 0, sample_period);
  if (pages < turn->block)
    return take_turn(turn, pages, turn->until > pages ? 0 : next_block(is_fresh));
  draw_turn(turn, 0, next_block(is_fresh));
  return pages;
}

/* The memory around the address, as far as it is in its page. */
static __always_inline void read_around(struct cowshed_sample* sample, __u64 page) {
  const __u64 line_bytes = COWSHED_LINE_WORDS * sizeof(__u64);
  __u64 begin = (sample->address & ~(line_bytes - 1)) - line_bytes;
  sample->around_readable = 0;
  for (__u32 i = 0; page && i < COWSHED_LINES_AROUND; i++) {
    __u64 line = begin + i * line_bytes;
    if (!((line ^ sample->address) & PAGE_MASK) &&
        !read_page(sample->address, sample->around + i * COWSHED_LINE_WORDS, line_bytes, line,
                   page)) {
      sample->around_readable |= 1U << i;
    }
  }
}

#define STACK_BYTES_OF_PYTHON 4096

/* Reads up to the first absent page.  It raises no fault, so the process keeps sharing. */
static __always_inline void read_stack(struct cowshed_sample* sample, __u64 sp, __u64 copied) {
  __u32 used = 0;
  __u32 most = sample_stack_bytes;
  /* The native callers of an interpreter are of no interest. */
  if (sample->python_frames && !sample->is_python_cut && most > STACK_BYTES_OF_PYTHON)
    most = STACK_BYTES_OF_PYTHON;
  for (int i = 0; i <= COWSHED_STACK_BYTES / COWSHED_PAGE_BYTES; i++) {
    __u32 piece = BYTES_TO_PAGE_END(sp + used);
    if (used >= most || used >= COWSHED_STACK_BYTES ||
        read_page(sample->address, sample->stack + used, piece, sp + used, copied)) {
      break;
    }
    used += piece;
  }
  sample->stack_bytes = used < most ? used : most;
}

static __always_inline void read_instruction(struct cowshed_sample* sample, __u64 ip) {
  if (!bpf_probe_read_user(sample->instruction, COWSHED_INSTRUCTION_BYTES, (void*)ip)) {
    sample->instruction_bytes = COWSHED_INSTRUCTION_BYTES;
    return;
  }
  __u32 here = BYTES_TO_PAGE_END(ip);
  if (here < COWSHED_INSTRUCTION_BYTES &&
      !bpf_probe_read_user(sample->instruction, here, (void*)ip)) {
    sample->instruction_bytes = here;
  }
}

/* Returns 0 if the task has no such descriptor. */
static __always_inline __u16 mode_of_file(struct task_struct* task, __u32 descriptor) {
  struct fdtable* table = BPF_CORE_READ(task, files, fdt);
  struct file* file = 0;
  if (descriptor >= BPF_CORE_READ(table, max_fds)) return 0;
  struct file** files = BPF_CORE_READ(table, fd);
  if (bpf_probe_read_kernel(&file, sizeof file, files + descriptor) || !file) return 0;
  return BPF_CORE_READ(file, f_inode, i_mode);
}

static __always_inline int is_fresh(__u32 fault_class) {
  return fault_class == COWSHED_ZERO_FILLED || fault_class == COWSHED_ZERO_PAGE_WRITE;
}

/* On average half of what a sample usually stands for follows it. */
#define MOST_FOLLOWING 256
static __always_inline __u64 note_rise(struct cowshed_process* process, __u32 pages) {
  __u64 bytes = anonymous_bytes(bpf_get_current_task_btf());
  if (bytes < process->least_anonymous_bytes) process->least_anonymous_bytes = bytes;
  if (pages > MOST_FOLLOWING * 2) pages = MOST_FOLLOWING * 2;
  bytes -= process->least_anonymous_bytes;
  __u64 most = bytes + pages * COWSHED_PAGE_BYTES / 2;
  if (most > process->most_risen_bytes) process->most_risen_bytes = most;
  return bytes;
}

/* Whether the address is between the stack pointer and the end of the thread's stack.  The kernel
 * merges a stack with other memory, and coroutines have stacks in their heap: of those, only what
 * one call may touch. */
#define MOST_OF_FRAME 16384
static __always_inline int is_of_stack(struct task_struct* task, const struct mapping* mapping,
                                       __u64 address, __u64 sp) {
  __u64 top = THREAD_POINTER(task) | ~PAGE_MASK;
  __u64 end = mapping->end - 1;
  if (sp - mapping->start > end - mapping->start) return 0;
  __u64 main_stack = BPF_CORE_READ(task, mm, start_stack);
  if (top >= sp && top <= end) end = top;
  else if (main_stack - sp > end - sp && sp + MOST_OF_FRAME < end) end = sp + MOST_OF_FRAME;
  return (address | ~PAGE_MASK) >= sp - RED_ZONE && address <= end;
}

static __always_inline void describe_sample(struct cowshed_sample* sample,
                                            struct thread_state* thread, int with_python) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct pending_fault* fault = &thread->pending;
  struct pt_regs* entry = (struct pt_regs*)bpf_task_pt_regs(task);
  struct pt_regs* registers = (struct pt_regs*)sample->registers;
  struct cowshed_key key = thread->key; /* here, as Linux 6.1 demands */
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  sample->process_id = process ? process->id : 0;
  sample->pid = process ? process->pid : 0;
  sample->execs = process ? process->execs : 0;
  sample->risen_bytes = process && is_fresh(fault->fault_class) ? note_rise(process, 0) : 0;
  sample->address = thread->address;
  sample->fault_class = fault->fault_class;
  sample->failure = thread->failure;
  sample->is_handled = thread->is_handled;
  sample->user_mode = fault->mode == PENDING_USER;
  sample->arena[0] = 0;
  if (fault->traits & MAPPING_ARENA && !thread->arena.origin)
    __builtin_memcpy(sample->arena, thread->arena.name, sizeof sample->arena);
  bpf_probe_read_kernel(sample->registers, sizeof sample->registers, entry);
  sample->file_mode = sample->user_mode ? 0 : mode_of_file(task, registers->di);
  sample->is_of_stack = is_of_stack(task, &thread->mapping, sample->address, registers->sp);
  sample->instruction_bytes = 0;
  if (sample->user_mode) read_instruction(sample, registers->ip);
  __u64 page = fault->protection ? kernel_address(thread->address & PAGE_MASK) : 0;
  read_around(sample, page);
  sample->object_type = sample->python_frames = 0;
  sample->is_python_cut = sample->is_in_code = 0;
  if (process && with_python) read_python(thread, process->image, page);
  read_stack(sample, registers->sp, page);
}

/* The stack of a child's fork, until its first sample: the child itself called none of those
 * functions. */
#define FORK_STACK_BYTES 8192

struct fork_record {
  __u8 sample[__builtin_offsetof(struct cowshed_sample, stack) + FORK_STACK_BYTES];
};

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 512);
  __type(key, struct cowshed_key);
  __type(value, struct fork_record);
} forks SEC(".maps");

/* Runs in the parent.  Not static, as walk_node(). */
__noinline int keep_fork(struct thread_state* child) {
  __u32 slot = 0;
  struct cowshed_sample* sample = bpf_map_lookup_elem(&new_sample, &slot);
  struct cowshed_sample_counts* counts = bpf_map_lookup_elem(&sample_counts, &slot);
  if (!sample || !child || !counts || counts->is_busy) return 0;
  counts->is_busy = 1;
  describe_sample(sample, child, 0);
  sample->kind = COWSHED_FORK_RECORD;
  if (sample->stack_bytes > FORK_STACK_BYTES) sample->stack_bytes = FORK_STACK_BYTES;
  struct cowshed_key key = child->key;
  child->has_fork = !bpf_map_update_elem(&forks, &key, sample, BPF_ANY);
  counts->is_busy = 0;
  return 0;
}

__noinline int drop_fork(struct thread_state* thread) {
  if (!thread) return 0;
  thread->has_fork = 0;
  struct cowshed_key key = thread->key;
  bpf_map_delete_elem(&forks, &key);
  return 0;
}

static __always_inline void send_fork(struct thread_state* thread) {
  struct cowshed_key key = thread->key;
  struct fork_record* record = bpf_map_lookup_elem(&forks, &key);
  if (record) bpf_ringbuf_output(&samples, record, sizeof *record, 0);
  drop_fork(thread);
}

/* Not static, as walk_node(). */
__noinline int take_sample(struct thread_state* thread, __u32 proposed) {
  __u32 slot = 0;
  struct cowshed_sample* sample = bpf_map_lookup_elem(&new_sample, &slot);
  struct cowshed_sample_counts* counts = bpf_map_lookup_elem(&sample_counts, &slot);
  if (!thread || !sample || !counts) return 0;
  __u64 counted = !is_fresh(thread->pending.fault_class);
  /* At one period those of new memory leave half of the buffer to those of copies. */
  if (!samples_of_period && !counted && note_buffer() >= PARTS_OF_BUFFER / 2) {
    thread->fresh_missed += proposed;
    return 0;
  }
  int is_failure = thread->pending.fault_class == COWSHED_FAILED;
  __u32 copies = is_failure ? proposed : pages_of_proposal(counts, proposed, !counted);
  if (!copies) return 0;
  if (thread->has_fork) send_fork(thread);
  __sync_fetch_and_add(&counts->emitted, counted);
  if (counts->is_busy) {
    __sync_fetch_and_add(&counts->lost, counted);
    return 0;
  }
  counts->is_busy = 1;
  compiler_barrier();
  sample->kind = COWSHED_COPY_RECORD;
  sample->copies = copies;
  sample->missed = counted ? 0 : thread->fresh_missed;
  describe_sample(sample, thread, 1);
  __u32 stack_bytes = sample->stack_bytes;
  if (stack_bytes > COWSHED_STACK_BYTES) stack_bytes = COWSHED_STACK_BYTES;
  if (bpf_ringbuf_output(&samples, sample,
                         __builtin_offsetof(struct cowshed_sample, stack) + stack_bytes, 0)) {
    __sync_fetch_and_add(&counts->lost, counted);
    if (!counted) thread->fresh_missed += copies;
  } else if (!counted) {
    thread->fresh_missed = 0;
  }
  compiler_barrier();
  counts->is_busy = 0;
  return 0;
}

static __noinline int note_first_copy(struct thread_state* thread) {
  struct cowshed_key key = thread->key;
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  if (process && !process->first_copy_ns) process->first_copy_ns = bpf_ktime_get_ns();
  return 0;
}

/* Runs for each copy while its fault is pending. */
static __always_inline void sample_copy(struct thread_state* thread) {
  if (!sample_period || thread->await_exec) return;
  if (!thread->turn.block) note_first_copy(thread);
  __u32 copies = copies_of_turn(&thread->turn);
  if (copies) take_sample(thread, copies);
}

/* Runs for each fault that gets new memory of its own, while it is pending. */
static __always_inline void sample_fresh(struct thread_state* thread, __u32 fault_class,
                                         __u32 pages) {
  if (!sample_period || !thread->samples_fresh || thread->pending.traits & MAPPING_SHARED) return;
  if (!is_fresh(fault_class)) return;
  struct sample_turn* turn = &thread->fresh_turn;
  if (pages < sample_period) { /* each larger page is a proposal */
    if (!turn->block) draw_turn(turn, 0, sample_period);
    pages = take_turn(turn, pages, sample_period);
  }
  if (!pages) return;
  struct cowshed_key key = thread->key;
  struct cowshed_process* process = bpf_map_lookup_elem(&processes, &key);
  if (process) note_rise(process, pages);
  take_sample(thread, pages);
}

/* The same, for a page that is larger than a block.  The stack has no room for more. */
static __always_inline void sample_large(struct thread_state* thread, __u32 pages) {
  if (sample_period && thread->samples_fresh) take_sample(thread, pages);
}

/* The same, for a copy of which nothing is known any more. */
static __always_inline void lose_sample(struct thread_state* thread) {
  __u32 slot = 0;
  if (!sample_period || thread->await_exec || !copies_of_turn(&thread->turn)) return;
  struct cowshed_sample_counts* counts = bpf_map_lookup_elem(&sample_counts, &slot);
  if (!counts || !pages_of_proposal(counts, sample_period, 0)) return;
  __sync_fetch_and_add(&counts->emitted, 1);
  __sync_fetch_and_add(&counts->lost, 1);
}

/* Some programs, such as Java's, handle very many. */
#define MOST_FAILURES_OF_THREAD 2

static __always_inline int wants_failure(struct thread_state* thread, int is_handled) {
  return sample_period && (!is_handled || thread->failures < MOST_FAILURES_OF_THREAD);
}

static __always_inline void sample_failure(struct thread_state* thread, __u64 address,
                                           __u32 failure, int is_handled) {
  thread->failures++;
  thread->failure = failure;
  thread->is_handled = is_handled;
  thread->address = address;
  thread->pending.mode = PENDING_USER;
  thread->pending.fault_class = COWSHED_FAILED;
  thread->pending.traits = 0;
  take_sample(thread, 1);
  thread->pending.mode = PENDING_NONE;
  thread->failure = COWSHED_NO_FAILURE;
  thread->is_handled = 0;
}

#define MOST_SAMPLES_OF_FAULT 512

static long sample_one(__u32 page, struct thread_state** thread) {
  sample_copy(*thread);
  return 0;
}

/* For a fault that copies a huge page. */
static __always_inline void sample_copies(struct thread_state* thread, __u32 pages) {
  if (sample_period)
    bpf_loop(pages < MOST_SAMPLES_OF_FAULT ? pages : MOST_SAMPLES_OF_FAULT, sample_one, &thread, 0);
}
