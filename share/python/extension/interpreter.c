#define Py_BUILD_CORE_MODULE 1  // before Python.h
#include <cowshed/share/python/extension/interpreter.h>

#if COWSHED_KNOWS_IMMORTALS

#include <internal/pycore_gc.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_object.h>
#include <internal/pycore_obmalloc.h>
#include <internal/pycore_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

size_t cowshed_interpreter_size(void) { return sizeof(PyInterpreterState); }

size_t cowshed_interpreter_size_here(void) {
#if PY_VERSION_HEX >= 0x030d0000
  return _PyRuntime.debug_offsets.interpreter_state.size;
#else
  return 0;
#endif
}

PyObject* cowshed_interned_strings(void) {
  return _Py_INTERP_CACHED_OBJECT(PyInterpreterState_Get(), interned_strings);
}

PyObject* cowshed_cached_name(size_t line) {
  const struct type_cache* const cache = &PyInterpreterState_Get()->types.type_cache;
  if (line >= sizeof cache->hashtable / sizeof cache->hashtable[0]) return NULL;
  PyObject* const name = cache->hashtable[line].name;
  return name != NULL ? name : Py_None;
}

void cowshed_visit_frozen(void (*visit)(PyObject*, void*), void* context) {
  PyGC_Head* const all = &PyInterpreterState_Get()->gc.permanent_generation.head;
  for (PyGC_Head* head = _PyGCHead_NEXT(all); head != all; head = _PyGCHead_NEXT(head))
    visit((PyObject*)(head + 1), context);
}

// The first page of a free pool stays: it has the list of free pools.  A pool that serves the same
// size again would use its old list of free blocks; DUMMY_SIZE_IDX has it made anew.
void cowshed_close_pools(void) {
#if PY_VERSION_HEX >= 0x030d0000
  struct _obmalloc_state* const state = PyInterpreterState_Get()->obmalloc;
#else
  struct _obmalloc_state* const state = &PyInterpreterState_Get()->obmalloc;
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
    struct pool_header* const head =
        (struct pool_header*)((char*)&state->pools.used[2 * size] - 2 * sizeof(void*));
    for (struct pool_header *next, *pool = head->nextpool; pool != head; pool = next) {
      next = pool->nextpool;
      pool->nextpool = pool->prevpool = pool;
    }
    head->nextpool = head->prevpool = head;
  }
}

#else

size_t cowshed_interpreter_size(void) { return 0; }
size_t cowshed_interpreter_size_here(void) { return 0; }
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
