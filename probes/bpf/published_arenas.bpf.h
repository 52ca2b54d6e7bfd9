/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include <cowshed/base/published_layout.h>

#include "vma_lookup.bpf.h"

/* The frozen arenas and the settled memory that a process publishes (base/published_layout.h). */

#define LAYOUT_NAME "memfd:" COWSHED_LAYOUT_MEMFD

static __always_inline int is_layout(struct vm_area_struct* vma) {
  char name[sizeof LAYOUT_NAME] = {};
  const void* source = BPF_CORE_READ(vma, vm_file, f_path.dentry, d_name.name);
  return bpf_probe_read_kernel_str(name, sizeof name, source) == sizeof name &&
         begins_with(name, LAYOUT_NAME, sizeof name);
}

struct arena_sum {
  __u64 at;
  __u64 step;
  __u64 bytes;
};

static long add_arena(__u32 index, struct arena_sum* sum) {
  struct cowshed_published_arena arena;
  if (bpf_probe_read_user(&arena, sizeof arena, (void*)(sum->at + index * sum->step))) {
    sum->bytes = COWSHED_UNKNOWN; /* swapped out */
    return 1;
  }
  if (arena.begin && arena.state >= COWSHED_ARENA_STRICT) sum->bytes += arena.used;
  return 0;
}

static __always_inline __u64 bytes_in_layout(__u64 place, __u64 written) {
  struct cowshed_layout layout;
  if (bpf_probe_read_user(&layout, sizeof layout, (void*)place) ||
      layout.magic != COWSHED_LAYOUT_MAGIC || layout.major != COWSHED_LAYOUT_MAJOR ||
      layout.sequence % 2) {
    return COWSHED_UNKNOWN;
  }
  __u32 arenas = layout.arenas.count;
  struct arena_sum sum = {.at = place + layout.arenas.offset, .step = layout.arenas.entry_bytes};
  if (layout.minor >= 2 && layout.settled_bytes > written)
    sum.bytes = layout.settled_bytes - written;
  bpf_loop(arenas < COWSHED_MAX_ARENAS ? arenas : COWSHED_MAX_ARENAS, add_arena, &sum, 0);
  return sum.bytes;
}

/* The bytes of the running process's frozen arenas and settled memory; COWSHED_UNKNOWN if its
 * layout cannot be read, or may lie anywhere.  `copy`: the memory of its new child, which nobody
 * changes yet.  `written`: bytes of settled memory that are anonymous now. */
static __noinline __u64 published_bytes(struct thread_state* thread, struct mm_struct* copy,
                                        __u64 written) {
  int is_known = 0;
  __u64 sum = 0;
  for (__u32 i = 0; i < sizeof cowshed_layout_places / sizeof cowshed_layout_places[0]; i++) {
    struct vm_area_struct* vma = mapping_at(thread, copy, cowshed_layout_places[i]);
    if (vma && !is_layout(vma)) continue;
    __u64 bytes = vma ? bytes_in_layout(cowshed_layout_places[i], written) : 0;
    if (bytes == COWSHED_UNKNOWN) return COWSHED_UNKNOWN;
    is_known = 1;
    sum += bytes;
  }
  return is_known ? sum : COWSHED_UNKNOWN;
}
