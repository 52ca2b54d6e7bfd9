#pragma once

#include <Python.h>
#include <unordered_set>

namespace cowshed::python {

// After a freeze: whether the memory of `object`, or a block that it points to, has the address of
// an object that is neither frozen, nor known to the collector, nor in `left`.  So its type refers
// to objects that no traversal shows.
bool has_hidden_references(PyObject* object, const std::unordered_set<PyObject*>& left);

}  // namespace cowshed::python
