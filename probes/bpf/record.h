/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* The records that the BPF programs and the loader share: plain C of fixed width, without padding.
 * They are no ABI, because both sides are built together. */

#ifdef __cplusplus
#include <linux/types.h>
#endif

#include "arch.h"

/* C has one namespace and the kernel's style.  NOLINTBEGIN(readability-identifier-naming) */

#define COWSHED_UNKNOWN (~0ULL)
#define COWSHED_COMM_BYTES 16
#define COWSHED_ARENA_NAME_BYTES 64 /* what follows "memfd:cowshed:", with its final 0 */

/* The classes of write faults.  Their counters add up to `write_faults`, except for one pending
 * fault per thread. */
enum cowshed_class {
  COWSHED_COPIED_ANON,
  COWSHED_COPIED_FILE,
  COWSHED_REUSED,
  COWSHED_ZERO_PAGE_WRITE,
  COWSHED_ZERO_FILLED,
  COWSHED_WRITE_NOTIFY,
  COWSHED_FAILED,
  COWSHED_OTHER,
  COWSHED_CLASSES,
};

struct cowshed_counts {
  __u64 events;       /* runs of our programs for a tracked thread */
  __u64 write_faults; /* exceptions */
  __u64 faults[COWSHED_CLASSES];
  __u64 zero_filled_pages;    /* of 4 KiB: a huge page is one fault and 512 pages */
  __u64 shared_memory_pages;  /* part of them, in shared mappings */
  __u64 copied_hugetlb_pages; /* of 4 KiB, by faults of class COWSHED_OTHER */
  __u64 copied_hugetlb_file;  /* the part that was a file's */
  __u64 filled_hugetlb;       /* part of zero_filled_pages, by such faults */
  __u64 copied_shared_file;   /* part of COWSHED_COPIED_FILE: of settle(), or of no arena and no
                               * file's data, and written before */
  __u64 copied_merged;        /* part of both: of pages that KSM had merged in the process itself */
  __u64 huge_splits;
  __u64 vma_misses; /* faults whose mapping was not found */
};
/* All are counters of 8 bytes, which are added up word by word. */
#define COWSHED_COUNT_WORDS (sizeof(struct cowshed_counts) / sizeof(__u64))

/* Constant for the life of a process, even if a thread other than the leader calls exec. */
struct cowshed_key {
  __u64 start_ns; /* CLOCK_MONOTONIC start of the thread group leader */
  __u32 tgid;     /* of the initial PID namespace */
  __u32 unused;
};

enum cowshed_process_flags {
  COWSHED_ROOT = 1,          /* named by the user, not a descendant */
  COWSHED_SHARES_MEMORY = 2, /* began in its parent's address space (vfork, posix_spawn) */
  COWSHED_FORK_SEEN = 4,     /* what it shared then is known */
  COWSHED_ENDED = 8,
  COWSHED_PARTED = 16,         /* has left the memory of its fork, by an exec or its end */
  COWSHED_FORKED = 32,         /* runs its parent's program; not a root */
  COWSHED_FORKS = 64,          /* has an entry in the map `fork_costs` */
  COWSHED_OUT_OF_MEMORY = 128, /* the out-of-memory killer chose it */
};

/* What was copied in an address space, by its number.  A later one may have the same slot. */
#define COWSHED_MEMORIES 65536

struct cowshed_memory {
  __u64 id;
  __u64 copied_pages;
  __u64
      settled_pages; /* of settle()'s memfds, copied by it, and before the fork by its ancestors */
};

/* Value of the map `processes`.  A thread's counters are added when it ends, between changes of the
 * two sequence numbers.  `flush_end` is the first word and `flush_begin` the last, so a copy in
 * address order is consistent exactly if they are equal. */
struct cowshed_process {
  __u64 flush_end;
  struct cowshed_counts counts; /* of the ended threads */
  __u64 id;                     /* never 0, unique for the life of the loaded programs */
  __u64 parent_id;              /* 0: the parent is not tracked */
  __u64 end_ns;                 /* CLOCK_MONOTONIC, 0 while alive */
  __u64 shared_at_fork_bytes;
  __u64 shared_arena_bytes; /* at the fork, with settled memory; or COWSHED_UNKNOWN */
  __u64 copied_before_exec; /* before the first */
  __u64 memory;             /* the number of its address space */
  __u64 image; /* the number of the address space after its last exec; a fork inherits it */
  __u64 parents_memory; /* that it was forked from; 0: unknown */
  __u64 parents_copied_at_fork;
  __u64 parents_copied_at_parting;
  __u64 collapsed_pages;
  __u64 page_tables_at_fork;  /* bytes */
  __u64 hugetlb_at_start;     /* bytes */
  __u64 first_copy_ns;        /* CLOCK_MONOTONIC; of sampled threads */
  __u64 resident_before_exec; /* the most, in pages */
  __u64 most_resident_pages;  /* since its last exec, at its end; 0: not known */
  /* Bytes, without shared hugetlb pages; before Linux 6.16 COWSHED_UNKNOWN. */
  __u64 anonymous_at_end;
  /* At samples of its new memory.  Resident anonymous memory: */
  __u64 least_anonymous_bytes;
  __u64 most_risen_bytes; /* above the least until then; 0: there are none */
  __u32 pid;              /* in the loader's PID namespace, 0 where it has none there */
  __u32 ppid;             /* at the start */
  __u32 flags;
  __u32 exit_code; /* as wait(2) reports it */
  __u32 execs;
  __u32 threads_live;
  __u32 threads_total;
  /* The signal that another process, or the kernel for it, sent to end this one; 0: none. */
  __u32 sent_signal;
  __u32 sender; /* its PID in the loader's PID namespace, 0 where it has none there */
  __u32 is_sent_by_kernel;
  char comm[COWSHED_COMM_BYTES];
  char sender_comm[COWSHED_COMM_BYTES];
  __u64 flush_begin;
};

/* Durations by their log2, of which each is divided into 16 parts: from 4 us to 5 hours. */
#define COWSHED_FORK_LEAST_LOG 12
#define COWSHED_FORK_PARTS_LOG 4
#define COWSHED_FORK_DURATIONS (32 << COWSHED_FORK_PARTS_LOG)
#define COWSHED_ERRNOS 64

/* Value of the map `fork_costs`: of all threads of a process since it was first tracked. */
struct cowshed_fork_costs {
  __u64 spawns;   /* vfork, posix_spawn: the child shares its memory, or the parent waits for it */
  __u64 total_ns; /* of all others that succeeded, as the next three fields */
  __u64 longest_ns;
  __u64 beside_threads; /* while the process had other threads */
  __u64 most_threads;   /* that there were beside the one that forked */
  __u64 written_pages;  /* copied or reused by the thread that forked last, until then */
  __u32 durations[COWSHED_FORK_DURATIONS];
  __u32 failed[COWSHED_ERRNOS]; /* of both kinds, by errno; 0: a greater one */
};

/* One per live thread, written by the iterator `dump_threads`. */
struct cowshed_thread_record {
  struct cowshed_key key;
  struct cowshed_counts counts;
  __u32 pending; /* 1: its last fault is in progress, and in no class yet */
  __u32 is_leader;
  __u32 is_torn; /* the counts changed while they were read */
  __u32 unused;
  char comm[COWSHED_COMM_BYTES];
};

/* Private mappings of a file of so many bytes that is no program and no library: the file's data,
 * which its users share until they write to it.  It may be an arena's image, which only the
 * process's published layout can tell. */
#define COWSHED_DATA_BYTES (1ULL << 20)

struct cowshed_arena_key {
  struct cowshed_key process;
  __u64 memory; /* the number of the address space */
  __u64 inode;  /* of the file */
  __u64 origin; /* of data: the address of the file's first byte, mapped or not; 0: a memfd */
};

struct cowshed_arena {
  __u64 copied_pages;
  /* Of data: */
  __u64 copied_again; /* part of copied_pages: of pages that were anonymous */
  __u64 begin;        /* of its mapping, and of those beside it with the same origin */
  __u64 end;
  __u64 file_bytes;
  __u64 written_pages; /* anonymous before the process was first seen to write */
  char name[COWSHED_ARENA_NAME_BYTES];
};

#define COWSHED_INSTRUCTION_BYTES 16 /* the longest instruction has 15 */
#define COWSHED_STACK_BYTES 16384    /* at most, of a sample */
#define COWSHED_LINE_WORDS 8         /* of 8 bytes: such a line lies in one page */
#define COWSHED_LINES_AROUND 3

/* Why an access ended in a signal. */
enum cowshed_failure {
  COWSHED_NO_FAILURE,
  COWSHED_NOT_INHERITED, /* the parent has it, and keeps it from its children: MADV_DONTFORK */
  COWSHED_NOT_MAPPED,
  COWSHED_READ_ONLY,
  COWSHED_NO_ACCESS,
  COWSHED_NOT_EXECUTABLE,
  COWSHED_NO_PAGE, /* SIGBUS: beyond the end of a file, say */
  COWSHED_OTHER_FAILURE,
};

/* Where a program's interpreter keeps what we read: the fields of struct PythonLayout, in its
 * order. */
struct cowshed_python_layout {
  __u64 runtime;
  __u32 interpreters;
  __u32 next_interpreter;
  __u32 threads;
  __u32 next_thread;
  __u32 thread_id;
  __u32 current_frame;
  __u32 cframe;
  __u32 frame_bytes;
  __u32 previous;
  __u32 executable;
  __u32 instruction;
  __u32 owner;
  __u32 is_entry;
  __u32 file;
  __u32 function;
  __u32 line_table;
  __u32 first_line;
  __u32 code;
  __u32 ascii_text;
  __u32 wide_text;
};

/* The first word of each record in the ring buffer. */
enum cowshed_record_kind {
  COWSHED_COPY_RECORD,
  COWSHED_FORK_RECORD, /* the stack of a fork, sent before the child's first sample */
  COWSHED_PYTHON_CODE_RECORD,
  COWSHED_PYTHON_TYPE_RECORD,
};

#define COWSHED_PYTHON_FRAMES 64
#define COWSHED_PYTHON_IDS 16384 /* of code objects and types that the kernel's side remembers */
#define COWSHED_PYTHON_TEXT_BYTES 512
#define COWSHED_PYTHON_NAME_BYTES 64
#define COWSHED_PYTHON_LINES_BYTES 16384

struct cowshed_python_frame {
  __u32 code;        /* the number in its record; 0: could not be read */
  __u32 instruction; /* in code units; with COWSHED_PYTHON_ENTRY: called by C code */
};

#define COWSHED_PYTHON_ENTRY (1U << 31)

/* A text of a str: `bytes` bytes of characters of `width` bytes each. */
struct cowshed_python_text {
  __u32 bytes;
  __u32 width;
  __u8 text[COWSHED_PYTHON_TEXT_BYTES];
};

/* A code object, sent before the first sample that refers to it.  Only lines_bytes of `lines` are
 * sent. */
struct cowshed_python_code {
  __u64 kind;
  __u32 id;
  __u32 first_line;
  __u32 lines_bytes;
  __u32 unused;
  struct cowshed_python_text function;
  struct cowshed_python_text file;
  __u8 lines[COWSHED_PYTHON_LINES_BYTES + COWSHED_PAGE_BYTES]; /* room to read page by page */
};

/* A type, sent before the first sample that refers to it. */
struct cowshed_python_type {
  __u64 kind;
  __u64 name_at; /* the address of its name */
  __u32 id;
  __u32 is_named;
  char name[COWSHED_PYTHON_NAME_BYTES];
};

/* A copy, a page of new memory, or an access that ended in a signal, and the state of its thread.
 * Only stack_bytes of `stack` are sent. */
struct cowshed_sample {
  __u64 kind;
  __u64 process_id;
  __u64 address;
  __u64 risen_bytes; /* of a sample of new memory: by how much that has risen */
  __u64 registers[COWSHED_REGISTERS];
  __u32 pid;   /* in the loader's PID namespace */
  __u32 execs; /* of the process before the copy */
  __u32 fault_class;
  __u16 user_mode;
  __u16 is_handled; /* the program has a handler for the signal */
  __u32 instruction_bytes;
  __u32 stack_bytes;
  __u32 failure;     /* enum cowshed_failure */
  __u16 is_of_stack; /* between the stack pointer and the end of the stack */
  __u16 file_mode;   /* i_mode of the descriptor in a system call's first argument; 0: none */
  __u32 copies;      /* or new pages, that it stands for */
  __u32 missed;      /* new pages before, for whose samples there was no room */
  /* The lines before, at and after the address, as far as they are in its page.  Bit i: line i was
   * read. */
  __u64 around[COWSHED_LINES_AROUND * COWSHED_LINE_WORDS];
  __u64 around_readable;
  __u8 instruction[COWSHED_INSTRUCTION_BYTES];
  char arena[COWSHED_ARENA_NAME_BYTES];
  __u32 object_type; /* the number in its record; 0: none */
  __s32 object_offset;
  __u32 python_frames;
  __u16 is_python_cut;
  __u16 is_in_code; /* of Python that runs: the interpreter rewrites it */
  struct cowshed_python_frame python[COWSHED_PYTHON_FRAMES];
  __u8 stack[COWSHED_STACK_BYTES + COWSHED_PAGE_BYTES]; /* room to read page by page */
};

/* One page in each block is sampled. */
struct sample_turn {
  __u32 until; /* pages up to the sample */
  __u32 after; /* pages of the same block after it */
  __u32 block; /* pages; 0: none is begun */
};

/* Without samples of new memory.  Per CPU: a ring buffer does not count the records that it
 * refuses. */
struct cowshed_sample_counts {
  __u64 emitted;
  __u64 lost;    /* part of `emitted`: no room in the ring buffer, or the scratch was in use */
  __u64 is_busy; /* a program fills this CPU's scratch, and may be preempted meanwhile */
  struct sample_turn turn;       /* of copies */
  struct sample_turn fresh_turn; /* of new memory */
};

enum cowshed_adopt_mode {
  COWSHED_ADOPT_NOTHING,
  COWSHED_ADOPT_COMMAND, /* one process before its exec */
  COWSHED_ADOPT_TREES,   /* processes with their threads and descendants */
};

/* The loader's request to the iterator `adopt`, and the result. */
struct cowshed_adoption {
  __u32 mode;
  __u32 processes; /* adopted by this run */
  __u32 threads;
  __u32 unused;
};

/* Value of the map `roots`: a process to adopt, by PID in the loader's namespace. */
struct cowshed_root {
  __u32 is_found;
};

/* Lost events.  A measurement is exact only while all are 0. */
struct cowshed_losses {
  __u64 threads;   /* no memory for a thread's state: its faults are not counted */
  __u64 processes; /* no room for a process's record */
  __u64 arenas;    /* no room for an arena's count; the page itself was counted */
  __u64 late;      /* counted after the process's final record had been taken */
  __u64 missed;    /* faults whose page was missed, and cannot be told from the page table */
};

/* NOLINTEND(readability-identifier-naming) */
