#pragma once

#include <Python.h>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include <cowshed/share/python/extension/freezing/object.h>

namespace cowshed::python {

// NumPy, if the program has loaded it.  No traversal shows the objects that its arrays hold, also
// as the columns of a DataFrame.  Runs no Python code.
class NumPy {
 public:
  NumPy();

  bool is_array(PyTypeObject* type) const;
  // Whether its instances may hold objects: arrays, and records of a structured array.
  bool is_holder(PyTypeObject* type) const { return is_array(type) || is_of(type, record_); }
  // Whether its instances hold no objects that matter: the other scalars, and dtypes.
  bool is_plain(PyTypeObject* type) const { return is_of(type, scalar_) || is_of(type, dtype_); }

  // Whether `holder` holds objects itself.
  bool has_objects(PyObject* holder);
  // Visits what `holder` refers to.  False: it has objects of a kind that is not known.
  bool traverse(PyObject* holder, visitproc visit, void* context);

  // NumPy resizes an array of its own data if nothing else refers to it.  To NumPy the count of a
  // frozen array is negative.
  static void disown(PyObject* array);
  // Its data, which its size leaves out since then.
  std::uint64_t disowned_bytes(PyObject* array);

 private:
  // Where an item has references.
  struct Run {
    Py_ssize_t offset;
    Py_ssize_t count;
    Py_ssize_t step;
  };
  struct Layout {
    std::vector<Run> runs;
    Py_ssize_t item_bytes = 0;
    bool is_known = true;
  };

  static bool is_of(PyTypeObject* type, const Object& base);
  static void add_runs(PyObject* dtype, Py_ssize_t offset, Layout& layout);
  static void add_runs_of_subarray(PyObject* subarray, Py_ssize_t offset, Layout& layout);
  const Layout& layout_of(PyObject* dtype);
  void visit_items(PyObject* array, const Layout& layout, visitproc visit, void* context);
  bool traverse_record(PyObject* record, visitproc visit, void* context);

  Object array_;
  Object record_;
  Object scalar_;
  Object dtype_;
  Object as_array_;  // a record, as an array without dimensions
  std::unordered_map<PyObject*, Layout> layouts_;
};

}  // namespace cowshed::python
