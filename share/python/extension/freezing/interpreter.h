#pragma once

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

// What only CPython's internal headers know.  They differ by version, and C++ cannot read them, so
// this part is in C.

// Whether this is a version that has immortal objects and that this code knows: 3.12 to 3.15.
#define COWSHED_KNOWS_IMMORTALS (PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x03100000)

// Where the interpreter's state keeps what this code uses: offsets in bytes.
struct CowshedPlaces {
  size_t frozen_objects;
  size_t interned_strings;
  size_t cached_attributes;
  size_t pools;
};

// The places as compiled, apart from those that the running interpreter tells.
struct CowshedPlaces cowshed_known_places(void);

// Looks whether the running interpreter keeps there what it should.  Returns the name of what is
// elsewhere; NULL: all is there.  Reads memory only if it is mapped.
const char* cowshed_misplaced(const struct CowshedPlaces* places);

// Returns the dict of interned strings.  A borrowed reference.
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
