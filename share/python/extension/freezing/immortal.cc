#include <array>
#include <cstring>

#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/object.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

bool is_immortal(PyObject* object) {
#if PY_VERSION_HEX >= 0x030e0000
  // Stack references look at the flag alone, and decrement without it.
  return (object->ob_flags & _Py_IMMORTAL_FLAGS) != 0 &&
         static_cast<std::int32_t>(object->ob_refcnt) < 0;
#else
  return static_cast<std::uint32_t>(object->ob_refcnt) == Layout{}.immortal_count;
#endif
}

void make_immortal(PyObject* object, const Layout& layout) {
  object->ob_refcnt = layout.immortal_count;
#if PY_VERSION_HEX >= 0x030e0000
  object->ob_flags |= _Py_IMMORTAL_FLAGS;
#endif
}

namespace {

std::string fault_of_build() {
  if ((Py_Version >> 16) != (PY_VERSION_HEX >> 16))
    return std::string("cowshed was built for Python " PY_VERSION ", and this is ") +
           std::string(Py_GetVersion(), std::strcspn(Py_GetVersion(), " "));
  if (PySys_GetObject("gettotalrefcount") != nullptr) return "this is a debug build of Python";
  if (PyObject* jit = PySys_GetObject("_jit")) {
    const Object enabled(PyObject_CallMethod(jit, "is_enabled", nullptr));
    if (!enabled) PyErr_Clear();
    if (enabled.get() == Py_True) return "Python's JIT compiler is enabled";
  }
  return {};
}

// The interpreter uses the objects in its own ways: by bytecode and from C.
bool uses(PyObject* object) {
  const Object names(Py_BuildValue("{sO}", "x", object));
  const Object list(PyList_New(0));
  if (!names || !list) return false;
  for (int i = 0; i < 64; ++i)
    if (PyList_Append(list.get(), object) != 0) return false;
  static constexpr const char* kCode =
      "def use(x):\n"
      "    for i in range(64):\n"
      "        y = x; z = [y, x]; t = (z[0], x is y)\n"
      "    return t\n"
      "kept = [use(x) for i in range(4)]\n"
      "del kept\n";
  return static_cast<bool>(Object(PyRun_String(kCode, Py_file_input, names.get(), names.get())));
}

std::string fault_of_counts(const Layout& layout) {
  if (!is_immortal(Py_None) || !is_immortal(Py_True))
    return "None and True are not immortal in the way that is known";
  const auto scratch = [](int i) {
    const std::string text = "cowshed self-test " + std::to_string(i);
    switch (i) {
      case 0: return PyUnicode_FromString(text.c_str());
      case 1: return PyList_New(1);
      case 2: return PyDict_New();
      case 3: return PyTuple_New(2);
      case 4: return PyFloat_FromDouble(2.5);
      case 5: return PyBytes_FromString(text.c_str());
      default: return PyLong_FromLongLong(1LL << 40);
    }
  };
  for (int i = 0; i < 7; ++i) {
    PyObject* object = scratch(i);  // immortal from here on, and so never freed
    if (object == nullptr) return "out of memory";
    if (PyList_CheckExact(object)) PyList_SET_ITEM(object, 0, Py_NewRef(Py_None));
    if (PyTuple_CheckExact(object)) {
      PyTuple_SET_ITEM(object, 0, Py_NewRef(Py_None));
      PyTuple_SET_ITEM(object, 1, Py_NewRef(Py_None));
    }
    if (is_immortal(object)) return "a new object is taken for immortal";
    make_immortal(object, layout);
    std::array<std::uint64_t, 1> before{};
    std::memcpy(before.data(), object, sizeof before);
    if (!is_immortal(object)) return "the count of an immortal object has another value";
    if (!uses(object)) return "objects that were made immortal cannot be used";
    if (std::memcmp(before.data(), object, sizeof before) != 0)
      return "the interpreter writes the count of immortal objects";
  }
  return {};
}

}  // namespace

std::string layout_fault(const Layout& layout) {
  if (std::string fault = fault_of_build(); !fault.empty()) return fault;
  if (const char* what = cowshed_misplaced(&layout.places))
    return std::string(what) + " is elsewhere than in Python " PY_VERSION
                               ", for which cowshed was built";
  return fault_of_counts(layout);
}

#else

bool is_immortal(PyObject*) { return false; }
void make_immortal(PyObject*, const Layout&) {}
std::string layout_fault(const Layout&) {
  return "Python " + std::to_string(PY_MAJOR_VERSION) + "." + std::to_string(PY_MINOR_VERSION) +
         (PY_VERSION_HEX < 0x030c0000 ? " has no immortal objects"
                                      : " is not known to Cowshed yet");
}

#endif

}  // namespace cowshed::python
