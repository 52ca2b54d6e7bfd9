#include <Python.h>
#include <climits>
#include <pthread.h>
#include <string>

#include <cowshed/base/standard_error.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

// write_line(text, file, device, inode, type): to `file` or, if it is empty, to standard error,
// which the last three identify.  At most PIPE_BUF bytes, so that no pipe takes a part of them.
PyObject* write_line(PyObject*, PyObject* arguments) {
  const char* text = nullptr;
  Py_ssize_t size = 0;
  const char* file = nullptr;
  unsigned long long device = 0;
  unsigned long long inode = 0;
  unsigned int type = 0;
  if (!PyArg_ParseTuple(arguments, "y#yKKI", &text, &size, &file, &device, &inode, &type))
    return nullptr;
  std::string line(text, static_cast<std::size_t>(size));
  if (line.size() > PIPE_BUF) {
    line.resize(PIPE_BUF);
    line.back() = '\n';
  }
  Py_BEGIN_ALLOW_THREADS;
  internal::write_line(line, file, {device, inode, type});
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

PyObject* before_c_fork = nullptr;

void prepare() {
  const PyGILState_STATE held = PyGILState_Ensure();
  if (!Object(PyObject_CallNoArgs(before_c_fork))) PyErr_WriteUnraisable(before_c_fork);
  PyGILState_Release(held);
}

// Has `function` called before each fork(), also where C code forks.  Waits for the GIL.
PyObject* call_before_c_forks(PyObject*, PyObject* function) {
  if (before_c_fork == nullptr) ::pthread_atfork(prepare, nullptr, nullptr);
  before_c_fork = Py_NewRef(function);
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef forking_methods[] = {{"write_line", write_line, METH_VARARGS, nullptr},
                                 {"call_before_c_forks", call_before_c_forks, METH_O, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
