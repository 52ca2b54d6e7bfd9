#pragma once

#include <Python.h>
#include <cstdint>
#include <map>
#include <string>

namespace cowshed::python {

struct Frozen {
  std::uint64_t objects = 0;                  // made immortal
  std::uint64_t bytes = 0;                    // their size
  std::map<std::string, std::uint64_t> left;  // the objects that stay as they are, by their type
};

// Makes the objects of the main interpreter immortal in place, apart from those in `keep`, what
// only these hold, and what must die or be flushed; then exempts all from garbage collection.
// Before that it fills caches which reading would fill later.  Runs the collector and finalisers
// first.  From then on it runs no Python code and holds the GIL, so finalisers, signal handlers,
// other threads and forked children may call it at any time.  False: a Python error is set.
bool freeze_in_place(PyObject* keep, Frozen& frozen);

}  // namespace cowshed::python
