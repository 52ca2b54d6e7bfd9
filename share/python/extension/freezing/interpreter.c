#define Py_BUILD_CORE_MODULE 1  // before Python.h
#include <cowshed/share/python/extension/freezing/interpreter.h>

#if COWSHED_KNOWS_IMMORTALS

#include <internal/pycore_gc.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_object.h>
#include <internal/pycore_obmalloc.h>
#include <internal/pycore_runtime.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

struct CowshedPlaces cowshed_known_places(void) {
#if PY_VERSION_HEX >= 0x030d0000
  const size_t collecting =
      _PyRuntime.debug_offsets.interpreter_state.gc + _PyRuntime.debug_offsets.gc.collecting;
#else
  const size_t collecting = offsetof(PyInterpreterState, gc.collecting);
#endif
  return (struct CowshedPlaces){
      .frozen_objects = collecting + offsetof(struct _gc_runtime_state, permanent_generation.head) -
                        offsetof(struct _gc_runtime_state, collecting),
      .interned_strings = offsetof(PyInterpreterState, cached_objects.interned_strings),
      .cached_attributes = offsetof(PyInterpreterState, types.type_cache.hashtable),
      .pools = offsetof(PyInterpreterState, obmalloc)};
}

static void* in_interpreter(size_t offset) { return (char*)PyInterpreterState_Get() + offset; }

PyObject* cowshed_interned_strings(void) {
  return *(PyObject**)in_interpreter(cowshed_known_places().interned_strings);
}

enum { lines = sizeof((struct type_cache*)NULL)->hashtable / sizeof(struct type_cache_entry) };

PyObject* cowshed_cached_name(size_t line) {
  const struct type_cache_entry* const table =
      in_interpreter(cowshed_known_places().cached_attributes);
  if (line >= lines) return NULL;
  return table[line].name != NULL ? table[line].name : Py_None;
}

void cowshed_visit_frozen(void (*visit)(PyObject*, void*), void* context) {
  PyGC_Head* const all = in_interpreter(cowshed_known_places().frozen_objects);
  for (PyGC_Head* head = _PyGCHead_NEXT(all); head != all; head = _PyGCHead_NEXT(head))
    visit((PyObject*)(head + 1), context);
}

// A list of pools begins in the middle of a header: the two words before it are no part of it.
static struct pool_header* pools_of_size(struct _obmalloc_state* state, unsigned size) {
  return (struct pool_header*)((char*)&state->pools.used[2 * size] - 2 * sizeof(void*));
}

// The first page of a free pool stays: it has the list of free pools.  A pool that serves the same
// size again would use its old list of free blocks; DUMMY_SIZE_IDX has it made anew.
void cowshed_close_pools(void) {
#if PY_VERSION_HEX >= 0x030d0000
  struct _obmalloc_state* const state =
      *(struct _obmalloc_state**)in_interpreter(cowshed_known_places().pools);
#else
  struct _obmalloc_state* const state = in_interpreter(cowshed_known_places().pools);
#endif
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (unsigned i = 0; i < state->mgmt.maxarenas; ++i) {
    const struct arena_object* const arena = &state->mgmt.arenas[i];
    if (arena->address == 0) continue;
    for (struct pool_header* pool = arena->freepools; pool != NULL; pool = pool->nextpool) {
      pool->szidx = DUMMY_SIZE_IDX;
      (void)madvise((char*)pool + page, POOL_SIZE - page, MADV_DONTNEED);
    }
  }
  // Pools with free blocks leave the lists from which new objects are taken: an object in one would
  // copy a page of its neighbours.  A pool without neighbours is one that pymalloc takes for full.
  for (unsigned size = 0; size < NB_SMALL_SIZE_CLASSES; ++size) {
    struct pool_header* const head = pools_of_size(state, size);
    for (struct pool_header *next, *pool = head->nextpool; pool != head; pool = next) {
      next = pool->nextpool;
      pool->nextpool = pool->prevpool = pool;
    }
    head->nextpool = head->prevpool = head;
  }
}

// Copies memory that may not be mapped.
static bool read_at(const void* address, void* into, size_t bytes) {
  const struct iovec local = {into, bytes};
  const struct iovec remote = {(void*)address, bytes};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

// Whether there is the ring of objects that gc.freeze() has exempted.  Unlike other generations it
// has no threshold.
static bool are_frozen_objects_at(PyGC_Head* head) {
  struct gc_generation here;
  PyGC_Head first, last;
  if (!read_at(head, &here, sizeof here) || here.threshold != 0 || here.count != 0 ||
      !read_at(_PyGCHead_NEXT(&here.head), &first, sizeof first) ||
      !read_at(_PyGCHead_PREV(&here.head), &last, sizeof last) || _PyGCHead_PREV(&first) != head ||
      _PyGCHead_NEXT(&last) != head) {
    return false;
  }
  PyObject* const gc = PyImport_ImportModule("gc");
  PyObject* const frozen = gc ? PyObject_CallMethod(gc, "get_freeze_count", NULL) : NULL;
  Py_ssize_t count = frozen ? PyLong_AsSsize_t(frozen) : -1;
  Py_XDECREF(frozen);
  Py_XDECREF(gc);
  for (PyGC_Head* each = _PyGCHead_NEXT(head); each != head && count >= 0;
       each = _PyGCHead_NEXT(each))
    --count;
  return count == 0;
}

static bool are_interned_strings_at(PyObject** place, PyObject* name) {
  PyObject* dict = NULL;
  PyTypeObject* type = NULL;
  return read_at(place, &dict, sizeof(PyObject*)) && read_at(&dict->ob_type, &type, sizeof type) &&
         type == &PyDict_Type && PyDict_GetItemWithError(dict, name) == name;
}

// A failed look-up is cached, too.
static bool are_cached_attributes_at(struct type_cache_entry* table, PyObject* name) {
  PyObject* const found = PyObject_GetAttr((PyObject*)&PyDict_Type, name);
  Py_XDECREF(found);
  PyErr_Clear();
  const unsigned version = PyDict_Type.tp_version_tag;
  const unsigned line = (version ^ (unsigned)((uintptr_t)name >> 3)) % lines;
  struct type_cache_entry entry;
  return read_at(&table[line], &entry, sizeof entry) && entry.version == version &&
         entry.name == name;
}

static bool is_pool_of_size(struct pool_header* pool, unsigned size,
                            const struct _obmalloc_mgmt* arenas) {
  struct pool_header header;
  struct arena_object arena;
  return read_at(pool, &header, sizeof header) && header.szidx == size &&
         header.arenaindex < arenas->maxarenas &&
         read_at(&arenas->arenas[header.arenaindex], &arena, sizeof arena) &&
         arena.nfreepools <= arena.ntotalpools && arena.ntotalpools <= MAX_POOLS_IN_ARENA &&
         (uintptr_t)pool - arena.address < ARENA_SIZE;
}

// Whether each list of pools with free blocks is a ring, of pools for blocks of its size.
static bool are_pools_at(void* place) {
  struct _obmalloc_state* state = place;
#if PY_VERSION_HEX >= 0x030d0000
  if (!read_at(place, &state, sizeof(void*))) return false;
#endif
  struct _obmalloc_mgmt arenas;
  if (!read_at(&state->mgmt, &arenas, sizeof arenas)) return false;
  for (unsigned size = 0; size < NB_SMALL_SIZE_CLASSES; ++size) {
    struct pool_header* const head = pools_of_size(state, size);
    struct pool_header *next = NULL, *back = NULL;
    if (!read_at(&head->nextpool, &next, sizeof(void*)) ||
        !read_at(next == head ? &head->prevpool : &next->prevpool, &back, sizeof(void*)) ||
        back != head || (next != head && !is_pool_of_size(next, size, &arenas))) {
      return false;
    }
  }
  return true;
}

const char* cowshed_misplaced(const struct CowshedPlaces* places) {
  char byte;
  if (!read_at(places, &byte, 1)) return "memory, which process_vm_readv() cannot read,";
  PyObject* const name = PyUnicode_InternFromString("cowshed self-test");
  const char* found = NULL;
  if (!are_interned_strings_at(in_interpreter(places->interned_strings), name))
    found = "the table of interned strings";
  else if (!are_cached_attributes_at(in_interpreter(places->cached_attributes), name))
    found = "the cache of attributes";
  else if (!are_frozen_objects_at(in_interpreter(places->frozen_objects)))
    found = "the list of frozen objects";
  else if (!are_pools_at(in_interpreter(places->pools))) found = "pymalloc's list of pools";
  Py_XDECREF(name);
  return found;
}

#else

struct CowshedPlaces cowshed_known_places(void) { return (struct CowshedPlaces){0}; }
const char* cowshed_misplaced(const struct CowshedPlaces* places) {
  (void)places;
  return NULL;
}
PyObject* cowshed_interned_strings(void) { return NULL; }
PyObject* cowshed_cached_name(size_t line) {
  (void)line;
  return NULL;
}
void cowshed_visit_frozen(void (*visit)(PyObject*, void*), void* context) {
  (void)visit;
  (void)context;
}
void cowshed_close_pools(void) {}

#endif
