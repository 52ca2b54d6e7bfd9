#pragma once

#include <Python.h>

#include <cowshed/base/error.h>

namespace cowshed::python {

// Sets the exception of cowshed/errors.py for this error.  Returns null, for `return`.
PyObject* raise(const Error& error);

}  // namespace cowshed::python
