#pragma once

#include <Python.h>
#include <cstdint>
#include <map>
#include <string>

namespace cowshed::python {

struct Frozen {
  std::uint64_t objects = 0;  // made immortal
  std::uint64_t bytes = 0;    // their size
  // By their type: the objects that stay as they are, and those that may hold such objects.
  std::map<std::string, std::uint64_t> left;
  std::uint64_t in_part = 0;  // of `left`: the latter
};

// Makes the objects of the main interpreter immortal in place, apart from those in `keep`, what
// only these hold, and what must die or be flushed; then exempts all from garbage collection.
// Before that it fills caches which reading would fill later.  `children_of` is a dict of types and
// functions; a function returns the objects that an instance refers to without showing them to the
// collector.  Holds the GIL, and runs no Python code but these functions, when all else is frozen,
// and signal handlers.  Finalisers, signal handlers, other threads and forked children may call it
// at any time.  Inside another call, which freezes what there is, it does nothing.
// `only_reachable`: leaves what neither modules nor classes refer to, and counts it nowhere. False:
// a Python error is set.
bool freeze_in_place(PyObject* keep, PyObject* children_of, bool only_reachable, Frozen& frozen);

// The size of the objects that modules refer to.  That of the frozen ones falls when a program
// replaces its data.
struct ReachableBytes {
  std::uint64_t frozen = 0;
  std::uint64_t other = 0;
};
// False: a Python error is set.
bool measure_reachable(PyObject* children_of, ReachableBytes& bytes);

}  // namespace cowshed::python
