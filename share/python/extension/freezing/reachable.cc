#include <Python.h>

#include <cowshed/share/python/extension/freezing/children.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>
#include <cowshed/share/python/extension/freezing/reachable.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

int Reachable::visit(PyObject* object, void* self) {
  auto& reachable = *static_cast<Reachable*>(self);
  if (object == nullptr) return 0;
  const bool may_refer = PyObject_IS_GC(object) || PyCode_Check(object) || PyType_Check(object) ||
                         reachable.types_.facts_of(Py_TYPE(object)).is_holder;
  if (may_refer) {
    if (!reachable.seen_.insert(object).second) return 0;
    reachable.pending_.push_back(object);
  }
  const bool is_frozen = is_immortal(object) && (may_refer || reachable.is_holder_frozen_);
  (is_frozen ? reachable.frozen_bytes_ : reachable.other_bytes_) +=
      reachable.types_.size_of(object);
  return 0;
}

void Reachable::add(PyObject* root) {
  visit(root, this);
  while (!pending_.empty()) {
    PyObject* const object = pending_.back();
    pending_.pop_back();
    is_holder_frozen_ = is_immortal(object);
    each_child(object, types_, visit, this);
  }
}

bool Reachable::add_modules() {
  PyObject* const modules = PyImport_GetModuleDict();
  if (modules == nullptr) return false;
  add(modules);
  return true;
}

#endif

}  // namespace cowshed::python
