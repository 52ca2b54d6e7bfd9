/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "page_table.bpf.h"
#include "vma_lookup.bpf.h"

/* The class of a write fault: a copy, or one of the classes that copy nothing.  It depends on the
 * mapping, on whether a page was there (`protection`), and on the page that the kernel allocates.
 */

static __always_inline __u32 copied_class(__u32 traits) {
  return traits & MAPPING_FILE ? COWSHED_COPIED_FILE : COWSHED_COPIED_ANON;
}

/* The class if the kernel allocates no page. */
static __always_inline __u32 class_without_page(__u32 traits, __u32 protection) {
  /* Without a mapping the fault fails, unless the stack grows: then the kernel allocates. */
  if (traits && !(traits & MAPPING_WRITABLE)) return COWSHED_FAILED;
  if (traits & (MAPPING_HUGETLB | MAPPING_UFFD_WP)) return COWSHED_OTHER;
  if (!protection) return COWSHED_OTHER;
  if (traits & MAPPING_SHARED) return COWSHED_WRITE_NOTIFY;
  return COWSHED_REUSED;
}

/* Whether no allocation can change that class.  A file system may allocate while it makes a page of
 * a shared mapping writable.  For an anonymous mapping the kernel allocates a page before it finds
 * that userfaultfd provides one. */
static __always_inline int is_class_final(__u32 traits, __u32 protection) {
  if (!traits || traits & MAPPING_ABSENT) return 0;
  if (!(traits & MAPPING_WRITABLE)) return 1;
  if (traits & MAPPING_HUGETLB) return 1;
  if (!protection && traits & MAPPING_UFFD_MISSING) return !(traits & MAPPING_FILE);
  return protection && traits & MAPPING_SHARED;
}

/* The class of a write to a private page that was not there, for which the kernel allocates a page
 * that it does not fill with zeros.  COWSHED_CLASSES: the page serves another purpose, and the
 * fault is still pending. */
static __noinline __u32 class_of_absent_page(struct thread_state* thread, __u32 order) {
  __u32 traits = thread->pending.traits;
  __u32 entry = page_entry(thread->address);
  /* The fault has fetched a page from swap and copies it now, because it is shared. */
  if (entry == ENTRY_PRESENT) return copied_class(traits);
  if (entry == ENTRY_SWAP || entry == ENTRY_PROT_NONE) return COWSHED_CLASSES;
  if (entry == ENTRY_UNKNOWN) thread->counts.vma_misses++;
  if (traits & MAPPING_FILE) {
    /* The kernel allocates before it asks the file for the page to copy (do_cow_fault). */
    return is_beyond_file(thread) ? COWSHED_FAILED : COWSHED_COPIED_FILE;
  }
  return order ? COWSHED_ZERO_FILLED : COWSHED_OTHER; /* a huge page is cleared later */
}

#define MAPPING_RETRIES 8

/* The mapping was not found when the fault entered, for example because another thread was mapping
 * memory.  Now the kernel holds the mapping. */
static __noinline int retry_mapping(struct thread_state* thread) {
  struct pending_fault* fault = &thread->pending;
  for (int i = 0; i < MAPPING_RETRIES && !(fault->traits & MAPPING_FOUND); i++) {
    if (!fault->traits) thread->counts.vma_misses--;
    fault->traits = mapping_traits(thread, thread->address);
  }
  return 0;
}

/* The class if the kernel allocates a page of that order with those flags.  COWSHED_CLASSES: as
 * class_of_absent_page(). */
static __always_inline __u32 class_with_page(struct thread_state* thread, __u32 order, __u32 gfp) {
  struct pending_fault* fault = &thread->pending;
  if (!(fault->traits & MAPPING_FOUND)) retry_mapping(thread);
  __u32 traits = fault->traits;
  if (fault->protection)
    return gfp & gfp_zero || order ? COWSHED_ZERO_PAGE_WRITE : copied_class(traits);
  if (gfp & gfp_zero) return COWSHED_ZERO_FILLED;
  if (traits & MAPPING_ABSENT) return COWSHED_FAILED; /* a page of the core dump's file */
  if (traits & MAPPING_SHARED) return traits & MAPPING_SHMEM ? COWSHED_ZERO_FILLED : COWSHED_OTHER;
  return class_of_absent_page(thread, order);
}

/* Whether an allocation can be the page of a write fault. */
static __always_inline int can_be_for_fault(const void* page, __u32 order, __u32 gfp) {
  if (!(gfp & gfp_movable) || !page) return 0;
  /* Read-ahead and write(2) allocate pages of the page cache. */
  if (!order && gfp & gfp_page_cache) return 0;
  return 1;
}
