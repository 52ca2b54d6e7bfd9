#include <Python.h>
#include <unordered_set>
#include <vector>

#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/numpy.h>
#include <cowshed/share/python/extension/freezing/tracking.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

namespace {

class Tracker {
 public:
  void track_again() {
    static PyObject* const sample = sample_dict();
    if (sample == nullptr || PyObject_GC_IsTracked(sample)) return PyErr_Clear();
    PyObject_GC_Track(sample);
    for (PyObject* root :
         {PyImport_GetModuleDict(), reinterpret_cast<PyObject*>(&PyBaseObject_Type)})
      visit(root, this);
    while (!pending_.empty()) {
      PyObject* const object = pending_.back();
      pending_.pop_back();
      if (numpy_.is_holder(Py_TYPE(object))) numpy_.traverse(object, visit, this);
      if (!PyObject_IS_GC(object)) continue;
      if (is_immortal(object) && !PyObject_GC_IsTracked(object)) PyObject_GC_Track(object);
      if (const auto traverse = Py_TYPE(object)->tp_traverse) traverse(object, visit, this);
    }
  }

 private:
  static PyObject* sample_dict() {
    PyObject* const dict = Py_BuildValue("{si}", "cowshed", 1);
    if (dict == nullptr) return nullptr;
    if (!PyObject_GC_IsTracked(dict)) PyObject_GC_Track(dict);
    make_immortal(dict);
    return dict;
  }

  static int visit(PyObject* object, void* self) {
    auto& tracker = *static_cast<Tracker*>(self);
    const bool is_followed = PyObject_IS_GC(object) || (!PyUnicode_CheckExact(object) &&
                                                        tracker.numpy_.is_holder(Py_TYPE(object)));
    if (is_followed && tracker.seen_.insert(object).second) tracker.pending_.push_back(object);
    return 0;
  }

  NumPy numpy_;
  std::unordered_set<PyObject*> seen_;
  std::vector<PyObject*> pending_;
};

}  // namespace

void track_frozen_again() { Tracker().track_again(); }

#else

void track_frozen_again() {}

#endif

}  // namespace cowshed::python
