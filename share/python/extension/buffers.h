#pragma once

#include <Python.h>
#include <vector>

namespace cowshed::python {

// Holds the buffers of objects.
class Buffers {
 public:
  Buffers() = default;
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (Py_buffer& view : views_) PyBuffer_Release(&view);
  }

  // `objects`: a list or tuple.  False: a Python error is set.
  bool add(PyObject* objects, int flags) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(objects); ++i) {
      Py_buffer view;
      if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(objects, i), &view, flags) != 0) return false;
      views_.push_back(view);
    }
    return true;
  }
  const std::vector<Py_buffer>& views() const { return views_; }

 private:
  std::vector<Py_buffer> views_;
};

}  // namespace cowshed::python
