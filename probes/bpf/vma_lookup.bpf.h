/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "page_table.bpf.h"

/* The mapping of an address, looked up when the fault enters, because the program may unmap or
 * close it later.  A fault enters with interrupts off, where bpf_find_vma can drop its lock only by
 * an interrupt to itself (+11.5 microseconds a fault in a guest).  So we walk the maple tree
 * without a lock, and check the result; its nodes outlive our RCU section.  Most faults hit the
 * mapping of the thread's last fault. */

#define MAPLE_LEVELS 8 /* 10^6 nodes of the least fill at the fifth */
#define MAPLE_LEAF 1
#define MAPLE_ARANGE 3

enum { WALK_MISS, WALK_ABSENT, WALK_FOUND };

/* The slot of the node in thread->node that leads to `address`. */
static __always_inline __u64 slot_of(const __u64* node, __u32 pivots_at, __u32 slots_at,
                                     __u64 address) {
  __u32 slot = slots_at - pivots_at; /* the last slot has no pivot */
  for (__u32 i = 0; i < 15; i++) {
    __u64 pivot = node[(pivots_at + i) & (MAPLE_NODE_WORDS - 1)];
    if (i >= slots_at - pivots_at) break;
    if (address <= pivot || (i > 0 && pivot == 0)) {
      slot = i;
      break;
    }
  }
  return node[(slots_at + slot) & (MAPLE_NODE_WORDS - 1)];
}

/* Not static: the verifier follows it once, not for each level of the tree. */
__noinline __u64 walk_node(struct thread_state* thread, __u32 type, __u64 address) {
  if (!thread) return 0;
  if (type == MAPLE_ARANGE) {
    return slot_of(thread->node, bpf_core_field_offset(struct maple_arange_64, pivot) / 8,
                   bpf_core_field_offset(struct maple_arange_64, slot) / 8, address);
  }
  return slot_of(thread->node, bpf_core_field_offset(struct maple_range_64, pivot) / 8,
                 bpf_core_field_offset(struct maple_range_64, slot) / 8, address);
}

static __always_inline int walk_tree(struct thread_state* thread, struct mm_struct* mm,
                                     __u64 address, struct vm_area_struct** vma) {
  __u64 entry = (__u64)mm->mm_mt.ma_root;
  if ((entry & 3) != 2 || entry < 4096) return WALK_MISS; /* a tree without nodes */
  for (int level = 0; level < MAPLE_LEVELS; level++) {
    __u64 node = entry & ~0xffULL;
    __u32 type = (entry >> 3) & 0xf;
    if (type < MAPLE_LEAF || type > MAPLE_ARANGE ||
        bpf_probe_read_kernel(thread->node, sizeof thread->node, (void*)node)) {
      return WALK_MISS;
    }
    if ((thread->node[0] & ~0xffULL) == node)
      return WALK_MISS; /* replaced by a writer while we came here */
    entry = walk_node(thread, type, address);
    if (type == MAPLE_LEAF) {
      *vma = (struct vm_area_struct*)entry;
      return entry ? WALK_FOUND : WALK_ABSENT;
    }
  }
  return WALK_MISS;
}

/* The mapping at `address`; 0: none, or unknown. */
static __noinline struct vm_area_struct* mapping_at(struct thread_state* thread,
                                                    struct mm_struct* mm, __u64 address) {
  struct vm_area_struct* vma = 0;
  if (!mm || walk_tree(thread, mm, address, &vma) != WALK_FOUND) return 0;
  int is_there = BPF_CORE_READ(vma, vm_mm) == mm && address >= BPF_CORE_READ(vma, vm_start) &&
                 address < BPF_CORE_READ(vma, vm_end);
  return is_there ? vma : 0;
}

/* Copies an object to thread->node, as far as it fits, for word_of().  One call reads all fields.
 */
static __always_inline int read_object(struct thread_state* thread, const void* object,
                                       __u32 size) {
  if (size > sizeof thread->node) size = sizeof thread->node;
  return bpf_probe_read_kernel(thread->node, size, object);
}

static __always_inline __u64 word_of(struct thread_state* thread, const void* object,
                                     __u32 offset) {
  if (offset + sizeof(__u64) <= sizeof thread->node) return thread->node[offset / sizeof(__u64)];
  __u64 word = 0; /* the field is elsewhere (CONFIG_RANDSTRUCT) */
  bpf_probe_read_kernel(&word, sizeof word, object + offset);
  return word;
}

#define READ_OBJECT(thread, pointer) \
  read_object(thread, pointer, bpf_core_type_size(typeof(*(pointer))))
#define WORD_OF(thread, pointer, field) \
  word_of(thread, pointer, bpf_core_field_offset(typeof(*(pointer)), field))

#define ARENA_PREFIX "memfd:cowshed:"
#define ARENA_PREFIX_BYTES (sizeof ARENA_PREFIX - 1)
#define SETTLED_PREFIX "memfd:cowshed-settled:"

static __always_inline int begins_with(const char* name, const char* prefix, __u32 bytes) {
  for (__u32 i = 0; i < bytes; i++)
    if (name[i] != prefix[i]) return 0;
  return 1;
}

/* For an inode that read_object() has copied. */
static __always_inline int is_regular(struct thread_state* thread, struct inode* inode) {
  __u32 at = bpf_core_field_offset(struct inode, i_mode);
  __u64 word = word_of(thread, inode, at & ~7U);
  return (word >> (at % 8 * 8) & S_IFMT) == S_IFREG;
}

/* Fills thread->arena and thread->file.size_at from the file of a mapping; returns its traits. */
static __always_inline __u32 describe_file(struct thread_state* thread, struct file* file) {
  __u32 traits = MAPPING_FILE;
  thread->file.size_at = thread->file.bytes = 0;
  if (READ_OBJECT(thread, file)) return traits;
  struct inode* inode = (struct inode*)WORD_OF(thread, file, f_inode);
  struct dentry* dentry = (struct dentry*)WORD_OF(thread, file, f_path.dentry);
  if (READ_OBJECT(thread, inode)) return traits;
  struct super_block* super = (struct super_block*)WORD_OF(thread, inode, i_sb);
  __u64 inode_number = WORD_OF(thread, inode, i_ino);
  if (is_regular(thread, inode)) {
    thread->file.size_at = (__u64)inode + bpf_core_field_offset(struct inode, i_size);
    thread->file.bytes = WORD_OF(thread, inode, i_size);
  }
  if (BPF_CORE_READ(super, s_magic) != TMPFS_MAGIC) return traits;
  traits |= MAPPING_SHMEM;
  char* name = (char*)thread->node;
  const void* source = BPF_CORE_READ(dentry, d_name.name);
  if (bpf_probe_read_kernel_str(name, ARENA_PREFIX_BYTES + COWSHED_ARENA_NAME_BYTES, source) <= 0)
    return traits;
  if (begins_with(name, SETTLED_PREFIX, sizeof SETTLED_PREFIX - 1)) return traits | MAPPING_SETTLED;
  if (!begins_with(name, ARENA_PREFIX, ARENA_PREFIX_BYTES)) return traits;
  thread->arena.inode = inode_number;
  thread->arena.origin = 0;
  __builtin_memcpy(thread->arena.name, name + ARENA_PREFIX_BYTES, COWSHED_ARENA_NAME_BYTES);
  return traits | MAPPING_ARENA;
}

static __always_inline struct inode* inode_of(struct thread_state* thread) {
  return (struct inode*)(thread->file.size_at - bpf_core_field_offset(struct inode, i_size));
}

/* Whether the file, or its mapping of so many bytes, is large, and no program and no library, whose
 * first writes relocate it.  Fills thread->arena. */
static __noinline int is_data(struct thread_state* thread, struct file* file, __u64 bytes) {
  if (!thread || !thread->file.begin || !thread->file.size_at) return 0;
  if (thread->file.bytes < COWSHED_DATA_BYTES && bytes < COWSHED_DATA_BYTES) return 0;
  struct inode* inode = inode_of(thread);
  const void* name = BPF_CORE_READ(file, f_path.dentry, d_name.name);
  if (is_program((__u64)inode) ||
      bpf_probe_read_kernel_str(thread->arena.name, COWSHED_ARENA_NAME_BYTES, name) <= 0)
    return 0;
  thread->arena.inode = BPF_CORE_READ(inode, i_ino);
  thread->arena.origin = thread->file.begin;
  return 1;
}

static __always_inline int describe(struct thread_state* thread, struct mm_struct* mm,
                                    struct vm_area_struct* vma, __u64 address) {
  if (READ_OBJECT(thread, vma)) return 0;
  __u64 start = WORD_OF(thread, vma, vm_start);
  __u64 end = WORD_OF(thread, vma, vm_end);
  if (address < start || address >= end || WORD_OF(thread, vma, vm_mm) != (__u64)mm) return 0;
  __u64 flags = WORD_OF(thread, vma, vm_flags);
  __u32 traits = MAPPING_FOUND;
  if (flags & VM_WRITE) traits |= MAPPING_WRITABLE;
  if (flags & VM_SHARED) traits |= MAPPING_SHARED;
  if (flags & VM_HUGETLB) traits |= MAPPING_HUGETLB;
  if (flags & VM_UFFD_WP) traits |= MAPPING_UFFD_WP;
  if (flags & VM_UFFD_MISSING) traits |= MAPPING_UFFD_MISSING;
  if (WORD_OF(thread, vma, anon_vma)) traits |= MAPPING_WRITTEN;
  if (flags & VM_MERGEABLE) traits |= MAPPING_MERGEABLE;
  __u64 first_huge = (start + COWSHED_HUGE_BYTES - 1) & HUGE_MASK;
  if (first_huge + COWSHED_HUGE_BYTES <= end) traits |= MAPPING_MAY_BE_HUGE;
  struct file* file = (struct file*)WORD_OF(thread, vma, vm_file);
  thread->file.begin = start - (WORD_OF(thread, vma, vm_pgoff) << PAGE_SHIFT);
  /* A private mapping of /dev/zero has a file but is anonymous: no vm_ops. */
  if (file && WORD_OF(thread, vma, vm_ops)) traits |= describe_file(thread, file);
  if ((traits & (MAPPING_FILE | MAPPING_WRITABLE | MAPPING_SHARED | MAPPING_ARENA |
                 MAPPING_SETTLED)) == (MAPPING_FILE | MAPPING_WRITABLE) &&
      is_data(thread, file, end - start)) {
    traits |= MAPPING_ARENA;
  }
  struct mapping* mapping = &thread->mapping;
  mapping->small_block = 0;
  mapping->start = start;
  mapping->end = end;
  mapping->traits = traits;
  return 1;
}

/* Whether the pending fault, in a mapping of a file, is beyond its end.  Never cached: the size may
 * change while the mapping stays. */
static __always_inline int is_beyond_file(struct thread_state* thread) {
  __u64 size = 0;
  return thread->file.size_at &&
         !bpf_probe_read_kernel(&size, sizeof size, (void*)thread->file.size_at) &&
         ((thread->address - thread->file.begin) & PAGE_MASK) >= size;
}

struct find_vma_context {
  struct mm_struct* mm;
  __u64 address;
  int found;
};

static long describe_found(struct task_struct* task, struct vm_area_struct* vma,
                           struct find_vma_context* context) {
  struct thread_state* thread = state_of(task);
  if (thread) context->found = describe(thread, context->mm, vma, context->address);
  return 0;
}

static __always_inline int is_last_mapping(struct mapping* mapping, struct mm_struct* mm,
                                           __u32 generation, __u64 address) {
  return mapping->mm == mm && mapping->generation == generation && address >= mapping->start &&
         address < mapping->end;
}

/* Returns the MAPPING_ traits of `address` for the running thread, 0 if they are unknown.  With
 * MAPPING_FOUND, thread->mapping is the mapping.  Not static, as walk_node(): the verifier knows
 * only the type of the result, and does not follow each case through all callers, which took half
 * of the time to load. */
__noinline __u32 mapping_traits(struct thread_state* thread, __u64 address) {
  struct task_struct* task = bpf_get_current_task_btf();
  if (!thread) return 0;
  struct mapping* mapping = &thread->mapping;
  struct mm_struct* mm = task->mm;
  if (!mm) return 0;
  __u32 generation = 0;
  __u32 has_generation = mapping_generation(mm, &generation);
  if (has_generation && is_last_mapping(mapping, mm, generation, address)) return mapping->traits;
  mapping->mm = 0; /* nothing valid until it is filled */
  struct vm_area_struct* vma = 0;
  int walk = walk_tree(thread, mm, address, &vma);
  if (walk == WALK_ABSENT) return MAPPING_ABSENT;
  if (walk == WALK_MISS || !describe(thread, mm, vma, address)) {
    __sync_fetch_and_add(&slow_lookups, 1);
    struct find_vma_context context = {.mm = mm, .address = address};
    long refused = bpf_find_vma(task, address, describe_found, &context, 0);
    if (refused == -2) /* -ENOENT */
      return MAPPING_ABSENT;
    if (refused || !context.found) {
      thread->counts.vma_misses++;
      return 0;
    }
  }
  mapping->generation = generation;
  mapping->mm = mm;
  return mapping->traits;
}
