#define Py_BUILD_CORE_MODULE 1  // before Python.h
#include "interpreter.h"

#if COWSHED_KNOWS_IMMORTALS

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

// The first page of a pool stays: it has the list of free pools.  A pool that serves the same size
// again would use its old list of free blocks; DUMMY_SIZE_IDX has it made anew.
size_t cowshed_release_free_pools(void) {
#if PY_VERSION_HEX >= 0x030d0000
  const struct _obmalloc_state* const state = PyInterpreterState_Get()->obmalloc;
#else
  const struct _obmalloc_state* const state = &PyInterpreterState_Get()->obmalloc;
#endif
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t released = 0;
  for (unsigned i = 0; i < state->mgmt.maxarenas; ++i) {
    const struct arena_object* const arena = &state->mgmt.arenas[i];
    if (arena->address == 0) continue;
    for (struct pool_header* pool = arena->freepools; pool != NULL; pool = pool->nextpool) {
      pool->szidx = DUMMY_SIZE_IDX;
      if (madvise((char*)pool + page, POOL_SIZE - page, MADV_DONTNEED) == 0)
        released += POOL_SIZE - page;
    }
  }
  return released;
}

#else

size_t cowshed_interpreter_size(void) { return 0; }
size_t cowshed_interpreter_size_here(void) { return 0; }
PyObject* cowshed_interned_strings(void) { return NULL; }
size_t cowshed_release_free_pools(void) { return 0; }

#endif
