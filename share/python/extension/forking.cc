#include <Python.h>
#include <csignal>
#include <pthread.h>
#include <utility>

#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

// What this thread has blocked while it prepares for a fork.
thread_local sigset_t blocked;
thread_local bool has_blocked = false;

PyObject* unblock_after_fork(PyObject*, PyObject* numbers) {
  const Object list(PySequence_Fast(numbers, "takes numbers of signals"));
  if (!list) return nullptr;
  ::sigemptyset(&blocked);
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list.get()); ++i) {
    const long number = PyLong_AsLong(PySequence_Fast_GET_ITEM(list.get(), i));
    if (number < 0 && PyErr_Occurred()) return nullptr;
    ::sigaddset(&blocked, static_cast<int>(number));
  }
  has_blocked = true;
  Py_RETURN_NONE;
}

// A hook of os.register_at_fork().  In one that is Python code a handler would run at once, and
// what it raises, such as KeyboardInterrupt, would be lost.
PyObject* unblock(PyObject*, PyObject*) {
  if (std::exchange(has_blocked, false)) ::pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
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

PyMethodDef forking_methods[] = {{"unblock_after_fork", unblock_after_fork, METH_O, nullptr},
                                 {"unblock", unblock, METH_NOARGS, nullptr},
                                 {"call_before_c_forks", call_before_c_forks, METH_O, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
