#pragma once

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

// What only CPython's internal headers know.  They differ by version, and C++ cannot read them, so
// this part is in C.

// Whether this is a version that has immortal objects and that this code knows: 3.12 to 3.14.
#define COWSHED_KNOWS_IMMORTALS (PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030f0000)

// The size of the interpreter's state, as this was compiled.
size_t cowshed_interpreter_size(void);
// The same, as the running interpreter says.  0: it does not say (before 3.13).
size_t cowshed_interpreter_size_here(void);

// Returns the dict of interned strings.  A borrowed reference, which may be no dict if the layout
// of the interpreter's state is not the compiled one.  NULL: there is none.
PyObject* cowshed_interned_strings(void);

// Returns the name in a line of the cache of attributes of types; NULL: there is no such line.  A
// borrowed reference.
PyObject* cowshed_cached_name(size_t line);

// Calls `visit` for each object that gc.freeze() has exempted from collection.
void cowshed_visit_frozen(void (*visit)(PyObject* object, void* context), void* context);

// Has pymalloc take new objects from pools that hold no older ones, and returns the pages of free
// pools to the kernel.  Memory that is free in other pools is lost.
void cowshed_close_pools(void);

#ifdef __cplusplus
}
#endif
