#include <Python.h>
#include <climits>
#include <csignal>
#include <fcntl.h>
#include <pthread.h>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/standard_error.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

// What this thread has blocked while it prepares for a fork.
thread_local sigset_t blocked;
thread_local bool has_blocked = false;

// Of at most PIPE_BUF bytes, so that no pipe takes a part of it.
struct Line {
  std::string text;
  std::string file;  // empty: standard error
  internal::FileIdentity standard_error;
  pid_t of = 0;

  void write() const {
    if (file.empty()) return internal::write_to_standard_error(text, standard_error);
    constexpr int kFlags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const FileDescriptor log(::open(file.c_str(), kFlags, 0666));
    internal::write_or_drop(log.get(), text);
  }
};
// Written once this thread's signals are not blocked any more.
thread_local std::vector<Line> waiting;

PyObject* unblock_after_fork(PyObject*, PyObject* numbers) {
  const Object list(PySequence_Fast(numbers, "takes numbers of signals"));
  if (!list) return nullptr;
  if (!has_blocked) ::sigemptyset(&blocked);
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
  for (const Line& line : std::exchange(waiting, {})) {
    if (line.of != ::getpid()) continue;  // the parent writes it
    Py_BEGIN_ALLOW_THREADS;
    line.write();
    Py_END_ALLOW_THREADS;
  }
  Py_RETURN_NONE;
}

// write_line(text, file, device, inode, type): to `file` or, if it is empty, to standard error,
// which the last three identify.  While signals are blocked for a fork it waits for the end of
// that.
PyObject* write_line(PyObject*, PyObject* arguments) {
  const char* text = nullptr;
  Py_ssize_t size = 0;
  const char* file = nullptr;
  unsigned long long device = 0;
  unsigned long long inode = 0;
  unsigned int type = 0;
  if (!PyArg_ParseTuple(arguments, "y#yKKI", &text, &size, &file, &device, &inode, &type))
    return nullptr;
  waiting.push_back(
      {{text, static_cast<std::size_t>(size)}, file, {device, inode, type}, ::getpid()});
  if (std::string& line = waiting.back().text; line.size() > PIPE_BUF) {
    line.resize(PIPE_BUF);
    line.back() = '\n';
  }
  return has_blocked ? Py_NewRef(Py_None) : unblock(nullptr, nullptr);
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
                                 {"write_line", write_line, METH_VARARGS, nullptr},
                                 {"call_before_c_forks", call_before_c_forks, METH_O, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
