/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

#include "user_memory.bpf.h"

/* For a thread of CPython: its Python frames, and the object that is written.  Everything that is
 * read here may be forged, so each loop is bounded. */

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 8192);
  __type(key, __u64); /* cowshed_process::image */
  __type(value, struct cowshed_python_layout);
} interpreters SEC(".maps");

/* A code object or a type.  Some of its words tell it from a later one at the same address. */
struct python_key {
  __u64 image;
  __u64 address;
  __u64 words[3];
};

/* The numbers of those that were sent. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, COWSHED_PYTHON_IDS);
  __type(key, struct python_key);
  __type(value, __u32);
} python_ids SEC(".maps");

__u32 last_python_id;

#define MOST_WORDS 32

struct python_scratch {
  __u64 copied; /* as read_page() has it */
  __u64 thread_id;
  __u64 interpreter; /* the walk's place */
  __u64 thread;
  __u64 frame;
  struct python_key key;
  __u64 words[MOST_WORDS]; /* of a frame, a code object or a type */
  struct cowshed_python_type type;
  struct cowshed_python_code code;
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct python_scratch);
} python_scratch SEC(".maps");

/* On the stack, which is short. */
struct python_walk {
  struct cowshed_sample* sample;
  struct python_scratch* scratch;
  struct cowshed_python_layout* layout;
};

static __always_inline __u64 word_at(struct python_walk* walk, __u64 address) {
  return read_word(walk->sample->address, address, walk->scratch->copied);
}

/* Hides a number from the compiler, so that it leaves out no check of the bounds. */
#define OPAQUE(number)               \
  ({                                 \
    __u64 opaque = (number);         \
    asm volatile("" : "+r"(opaque)); \
    opaque;                          \
  })

/* An index below `size`, a power of two, in a way that the verifier of 6.1 follows. */
#define BOUNDED(index, size) (OPAQUE(index) & ((size) - 1))

/* Reads words into python_scratch.  Those in an absent page are 0.  Not static, as walk_node(). */
__noinline long read_words(__u64 written, __u64 copied, __u64 from, __u32 bytes) {
  __u32 slot = 0;
  struct python_scratch* scratch = bpf_map_lookup_elem(&python_scratch, &slot);
  if (!scratch || bytes > sizeof scratch->words) return -1;
  if (is_elsewhere(written, from, bytes))
    return bpf_probe_read_user(scratch->words, bytes, (void*)from);
  for (__u32 i = 0; i < MOST_WORDS && i * sizeof(__u64) < bytes; i++)
    scratch->words[i] = read_word(written, from + i * sizeof(__u64), copied);
  return 0;
}

static __always_inline __u32 known_id(struct python_scratch* scratch) {
  __u32* id = bpf_map_lookup_elem(&python_ids, &scratch->key);
  return id ? *id : 0;
}

/* After its record was sent: else another CPU might send a sample that refers to it before. */
static __always_inline void keep_id(struct python_scratch* scratch, __u32 id) {
  bpf_map_update_elem(&python_ids, &scratch->key, &id, BPF_ANY);
}

/* Code objects. */

#define OBJECT_TYPE 8    /* in every object; before it, its reference count */
#define OBJECT_SIZE 16   /* in a bytes, a type and a code object; the length of a str */
#define STR_STATE 32     /* in a str: 2 bits of another use, 3 of the characters' width */
#define STR_COMPACT 0x20 /* its text follows */
#define STR_ASCII 0x40
#define BYTES_TEXT 32

/* What send_code() reads with. */
struct text_source {
  __u64 written;
  __u64 copied;
  __u32 ascii_text;
  __u32 wide_text;
};

/* Reads the end of a str, which is the telling part of a path. */
static __always_inline int read_str(struct cowshed_python_text* text, __u64 str, __u32 most,
                                    struct text_source* source) {
  text->bytes = 0;
  __u64 length = read_word(source->written, str + OBJECT_SIZE, source->copied);
  __u64 state = read_word(source->written, str + STR_STATE, source->copied);
  __u32 width = (state >> 2) & 7;
  if (!(state & STR_COMPACT) || (width != 1 && width != 2 && width != 4) || length > 1U << 20)
    return 0;
  __u64 from = str + (state & STR_ASCII ? source->ascii_text : source->wide_text);
  __u32 bytes = length * width;
  if (bytes > most) {
    from += bytes - most;
    bytes = most;
  }
  __u32 here = BYTES_TO_PAGE_END(from);
  if (here > bytes) here = bytes;
  __u32 rest = bytes - here;
  if (here > COWSHED_PYTHON_TEXT_BYTES || rest > COWSHED_PYTHON_TEXT_BYTES ||
      read_page(source->written, text->text, here, from, source->copied) ||
      (rest && read_page(source->written, text->text + here, rest, from + here, source->copied))) {
    return 0;
  }
  text->width = width;
  text->bytes = bytes;
  return 0;
}

static __always_inline void read_lines(struct cowshed_python_code* code, __u64 table,
                                       struct text_source* source) {
  __u64 size = read_word(source->written, table + OBJECT_SIZE, source->copied);
  __u64 from = table + BYTES_TEXT;
  __u32 used = 0;
  for (int i = 0; i <= COWSHED_PYTHON_LINES_BYTES / COWSHED_PAGE_BYTES; i++) {
    __u32 piece = BYTES_TO_PAGE_END(from + used);
    if (used >= size || used >= COWSHED_PYTHON_LINES_BYTES ||
        read_page(source->written, code->lines + used, piece, from + used, source->copied)) {
      break;
    }
    used += piece;
  }
  if (used > COWSHED_PYTHON_LINES_BYTES) used = COWSHED_PYTHON_LINES_BYTES;
  code->lines_bytes = used < size ? used : size;
}

/* Sends the code object of scratch->key, and returns its number; 0: it cannot be read or sent.  Not
 * static, as walk_node(). */
__noinline __u32 send_code(__u64 written, __u64 copied, __u32 first_line) {
  __u32 slot = 0;
  struct python_scratch* scratch = bpf_map_lookup_elem(&python_scratch, &slot);
  if (!scratch) return 0;
  struct cowshed_python_layout* layout = bpf_map_lookup_elem(&interpreters, &scratch->key.image);
  if (!layout) return 0;
  struct text_source source = {written, copied, layout->ascii_text, layout->wide_text};
  struct cowshed_python_code* code = &scratch->code;
  code->kind = COWSHED_PYTHON_CODE_RECORD;
  code->first_line = first_line;
  read_str(&code->function, scratch->key.words[0], COWSHED_PYTHON_TEXT_BYTES / 2, &source);
  read_str(&code->file, scratch->key.words[1], COWSHED_PYTHON_TEXT_BYTES, &source);
  if (!code->function.bytes || !code->file.bytes) return 0;
  read_lines(code, scratch->key.words[2], &source);
  __u64 lines = OPAQUE(code->lines_bytes);
  if (lines > COWSHED_PYTHON_LINES_BYTES) return 0;
  __u32 id = __sync_fetch_and_add(&last_python_id, 1) + 1;
  code->id = id;
  if (bpf_ringbuf_output(&samples, code,
                         __builtin_offsetof(struct cowshed_python_code, lines) + lines, 0)) {
    return 0;
  }
  keep_id(scratch, id);
  return id;
}

/* In scratch->words. */
static __always_inline __u64 word_in(struct python_scratch* scratch, __u32 offset) {
  return scratch->words[BOUNDED(offset / sizeof(__u64), MOST_WORDS)];
}

static __always_inline __u32 byte_in(struct python_scratch* scratch, __u32 offset) {
  return word_in(scratch, offset) >> (offset % sizeof(__u64) * 8) & 0xff;
}

/* Frames. */

#define OWNED_BY_C 3 /* or more: no frame of Python code, but the mark of a call by C code */
#define TAG_BITS 7   /* of a reference in a frame, since 3.14 */

static __always_inline void read_code(struct python_walk* walk, struct cowshed_python_frame* to,
                                      __u64 address, __u64 instruction) {
  struct python_scratch* scratch = walk->scratch;
  struct cowshed_python_layout* layout = walk->layout;
  __u32 bytes = layout->code;
  if (read_words(walk->sample->address, walk->scratch->copied, address, bytes)) return;
  __u64 size = word_in(scratch, OBJECT_SIZE); /* in units of 2 bytes */
  if (walk->sample->address - address - bytes < size * 2) walk->sample->is_in_code = 1;
  __s64 offset = instruction - address - bytes;
  if (offset < 0) offset = 0; /* the first instruction has not run yet */
  __u64 units = (__u64)offset / 2;
  if (units >= size) return;
  to->instruction = units & ~COWSHED_PYTHON_ENTRY;
  scratch->key.address = address;
  scratch->key.words[0] = word_in(scratch, layout->function);
  scratch->key.words[1] = word_in(scratch, layout->file);
  scratch->key.words[2] = word_in(scratch, layout->line_table);
  to->code = known_id(scratch);
  if (to->code) return;
  __u32 line = word_in(scratch, layout->first_line) >> (layout->first_line % sizeof(__u64) * 8);
  to->code = send_code(walk->sample->address, walk->scratch->copied, line);
}

static long read_frame(__u32 step, struct python_walk* walk) {
  struct python_scratch* scratch = walk->scratch;
  struct cowshed_python_layout* layout = walk->layout;
  struct cowshed_sample* sample = walk->sample;
  __u32 count = sample->python_frames;
  if (!walk->scratch->frame || count >= COWSHED_PYTHON_FRAMES ||
      read_words(sample->address, walk->scratch->copied, walk->scratch->frame,
                 layout->frame_bytes)) {
    return 1; /* cut, if walk->scratch->frame is not 0 */
  }
  walk->scratch->frame = word_in(scratch, layout->previous);
  if (byte_in(scratch, layout->owner) >= OWNED_BY_C) {
    if (count)
      sample->python[BOUNDED(count - 1, COWSHED_PYTHON_FRAMES)].instruction |= COWSHED_PYTHON_ENTRY;
    return 0;
  }
  __u32 is_entry = layout->is_entry && byte_in(scratch, layout->is_entry);
  struct cowshed_python_frame* to = &sample->python[BOUNDED(count, COWSHED_PYTHON_FRAMES)];
  to->code = to->instruction = 0;
  read_code(walk, to, word_in(scratch, layout->executable) & ~(__u64)TAG_BITS,
            word_in(scratch, layout->instruction));
  if (is_entry) to->instruction |= COWSHED_PYTHON_ENTRY;
  sample->python_frames = count + 1;
  return 0;
}

/* Threads. */

#define MOST_INTERPRETERS 16
#define MOST_THREADS 256

/* Whether walk->scratch->thread is the running one, in Python code. */
static __always_inline int is_running(struct python_walk* walk) {
  struct cowshed_python_layout* layout = walk->layout;
  __u64 thread = walk->scratch->thread;
  if (!thread || word_at(walk, thread + layout->thread_id) != walk->scratch->thread_id) return 0;
  if (layout->cframe) thread = word_at(walk, thread + layout->cframe);
  if (!thread) return 0;
  walk->scratch->frame = word_at(walk, thread + layout->current_frame);
  return walk->scratch->frame != 0;
}

static long try_thread(__u32 step, struct python_walk* walk) {
  struct cowshed_python_layout* layout = walk->layout;
  if (walk->scratch->thread) {
    if (is_running(walk)) return 1;
    walk->scratch->thread = word_at(walk, walk->scratch->thread + layout->next_thread);
    return 0;
  }
  if (!walk->scratch->interpreter) return 1;
  walk->scratch->thread = word_at(walk, walk->scratch->interpreter + layout->threads);
  walk->scratch->interpreter = word_at(walk, walk->scratch->interpreter + layout->next_interpreter);
  return 0;
}

static __always_inline void find_thread(struct python_walk* walk, struct thread_state* state) {
  walk->scratch->thread = state->python_thread;
  if (is_running(walk)) return;
  walk->scratch->thread = 0;
  walk->scratch->interpreter = word_at(walk, walk->layout->runtime + walk->layout->interpreters);
  bpf_loop(MOST_INTERPRETERS + MOST_THREADS, try_thread, walk, 0);
  state->python_thread = walk->scratch->frame ? walk->scratch->thread : 0;
}

/* Objects. */

#define TYPE_NAME 24
#define TYPE_BASIC_SIZE 32
#define TYPE_ITEM_SIZE 40
#define TYPE_BYTES 48 /* of its beginning, up to the item's size */
#define TYPE_FLAGS 168
#define IS_READY (1UL << 12)
#define IS_COLLECTED (1UL << 14)
#define IS_SUBCLASS_OF_TYPE (1UL << 31)
#define MOST_METATYPES 3
#define MOST_TYPE_BYTES (1U << 20) /* of an instance */
#define IS_POINTER(word) \
  ((word) >= COWSHED_PAGE_BYTES && !((word) >> COWSHED_ADDRESS_BITS) && !((word) & 7))

/* Whether scratch->words begin a type that can have instances, with the flags at `address`. */
static __always_inline int is_ready_type(struct python_walk* walk, __u64 address) {
  __u64 size = word_in(walk->scratch, TYPE_BASIC_SIZE);
  return size > OBJECT_TYPE && size <= MOST_TYPE_BYTES &&
         word_in(walk->scratch, TYPE_ITEM_SIZE) <= MOST_TYPE_BYTES &&
         word_at(walk, address + TYPE_FLAGS) & IS_READY;
}

/* Whether the instances of `type` are types: it descends from `type`, which is its own type. */
static __always_inline int is_metatype(struct python_walk* walk, __u64 type) {
  if (!(word_at(walk, type + TYPE_FLAGS) & IS_SUBCLASS_OF_TYPE)) return 0;
  for (int i = 0; i < MOST_METATYPES; i++) {
    __u64 next = word_at(walk, type + OBJECT_TYPE);
    if (!IS_POINTER(next)) return 0;
    if (next == type) return 1;
    type = next;
  }
  return 0;
}

/* Sends the type of scratch->key, and returns its number; 0: it cannot be sent.  Not static, as
 * walk_node(). */
__noinline __u32 send_type(__u64 written, __u64 copied) {
  __u32 slot = 0;
  struct python_scratch* scratch = bpf_map_lookup_elem(&python_scratch, &slot);
  if (!scratch) return 0;
  struct cowshed_python_type* type = &scratch->type;
  __u64 at = scratch->key.words[0];
  type->kind = COWSHED_PYTHON_TYPE_RECORD;
  type->name_at = at;
  __builtin_memset(type->name, 0, sizeof type->name);
  __u32 here = BYTES_TO_PAGE_END(at);
  if (here > COWSHED_PYTHON_NAME_BYTES) here = COWSHED_PYTHON_NAME_BYTES;
  type->is_named = !read_page(written, type->name, here, at, copied);
  __u32 rest = COWSHED_PYTHON_NAME_BYTES - here;
  if (rest && rest < COWSHED_PYTHON_NAME_BYTES)
    read_page(written, type->name + here, rest, at + here, copied);
  __u32 id = __sync_fetch_and_add(&last_python_id, 1) + 1;
  type->id = id;
  if (bpf_ringbuf_output(&samples, type, sizeof *type, 0)) return 0;
  keep_id(scratch, id);
  return id;
}

/* Whether an instance of the type in scratch->words has the byte at `offset`. */
static __always_inline int has_byte(struct python_walk* walk, __u64 type, __s32 offset) {
  if (offset < 0) return (word_at(walk, type + TYPE_FLAGS) & IS_COLLECTED) != 0;
  return word_in(walk->scratch, TYPE_ITEM_SIZE) ||
         (__u64)offset < word_in(walk->scratch, TYPE_BASIC_SIZE);
}

/* Returns the number of the type at `address`, if it is one whose instances have the byte at
 * `offset`; else 0. */
static __always_inline __u32 read_type(struct python_walk* walk, __u64 address, __s32 offset) {
  struct python_scratch* scratch = walk->scratch;
  if (read_words(walk->sample->address, walk->scratch->copied, address, TYPE_BYTES)) return 0;
  __u64 its_type = word_in(scratch, OBJECT_TYPE);
  __u64 name = word_in(scratch, TYPE_NAME);
  if (!IS_POINTER(its_type) || name < COWSHED_PAGE_BYTES || !has_byte(walk, address, offset))
    return 0;
  scratch->key.address = address;
  scratch->key.words[0] = name;
  scratch->key.words[1] = its_type;
  scratch->key.words[2] = 0;
  __u32 id = known_id(scratch);
  if (id || !is_ready_type(walk, address) || !is_metatype(walk, its_type)) return id;
  return send_type(walk->sample->address, walk->scratch->copied);
}

/* Since 3.14 a reference count has flags in its upper 16 bits, and 0 in the 16 before.  In a free
 * block this word is 0 or a pointer. */
#define MAY_BE_COUNT(word) ((__u32)(word) && !((word) >> 32 & 0xffff))

/* Tries one place of the object's header: at the address, after it (the collector's links come
 * before a header), then ever further before it.  Headers are at multiples of 16, but for static
 * objects. */
static long try_header(__u32 step, struct python_walk* walk) {
  struct cowshed_sample* sample = walk->sample;
  __u64 address = sample->address & ~7ULL;
  __s32 odd = address / sizeof(__u64) & 1;
  __s32 distance = step == 0 ? 0 : step == 1 ? 2 - odd : odd - 2 * ((__s32)step - 1);
  __u32 at = COWSHED_LINE_WORDS + (address / sizeof(__u64) & (COWSHED_LINE_WORDS - 1)) + distance;
  if (at >= COWSHED_LINES_AROUND * COWSHED_LINE_WORDS - 1 ||
      !(sample->around_readable >> at / COWSHED_LINE_WORDS & 1) ||
      !(sample->around_readable >> (at + 1) / COWSHED_LINE_WORDS & 1)) {
    return 0;
  }
  at = BOUNDED(at, 32);
  if (at >= COWSHED_LINES_AROUND * COWSHED_LINE_WORDS - 1) return 0;
  __u64 count = sample->around[at];
  __u64 type = sample->around[at + 1];
  if (!MAY_BE_COUNT(count) || !IS_POINTER(type)) return 0;
  __s32 offset = sample->address - address - distance * (__s32)sizeof(__u64);
  sample->object_type = read_type(walk, type, offset);
  sample->object_offset = offset;
  return sample->object_type != 0;
}

#define HEADER_CANDIDATES 6

/* Not static, as walk_node(). */
__noinline int read_python(struct thread_state* thread, __u64 image, __u64 copied) {
  __u32 slot = 0;
  if (!thread) return 0;
  struct python_walk walk = {};
  walk.sample = bpf_map_lookup_elem(&new_sample, &slot);
  walk.scratch = bpf_map_lookup_elem(&python_scratch, &slot);
  walk.layout = bpf_map_lookup_elem(&interpreters, &image);
  if (!walk.sample || !walk.scratch || !walk.layout) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  walk.scratch->key.image = image;
  walk.scratch->copied = copied;
  walk.scratch->thread_id = BPF_CORE_READ(task, thread.fsbase);
  walk.scratch->frame = 0;
  find_thread(&walk, thread);
  bpf_loop(2 * COWSHED_PYTHON_FRAMES, read_frame, &walk, 0);
  walk.sample->is_python_cut = walk.scratch->frame != 0;
  bpf_loop(HEADER_CANDIDATES, try_header, &walk, 0);
  return 0;
}
