#pragma once

#include <Python.h>
#include <cstdint>
#include <map>
#include <string>

#include <cowshed/share/python/extension/object.h>

namespace cowshed::python {

struct Frozen {
  std::uint64_t objects = 0;  // made immortal
  std::uint64_t bytes = 0;    // their size
  // The objects that stay as they are, by their type's name, and those of them that must be flushed
  // or finalised at exit.
  std::map<std::string, std::uint64_t> left;
  Object to_end;  // a list
};

// Makes the objects of the main interpreter immortal in place, apart from those in `keep`, what
// only these hold, and what must die or be flushed; then exempts all from garbage collection.
// Before that it fills caches which reading would fill later.  Runs the collector and finalisers
// first, and holds the GIL from then on.  False: a Python error is set.
bool freeze_in_place(PyObject* keep, Frozen& frozen);

}  // namespace cowshed::python
