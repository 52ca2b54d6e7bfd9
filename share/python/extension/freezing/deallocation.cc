#include <Python.h>
#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <string_view>
#include <unordered_map>

#include <cowshed/share/python/extension/freezing/deallocation.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>
#include <cowshed/share/python/extension/freezing/object.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

namespace {

// Whether it or one of its bases has such a name.
template <class Names>
bool is_among(PyTypeObject* type, const Names& names) {
  for (Py_ssize_t i = 0; type->tp_mro != nullptr && i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    const auto* const base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
    if (std::ranges::find(names, std::string_view(base->tp_name)) != std::end(names)) return true;
  }
  return false;
}

// Extensions' types whose deallocators were read: they give back memory, and let go of objects.
bool is_known_harmless(PyTypeObject* type) {
  static constexpr std::string_view kStarts[] = {
      "numpy.",           "pandas._libs.",    "lxml.etree._Element",  "lxml.etree._Document",
      "lxml.etree._Attr", "lxml.etree._Comm", "lxml.etree.__Content", "lxml.etree._Processing",
      "lxml.objectify."};
  // They write back to arrays, or let go of a buffer, as Cython's views do.
  static constexpr std::string_view kOtherEnds[] = {".nditer", ".memoryview", "._memoryviewslice"};
  // Cython's functions, and their variables.
  static constexpr std::string_view kParts[] = {"cython_function", "__pyx_scope_struct"};
  const std::string_view name = type->tp_name;
  const auto begins = [name](std::string_view start) { return name.starts_with(start); };
  const auto ends = [name](std::string_view end) { return name.ends_with(end); };
  const auto contains = [name](std::string_view part) { return name.find(part) != name.npos; };
  return std::ranges::any_of(kParts, contains) ||
         (std::ranges::any_of(kStarts, begins) && !std::ranges::any_of(kOtherEnds, ends));
}

// Whether the function is the interpreter's, or of a module of its library.
template <class Function>
bool is_of_python(Function* function) {
  static const void* const interpreter = [] {
    Dl_info info{};
    return dladdr(reinterpret_cast<void*>(&PyObject_Free), &info) != 0 ? info.dli_fbase : nullptr;
  }();
  static std::unordered_map<Function*, bool> known;  // Python unloads no module
  const auto [place, is_new] = known.try_emplace(function, false);
  Dl_info info{};
  if (is_new && dladdr(reinterpret_cast<void*>(function), &info) != 0)
    place->second =
        info.dli_fbase == interpreter || std::strstr(info.dli_fname, "/lib-dynload/") != nullptr;
  return place->second;
}

// Puts None in the place of a value.
bool let_go_of_item(PyObject* dict, PyObject* child) {
  bool has_found = false;
  Object key_found;
  each_item(dict, [&](PyObject* key, PyObject* value) {
    if (key == child) key_found = Object::borrow(key);
    if (value != child) return;
    has_found = true;
    if (PyDict_SetItem(dict, Object::borrow(key).get(), Py_None) != 0) PyErr_Clear();
  });
  if (key_found && PyObject_DelItem(dict, key_found.get()) != 0) PyErr_Clear();
  return has_found || key_found;
}

}  // namespace

destructor deallocator_of_classes() {
  static const destructor dealloc = [] {
    auto* const meta = reinterpret_cast<PyObject*>(&PyType_Type);
    const Object made(PyObject_CallFunction(meta, "s(){}", "Class"));
    PyErr_Clear();
    return made ? reinterpret_cast<PyTypeObject*>(made.get())->tp_dealloc : nullptr;
  }();
  return dealloc;
}

bool may_act_when_freed(PyTypeObject* type) {
  if (PyType_IsSubtype(type, &PyType_Type) != 0) return false;  // a class of classes
  PyTypeObject* own = type;                                     // that has the deallocator
  while (own->tp_base != nullptr && (own->tp_dealloc == deallocator_of_classes() ||
                                     own->tp_dealloc == own->tp_base->tp_dealloc)) {
    own = own->tp_base;
  }
  return !(is_of_python(own->tp_dealloc) && is_of_python(type->tp_free)) && !is_known_harmless(own);
}

bool may_act_when_freed(PyObject* object) {
  if (PyCapsule_CheckExact(object)) {
    const bool acts = PyCapsule_GetDestructor(object) != nullptr;
    PyErr_Clear();
    return acts;
  }
  return may_act_when_freed(Py_TYPE(object));
}

bool is_known_outside(PyTypeObject* type) {
  static constexpr std::string_view kNames[] = {
      "mmap.mmap",       "select.epoll",       "select.poll",        "_socket.socket",
      "_ssl._SSLSocket", "sqlite3.Connection", "sqlite3.Cursor",     "sqlite3.Statement",
      "sqlite3.Blob",    "ThreadPoolExecutor", "ProcessPoolExecutor"};
  return is_among(type, kNames);
}

bool must_be_closed(PyTypeObject* type) {
  static constexpr std::string_view kNames[] = {"_gdbm.gdbm", "_dbm.dbm"};
  return is_among(type, kNames);
}

bool holds_itself_open(PyTypeObject* type) {
  static constexpr std::string_view kNames[] = {"sqlite3.Connection"};
  return is_among(type, kNames);
}

bool let_go(PyObject* holder, PyObject* child) {
  if (PyDict_Check(holder)) return let_go_of_item(holder, child);
  if (PyTuple_Check(holder)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(holder); ++i) {
      if (PyTuple_GET_ITEM(holder, i) != child) continue;
      PyTuple_SET_ITEM(holder, i, Py_None);
      Py_DECREF(child);
    }
    return true;
  }
  if (PyList_Check(holder)) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(holder); ++i)
      if (PyList_GET_ITEM(holder, i) == child) PyList_SetItem(holder, i, Py_None);
    return true;
  }
  const Object dict(PyObject_GenericGetDict(holder, nullptr));
  PyErr_Clear();
  if (dict && PyDict_Check(dict.get()) && let_go_of_item(dict.get(), child)) return true;
  const inquiry clear = Py_TYPE(holder)->tp_clear;
  if (clear == nullptr || PyType_Check(holder) || PyFunction_Check(holder)) return false;
  clear(holder);
  return true;
}

#endif

}  // namespace cowshed::python
