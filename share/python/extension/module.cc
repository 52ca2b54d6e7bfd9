// The extension module cowshed._cowshed: what Python code cannot do by itself.
#include <Python.h>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>

#include <cowshed/cow/measurement.h>
#include <cowshed/share/accounting/counter.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/ending.h>
#include <cowshed/share/python/extension/freezing/freezing.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>

namespace cowshed::python {
namespace {

// Why this interpreter cannot freeze in place; empty: it can.
std::string& fault() {
  static std::string text;
  return text;
}

PyObject* why_not_in_place(PyObject*, PyObject*) { return PyUnicode_FromString(fault().c_str()); }

// For tests: why not, if `name` were so many bytes, or counts, from where it is.
PyObject* layout_fault_if(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  Py_ssize_t by = 0;
  if (!PyArg_ParseTuple(arguments, "sn", &name, &by)) return nullptr;
  Layout layout;
  const auto shift = [&](std::string_view its, auto& place) {
    if (its == name) place += static_cast<std::remove_reference_t<decltype(place)>>(by);
  };
  shift("frozen_objects", layout.places.frozen_objects);
  shift("interned_strings", layout.places.interned_strings);
  shift("cached_attributes", layout.places.cached_attributes);
  shift("pools", layout.places.pools);
  shift("immortal_count", layout.immortal_count);
  const std::string text = layout_fault(layout);
  return PyErr_Occurred() ? nullptr : PyUnicode_FromString(text.c_str());
}

PyObject* freeze(PyObject*, PyObject* arguments) {
  PyObject* keep = nullptr;
  PyObject* children_of = nullptr;
  int only_reachable = 0;
  if (!PyArg_ParseTuple(arguments, "OO!p", &keep, &PyDict_Type, &children_of, &only_reachable))
    return nullptr;
  Frozen frozen;
  try {
    if (!freeze_in_place(keep, children_of, only_reachable != 0, frozen)) return nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  // For cowtop.
  const internal::TransferCounter counter(cow::kFreeze, "cowshed.freeze()");
  counter.add("Python objects", TransferKind::inherited, frozen.objects, frozen.bytes);
  if (frozen.in_part > 0)
    counter.add(cow::kFrozenInPart, TransferKind::inherited, frozen.in_part, 0);
  const Object left(PyDict_New());
  if (!left) return nullptr;
  for (const auto& [type, count] : frozen.left) {
    const Object number(PyLong_FromUnsignedLongLong(count));
    if (!number || PyDict_SetItemString(left.get(), type.c_str(), number.get()) != 0)
      return nullptr;
  }
  return Py_BuildValue("KKO", frozen.objects, frozen.bytes, left.get());
}

PyObject* reachable_bytes(PyObject*, PyObject* children_of) {
  ReachableBytes bytes;
  try {
    if (!measure_reachable(children_of, bytes)) return nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  return Py_BuildValue("KK", bytes.frozen, bytes.other);
}

PyObject* is_frozen(PyObject*, PyObject* object) { return PyBool_FromLong(is_immortal(object)); }

// Before exit_process(): finalises what would die.  Returns what is left to finalise_object().
PyObject* end(PyObject*, PyObject*) {
  if (!end_objects_at_exit()) return nullptr;
  Object left(PyList_New(0));
  for (const Object& object : end_objects(Ending::of_process))
    if (!left || PyList_Append(left.get(), object.get()) != 0) return nullptr;
  return left.release();
}

PyObject* finalise_object(PyObject*, PyObject* object) {
  finalise(object);
  Py_RETURN_NONE;
}

// Ends the process as C does: its exit functions run, and its streams are flushed.  The interpreter
// is not taken apart, and its other threads do not get the lock any more.
PyObject* exit_process(PyObject*, PyObject* status) {
  const long number = PyLong_AsLong(status);
  if (number == -1 && PyErr_Occurred()) return nullptr;
  std::exit(static_cast<int>(number));
}

int execute(PyObject* module) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "cowshed works in the main interpreter only");
    return -1;
  }
  fault() = layout_fault({});
  if (PyErr_Occurred()) return -1;
  // Before any fork, so that all children know each other's references.
  if (const auto started = process_tree::start(); !started) {
    raise(started.error());
    return -1;
  }
  for (PyMethodDef* methods :
       {reference_methods, metering_methods, forking_methods, settling_methods, running_methods})
    if (PyModule_AddFunctions(module, methods) != 0) return -1;
  if (PyModule_AddStringConstant(module, "built_for", PY_VERSION) != 0 ||
      PyModule_AddStringConstant(module, "version", COWSHED_VERSION) != 0)
    return -1;
  return add_channel_types(module);
}

PyMethodDef freezing_methods[] = {{"why_not_in_place", why_not_in_place, METH_NOARGS, nullptr},
                                  {"layout_fault_if", layout_fault_if, METH_VARARGS, nullptr},
                                  {"freeze", freeze, METH_VARARGS, nullptr},
                                  {"reachable_bytes", reachable_bytes, METH_O, nullptr},
                                  {"is_frozen", is_frozen, METH_O, nullptr},
                                  {"end", end, METH_NOARGS, nullptr},
                                  {"exit", exit_process, METH_O, nullptr},
                                  {"finalise", finalise_object, METH_O, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(execute)},
#if PY_VERSION_HEX >= 0x030c0000
                            // execute() refuses other interpreters, with an error that says so.
                            {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
                            {0, nullptr}};

PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                          .m_name = "cowshed._cowshed",
                          .m_doc = nullptr,
                          .m_size = 0,
                          .m_methods = freezing_methods,
                          .m_slots = slots,
                          .m_traverse = nullptr,
                          .m_clear = nullptr,
                          .m_free = nullptr};

}  // namespace
}  // namespace cowshed::python

PyMODINIT_FUNC PyInit__cowshed() { return PyModuleDef_Init(&cowshed::python::definition); }
