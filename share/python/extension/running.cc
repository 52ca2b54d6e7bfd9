#include <Python.h>
#include <cstdio>

#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

PyObject* run_text(PyObject* text, PyObject* names) {
  PyCompilerFlags flags{PyCF_IGNORE_COOKIE, PY_MINOR_VERSION};
  const char* utf8 = PyUnicode_AsUTF8(text);
  return utf8 == nullptr ? nullptr : PyRun_StringFlags(utf8, Py_file_input, names, names, &flags);
}

// As the interpreter does it after a file: what was printed comes before the error that ended it.
void flush_streams() {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  for (const char* name : {"stderr", "stdout"}) {
    PyObject* const stream = PySys_GetObject(name);
    if (stream != nullptr && !Object(PyObject_CallMethod(stream, "flush", nullptr))) PyErr_Clear();
  }
  PyErr_Restore(type, value, trace);
}

PyObject* run_file(PyObject* path, PyObject* names) {
  const Object bytes(PyUnicode_EncodeFSDefault(path));
  if (!bytes) return nullptr;
  const char* name = PyBytes_AsString(bytes.get());
  std::FILE* file = std::fopen(name, "rbe");
  if (file == nullptr) return PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
  PyCompilerFlags flags{0, PY_MINOR_VERSION};
  PyObject* const result = PyRun_FileExFlags(file, name, Py_file_input, names, names, 1, &flags);
  flush_streams();
  return result;
}

// Calls end(status or SystemExit), which ends the process, or raises SystemExit for main().
PyObject* end_quickly(PyObject* end, PyObject* result) {
  Object error;
  if (result == nullptr && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return nullptr;
  if (result == nullptr && PyErr_ExceptionMatches(PyExc_SystemExit)) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    error = Object(value);
  } else {
    if (result == nullptr) PyErr_Print();
    error = Object(PyLong_FromLong(result == nullptr));
  }
  if (!Object(PyObject_CallOneArg(end, error.get()))) {
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
      Py_XDECREF(result);
      return nullptr;
    }
    PyErr_WriteUnraisable(end);
  }
  if (result == nullptr) PyErr_SetObject(PyExc_SystemExit, error.get());
  return result;
}

// Called by C's main(), with no frame of Python's below it, in the place of runpy's function.
PyObject* run_program(PyObject* self, PyObject*) {
  const char* kind = nullptr;
  PyObject* text = nullptr;
  PyObject* folder = nullptr;
  PyObject* inserted = nullptr;
  PyObject* run_module = nullptr;
  PyObject* end = nullptr;
  if (!PyArg_ParseTuple(self, "sUOOOO", &kind, &text, &folder, &inserted, &run_module, &end))
    return nullptr;
  const Object runpy(PyImport_ImportModule("runpy"));
  PyObject* path = PySys_GetObject("path");
  PyObject* names = PyModule_GetDict(PyImport_AddModule("__main__"));
  if (!runpy || path == nullptr ||
      PyObject_SetAttrString(runpy.get(), "_run_module_as_main", run_module) != 0)
    return nullptr;
  const int is_there = PyList_Size(path) > 0
                           ? PyObject_RichCompareBool(PyList_GetItem(path, 0), inserted, Py_EQ)
                           : 0;
  if (is_there < 0 || (is_there > 0 && PyList_SetSlice(path, 0, 1, nullptr) != 0)) return nullptr;
  if (folder != Py_None && PyList_Insert(path, 0, folder) != 0) return nullptr;
  PyObject* const result = *kind == 'c' ? run_text(text, names)
                           : *kind == 'm'
                               ? PyObject_CallFunctionObjArgs(run_module, text, Py_True, nullptr)
                               : run_file(text, names);
  return end == Py_None ? result : end_quickly(end, result);
}

PyMethodDef runner = {"_run_module_as_main", run_program, METH_VARARGS, nullptr};

// program(kind, text, folder, inserted, run_module): what runs as `python -c text`, `-m text` or
// the file `text`, with `folder` in front of sys.path, where main() puts `inserted`.
PyObject* program(PyObject*, PyObject* arguments) { return PyCFunction_New(&runner, arguments); }

}  // namespace

PyMethodDef running_methods[] = {{"program", program, METH_VARARGS, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
