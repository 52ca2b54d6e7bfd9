#pragma once

#include <Python.h>

#include <cowshed/share/python/extension/freezing/type_facts.h>

namespace cowshed::python {

// Visits what `object` refers to, as its traversal shows it, and what no traversal shows: of NumPy
// and of datetime, of code and of types, keys of dicts.  A child may be null.  False: it has
// children of a kind that is not known.
bool each_child(PyObject* object, Types& types, visitproc visit, void* context);

}  // namespace cowshed::python
