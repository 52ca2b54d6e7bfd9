/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "maps.bpf.h"

/* The page table entry of an address.  It tells a page that returns from swap from a page that was
 * never there.  A walk reads the kernel's memory up to five times, so it is the last resort.  Page
 * tables are in the direct map of all memory, at a random address: the loader runs a program that
 * searches for it, by a token that the loader has put into its own memory. */

#define PTE_PRESENT 0x1ULL  /* arch/x86/include/asm/pgtable_types.h */
#define PTE_ERRATUM 0x60ULL /* accessed and dirty, which some CPUs leave in an empty entry */
#define PTE_LARGE 0x80ULL
#define PTE_PROT_NONE 0x100ULL /* where PTE_PRESENT is not set */
#define PTE_UFFD_WP 0x400ULL
#define PTE_TYPE_SHIFT 59 /* of a swap entry */
#define PTE_MARKER 31     /* the last type: no page, only a mark */
/* Without the encryption bit, 47 or 51.  Linux maps at most 64 TiB with four levels, and no machine
 * has the memory to need bit 51 with five. */
#define FRAME_OF_4_LEVELS 0x00003ffffffff000ULL
#define FRAME_OF_5_LEVELS 0x0007fffffffff000ULL
#define LEAST_WITH_4_LEVELS 0xffff800000000000ULL /* kernel addresses */
#define LEAST_DIRECT_MAP 0xff11000000000000ULL

__u64 direct_map;   /* the kernel's address of physical address 0; 0: unknown */
__u64 page_structs; /* of the struct page of physical address 0; 0: unknown */
__u64 zero_page;    /* the physical address of the page that reads map; 0: unknown */

struct table_walk {
  __u64 direct_map;
  __u64 table; /* the kernel's address of the top level */
  __u64 entry; /* the last one: of a page, or without a next table */
  __u64 at;    /* the kernel's address of it */
  __u32 shift; /* its level's */
};

static __always_inline __u64 frame_of(struct table_walk* walk, __u64 entry) {
  return entry & (walk->table < LEAST_WITH_4_LEVELS ? FRAME_OF_5_LEVELS : FRAME_OF_4_LEVELS);
}

/* Returns 0, or the error of a read. */
static __always_inline long walk_tables(struct table_walk* walk, __u64 address) {
  __u64 table = walk->table;
  __u32 shift = table < LEAST_WITH_4_LEVELS ? 48 : 39;
  for (int level = 0; level < 5; level++) {
    walk->at = table + ((address >> shift & 511) << 3);
    long failed = bpf_probe_read_kernel(&walk->entry, sizeof walk->entry, (void*)walk->at);
    if (failed) return failed;
    if (shift <= PAGE_SHIFT || !(walk->entry & PTE_PRESENT) || walk->entry & PTE_LARGE) break;
    table = walk->direct_map + frame_of(walk, walk->entry);
    shift -= 9;
  }
  walk->shift = shift;
  return 0;
}

/* The physical address of the page that the entry maps. */
static __always_inline __u64 page_of_entry(struct table_walk* walk) {
  return frame_of(walk, walk->entry) & ~((1ULL << (walk->shift & 63)) - 1);
}

#define LEAST_HEAD_MASK 0xffffffff00000000ULL

/* The struct page of the first page of the folio that `page` belongs to.  The second word of a
 * tail has bit 0, and the rest is the head's address or, since 7.2, may be a mask for it
 * (_compound_head, include/linux/page-flags.h). */
static __always_inline __u64 head_of(__u64 page) {
  __u64 second = 0;
  bpf_probe_read_kernel(&second, sizeof second, (void*)(page + sizeof second));
  if (!(second & 1)) return page;
  return second >= LEAST_HEAD_MASK ? page & second & ~1ULL : second & ~1ULL;
}

/* The folio of the page at that physical address. */
static __always_inline struct folio* folio_at(__u64 physical) {
  return (void*)head_of(page_structs + (physical >> PAGE_SHIFT) * bpf_core_type_size(struct page));
}

#define PAGE_MAPPING_ANON 1 /* in page.mapping, include/linux/page-flags.h */
#define PAGE_MAPPING_KSM 3

/* The folio of the page that `entry` maps at `address` for the running task; 0: unknown. */
static __always_inline struct folio* mapped_folio(__u64 address, __u64* entry) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct mm_struct* mm = task->mm;
  if (!mm || !direct_map || !page_structs) return 0;
  struct table_walk walk = {.direct_map = direct_map, .table = (__u64)BPF_CORE_READ(mm, pgd)};
  if (walk_tables(&walk, address) || !(walk.entry & PTE_PRESENT)) return 0;
  *entry = walk.entry;
  return folio_at(page_of_entry(&walk));
}

static __always_inline int is_anonymous(struct folio* folio) {
  return (__u64)BPF_CORE_READ(folio, mapping) & PAGE_MAPPING_ANON;
}

/* Whether the page at `address`, in a private mapping of a file, is no longer the file's: this
 * process or an ancestor wrote to it.  If that is unknown, it is the file's.  Not static, as
 * walk_node(). */
__noinline __u32 was_written(__u64 address) {
  __u64 entry = 0;
  struct folio* folio = mapped_folio(address, &entry);
  return folio && is_anonymous(folio);
}

/* Whether KSM has merged the folio, since the running process was forked. */
static __always_inline int is_merged(struct folio* folio) {
  struct mm_struct* mm = ((struct task_struct*)bpf_get_current_task_btf())->mm;
  if (((__u64)BPF_CORE_READ(folio, mapping) & 3) != PAGE_MAPPING_KSM) return 0;
  return mm && bpf_core_field_exists(mm->ksm_merging_pages) && mm->ksm_merging_pages;
}

/* The same of the page at `address`.  Not static, as walk_node(). */
__noinline __u32 was_merged(__u64 address) {
  __u64 entry = 0;
  struct folio* folio = mapped_folio(address, &entry);
  return folio && is_merged(folio);
}

enum { PAGE_REUSED, PAGE_COPIED, PAGE_OF_FILE_COPIED };

/* Returns what a write to a write-protected huge page of hugetlbfs at `address` does.  The kernel
 * reuses a page that is anonymous and that no other process maps (hugetlb_wp, mm/hugetlb.c).  If
 * that is unknown, the page counts as copied.  Not static, as walk_node(). */
__noinline __u32 fate_of_page(__u64 address) {
  __u64 entry = 0;
  struct folio* folio = mapped_folio(address, &entry);
  if (!folio) return PAGE_COPIED;
  if (entry & PTE_UFFD_WP) return PAGE_REUSED; /* the fault only informs userfaultfd */
  if (!is_anonymous(folio)) return PAGE_OF_FILE_COPIED;
  int others = bpf_core_field_exists(folio->_entire_mapcount)
                   ? BPF_CORE_READ(folio, _entire_mapcount.counter)
                   : BPF_CORE_READ((struct folio___v6_1*)folio, _total_mapcount.counter);
  return others > 0 ? PAGE_COPIED : PAGE_REUSED;
}

#define XARRAY_LEVELS 11 /* of 64 slots */
#define ELF_MAGIC 0x464c457fU
#define ELF_TYPE_AT 16
#define ELF_CORE 4

/* Whether a file begins as a program or a library does.  The page cache has the first page of one
 * that runs.  Not static, as walk_node(). */
__noinline __u32 is_program(__u64 inode) {
  __u64 entry = (__u64)BPF_CORE_READ((struct inode*)inode, i_mapping, i_pages.xa_head);
  __u32 word = 0;
  if (!direct_map || !page_structs) return 1;
  for (int level = 0; level < XARRAY_LEVELS && (entry & 3) == 2; level++) {
    struct xa_node* node = (struct xa_node*)(entry & ~3ULL);
    if (bpf_probe_read_kernel(&entry, sizeof entry, &node->slots[0])) return 0;
  }
  if (!entry || entry & 3) return 0; /* not cached */
  __u64 frame = (entry - page_structs) / bpf_core_type_size(struct page);
  void* file = (void*)(direct_map + (frame << PAGE_SHIFT));
  if (bpf_probe_read_kernel(&word, sizeof word, file) || word != ELF_MAGIC) return 0;
  bpf_probe_read_kernel(&word, sizeof word, file + ELF_TYPE_AT);
  return (__u16)word != ELF_CORE;
}

struct written_search {
  struct thread_state* thread;
  __u64 table;
  __u64 next;
  __u64 end;
  __u64 pages;
};

/* 0 or 1, without a branch: of each the verifier would follow both ways, for all entries. */
static __always_inline __u64 is_written(__u64 entry) {
  __u64 mapped = entry | entry >> 8;      /* PTE_PRESENT, PTE_PROT_NONE */
  __u64 dirty = entry >> 6 | entry >> 58; /* of a write-protected page since 6.6 */
  return mapped & dirty & 1;
}

/* One entry of a higher level, or so many entries of pages as thread->node has room for. */
static long add_written(__u32 index, struct written_search* search) {
  struct table_walk walk = {.direct_map = direct_map, .table = search->table};
  __u64* entries = search->thread->node;
  __u64 first = search->next;
  if (first >= search->end || walk_tables(&walk, first)) return 1;
  __u64 bytes =
      walk.shift > PAGE_SHIFT ? 1ULL << (walk.shift & 63) : MAPLE_NODE_WORDS << PAGE_SHIFT;
  __u64 begin = first & ~(bytes - 1);
  search->next = begin + bytes;
  if (walk.shift > PAGE_SHIFT) {
    search->pages += is_written(walk.entry) * (bytes >> PAGE_SHIFT);
    return 0;
  }
  __u64 at = walk.at & ~(MAPLE_NODE_WORDS * sizeof(__u64) - 1);
  if (bpf_probe_read_kernel(entries, sizeof search->thread->node, (void*)at)) return 1;
  __u64 wanted = ~0ULL << ((first - begin) >> PAGE_SHIFT & 63); /* a bit for each entry */
  if (search->end < search->next) wanted &= ~(~0ULL << ((search->end - begin) >> PAGE_SHIFT & 63));
  __u64 pages = 0;
  for (__u32 i = 0; i < MAPLE_NODE_WORDS; i++) pages += is_written(entries[i]) & wanted >> i;
  search->pages += pages;
  return 0;
}

#define MOST_WRITTEN_STEPS 32768 /* 4 GiB of small pages */

/* The resident pages from `begin` to `end`, of private mappings of a file, that are not the file's.
 * A page that was written is dirty, and a file's page here never is. */
static __noinline __u64 written_pages(struct thread_state* thread, __u64 begin, __u64 end) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct written_search search = {.thread = thread, .next = begin, .end = end};
  if (!task->mm || !direct_map) return 0;
  search.table = (__u64)BPF_CORE_READ(task, mm, pgd);
  bpf_loop(MOST_WRITTEN_STEPS, add_written, &search, 0);
  return search.pages;
}

/* The kernel's address of the byte at `address` in the running task; 0: unknown, or no page is
 * there. Not static, as walk_node(). */
__noinline __u64 kernel_address(__u64 address) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct mm_struct* mm = task->mm;
  if (!mm || !direct_map) return 0;
  struct table_walk walk = {.direct_map = direct_map, .table = (__u64)BPF_CORE_READ(mm, pgd)};
  if (walk_tables(&walk, address) || !(walk.entry & PTE_PRESENT)) return 0;
  return direct_map + page_of_entry(&walk) + (address & ((1ULL << (walk.shift & 63)) - 1));
}

static __always_inline __u32 kind_of_entry(__u64 entry) {
  if (entry & PTE_PRESENT) return ENTRY_PRESENT;
  if (!(entry & ~PTE_ERRATUM)) return ENTRY_NONE;
  if (entry & PTE_PROT_NONE) return ENTRY_PROT_NONE;
  return entry >> PTE_TYPE_SHIFT == PTE_MARKER ? ENTRY_NONE : ENTRY_SWAP;
}

/* Returns an enum page_entry for the running task.  Not static, as walk_node(). */
__noinline __u32 page_entry(__u64 address) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct mm_struct* mm = task->mm;
  if (!mm || !direct_map) return ENTRY_UNKNOWN;
  struct table_walk walk = {.direct_map = direct_map, .table = (__u64)BPF_CORE_READ(mm, pgd)};
  if (walk_tables(&walk, address)) return ENTRY_UNKNOWN;
  return kind_of_entry(walk.entry);
}

/* Fills `view` by the page table `table`, of a mapping with these traits.  Not static, as
 * walk_node(). */
__noinline int view_page(struct page_view* view, __u64 table, __u64 address, __u32 traits) {
  __u32 is_file = traits & MAPPING_FILE;
  if (!view) return 0;
  __builtin_memset(view, 0, sizeof *view); /* ENTRY_UNKNOWN */
  if (!table || !direct_map) return 0;
  struct table_walk walk = {.direct_map = direct_map, .table = table};
  if (walk_tables(&walk, address)) return 0;
  view->entry = kind_of_entry(walk.entry);
  if (view->entry == ENTRY_PROT_NONE) walk.entry = ~walk.entry; /* pgtable-invert.h */
  else if (view->entry != ENTRY_PRESENT) return 0;
  __u64 first = page_of_entry(&walk);
  __u64 offset = address & ((1ULL << (walk.shift & 63)) - 1);
  view->page = first + (offset & PAGE_MASK);
  view->is_huge = walk.shift > PAGE_SHIFT;
  view->is_zeros = zero_page && view->page == zero_page;
  view->is_anonymous = 1;
  if (page_structs && (is_file || view->is_huge))
    view->is_anonymous = is_anonymous(folio_at(first));
  if (page_structs && traits & MAPPING_MERGEABLE) view->is_merged = is_merged(folio_at(first));
  if (view->is_huge && !is_file && !view->is_anonymous) view->is_zeros = 1;
  return 0;
}

/* Whether other processes map the small page at that physical address, or refer to it. */
static __always_inline __u32 sharers_of(__u64 physical) {
  struct {
    int mappings; /* less 1 */
    int references;
  } counts = {};
  struct page* page =
      (void*)(page_structs + (physical >> PAGE_SHIFT) * bpf_core_type_size(struct page));
  if (!page_structs ||
      bpf_core_field_offset(page->_refcount) - bpf_core_field_offset(page->_mapcount) !=
          sizeof counts.mappings ||
      bpf_probe_read_kernel(&counts, sizeof counts, &page->_mapcount)) {
    return SHARERS_UNKNOWN;
  }
  if (counts.mappings > 0) return SHARERS_SOME;
  return counts.mappings == 0 && counts.references == 1 ? SHARERS_NONE : SHARERS_UNKNOWN;
}

/* The number of pages of the folio at that physical address; 0: unknown. */
static __always_inline __u32 pages_of_folio(__u64 physical) {
  if (!page_structs || !bpf_core_enum_value_exists(enum pageflags, PG_head)) return 0;
  __u64 head = (__u64)folio_at(physical);
  __u64 flags = 0;
  if (bpf_probe_read_kernel(&flags, sizeof flags, (void*)head)) return 0;
  if (!(flags >> (bpf_core_enum_value(enum pageflags, PG_head) & 63) & 1)) return 1;
  if (bpf_probe_read_kernel(&flags, sizeof flags, (void*)(head + bpf_core_type_size(struct page))))
    return 0;
  return 1U << (flags & 31); /* folio_large_order(): in the flags of the second page */
}

#define TOKEN_WORDS 4
#define MOST_GIB (1 << 20)

/* The address of the loader's token, and its content; and of a page that the loader has only read.
 */
struct token {
  __u64 address;
  __u64 words[TOKEN_WORDS];
  __u64 untouched;
};

struct direct_map_search {
  const struct token* token;
  __u64 table;
};

/* The direct map begins at a whole GiB (kernel_randomize_memory), so the address of the top table
 * leaves one candidate for each GiB of memory below it.  The right candidate leads to the token. */
static long try_direct_map(__u32 gib, struct direct_map_search* search) {
  struct table_walk walk = {.table = search->table};
  walk.direct_map = (search->table & ~0x3fffffffULL) - ((__u64)gib << 30);
  if (walk.direct_map < LEAST_DIRECT_MAP) return 1;
  __u64 address = search->token->address;
  if (walk_tables(&walk, address) || !(walk.entry & PTE_PRESENT)) return 0;
  __u64 words[TOKEN_WORDS] = {};
  __u64 at = walk.direct_map + page_of_entry(&walk) + (address & ((1ULL << (walk.shift & 63)) - 1));
  if (bpf_probe_read_kernel(words, sizeof words, (void*)at)) return 0;
  __u64 difference = 0;
  for (int i = 0; i < TOKEN_WORDS; i++) difference |= words[i] ^ search->token->words[i];
  if (difference) return 0;
  direct_map = walk.direct_map;
  return 1;
}

/* A kernel stack is mapped page by page.  The kernel has the address of each page's struct page,
 * and the page table has the page's physical address. */
static __always_inline void find_page_structs(struct task_struct* task, __u64 table) {
  if (!direct_map || !bpf_core_field_exists(task->stack_vm_area)) return;
  struct table_walk walk = {.direct_map = direct_map, .table = table};
  __u64 stack = (__u64)BPF_CORE_READ(task, stack);
  __u64 page = 0;
  bpf_probe_read_kernel(&page, sizeof page, BPF_CORE_READ(task, stack_vm_area, pages));
  if (!page || walk_tables(&walk, stack) || !(walk.entry & PTE_PRESENT) || walk.shift != PAGE_SHIFT)
    return;
  page_structs = page - (page_of_entry(&walk) >> PAGE_SHIFT) * bpf_core_type_size(struct page);
}

/* The loader runs it once. */
SEC("syscall")
int find_direct_map(struct token* token) {
  struct token copy = *token;
  struct task_struct* task = bpf_get_current_task_btf();
  if (task->mm) {
    struct direct_map_search search = {.token = &copy,
                                       .table = (__u64)BPF_CORE_READ(task, mm, pgd)};
    bpf_loop(MOST_GIB, try_direct_map, &search, 0);
    find_page_structs(task, search.table);
    struct page_view untouched = {};
    view_page(&untouched, search.table, copy.untouched, 0);
    if (untouched.entry == ENTRY_PRESENT && !untouched.is_huge) zero_page = untouched.page;
  }
  return 0;
}
