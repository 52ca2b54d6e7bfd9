#pragma once

#include <Python.h>
#include <cstdint>
#include <string>

#include <cowshed/share/python/extension/freezing/interpreter.h>

// Immortal objects (PEP 683): the interpreter never writes their reference count.
namespace cowshed::python {

// What this extension takes for the layout of objects and of the interpreter.  Tests give others.
struct Layout {
  CowshedPlaces places = cowshed_known_places();
  std::uint32_t immortal_count =
#if PY_VERSION_HEX >= 0x030e0000
      _Py_IMMORTAL_INITIAL_REFCNT;
#else
      // Py_INCREF leaves exactly this value alone; it writes other values of the immortal range.
      0xffffffff;
#endif
};

bool is_immortal(PyObject* object);
void make_immortal(PyObject* object, const Layout& layout = {});

// Tries, on objects of its own, whether this interpreter is as `layout` says and never writes the
// count of an immortal object.  Returns why not, as a clause; empty: all is well.  Holds the GIL.
// A Python error may be set, as by a signal handler that ran meanwhile.
std::string layout_fault(const Layout& layout);

}  // namespace cowshed::python
