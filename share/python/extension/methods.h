#pragma once

#include <Python.h>

namespace cowshed::python {

// Functions of cowshed._cowshed, by source file.
extern PyMethodDef reference_methods[];
extern PyMethodDef metering_methods[];
extern PyMethodDef forking_methods[];
extern PyMethodDef settling_methods[];
extern PyMethodDef running_methods[];

// Adds the types of channels.cc.  -1: a Python error is set.
int add_channel_types(PyObject* module);

}  // namespace cowshed::python
