#include <Python.h>
#include <cstddef>
#include <cstring>
#include <unordered_map>
#include <utility>

#include <cowshed/share/python/extension/freezing/children.h>
#include <cowshed/share/python/extension/freezing/deallocation.h>
#include <cowshed/share/python/extension/freezing/holders.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

bool is_awaited(PyObject* object, Types& types) {
  if (PyCapsule_CheckExact(object)) return may_act_when_freed(object);
  if (PyWeakref_Check(object)) {
    const auto* const reference = reinterpret_cast<const PyWeakReference*>(object);
    return reference->wr_callback != nullptr && is_outside(reference->wr_object, types);
  }
  const Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
  if (offset == 0 || !may_be_dropped(object)) return false;
  PyWeakReference* reference = nullptr;
  std::memcpy(&reference, reinterpret_cast<const char*>(object) + offset, sizeof reference);
  for (; reference != nullptr; reference = reference->wr_next)
    if (PyObject* const callback = reference->wr_callback)
      if (starts_with(Py_TYPE(callback), "finalize") || starts_with(Py_TYPE(callback), "Finalize"))
        return true;  // of weakref and of multiprocessing
  return false;
}

bool may_be_dropped(PyObject* object) {
  return !PyType_Check(object) && !PyModule_Check(object) && !PyFunction_Check(object);
}

// Most objects are of a type that the first line knows.
bool is_outside(PyObject* object, Types& types) {
  if (is_plain_data(object) || PyDict_CheckExact(object) || PyList_CheckExact(object) ||
      PyTuple_CheckExact(object)) {
    return false;
  }
  return types.facts_of(Py_TYPE(object)).holds_outside || is_awaited(object, types);
}

void Holders::find(PyObject* tracked) {
  constexpr int kDeepest = 6;
  constexpr std::size_t kMost = 10'000;  // more is data, which is to be shared
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(tracked); ++i) {
    PyObject* const object = PyList_GET_ITEM(tracked, i);
    if (PyModule_Check(object)) names_.insert(PyModule_GetDict(object));
    if (PyType_Check(object))
      names_.insert(Object(PyType_GetDict(reinterpret_cast<PyTypeObject*>(object))).get());
  }
  Set latest = holders_of(tracked, nullptr);
  for (int depth = 1; depth < kDeepest && !latest.empty() && latest.size() + all_.size() < kMost;
       ++depth) {
    all_.insert(latest.begin(), latest.end());
    latest = holders_of(tracked, &latest);
  }
}

// Of what is outside, if `held` is null.
Holders::Set Holders::holders_of(PyObject* tracked, const Set* held) {
  constexpr std::size_t kMostOfOne = 8;  // what more objects share, none of them drops
  struct Search {
    Types& types;
    const Set* held;
    const Set& all;
    PyObject* holder = nullptr;
    std::unordered_map<PyObject*, Set> found = {};

    void look_into(PyObject* object) {
      if (!may_be_dropped(object) || all.contains(object)) return;
      PyObject* const outer = std::exchange(holder, object);
      each_child(object, types, visit, this);
      holder = outer;
    }

    static int visit(PyObject* child, void* self) {
      auto& search = *static_cast<Search*>(self);
      if (child == nullptr || is_plain_data(child) || is_immortal(child)) return 0;
      if (search.held ? search.held->contains(child) : is_outside(child, search.types))
        search.found[search.held ? child : nullptr].insert(search.holder);
      else if (search.is_unlisted(child)) search.look_into(child);
      return 0;
    }

    // Whether the collector does not track it, although it may hold objects.
    bool is_unlisted(PyObject* object) const {
      if (PyTuple_CheckExact(object) || PyDict_CheckExact(object))
        return !PyObject_GC_IsTracked(object);
      return types.facts_of(Py_TYPE(object)).is_holder;
    }
  } search{types_, held, all_};
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(tracked); ++i)
    if (!is_immortal(PyList_GET_ITEM(tracked, i))) search.look_into(PyList_GET_ITEM(tracked, i));
  Set holders;
  for (const auto& [child, its_holders] : search.found)
    if (child == nullptr || its_holders.size() <= kMostOfOne)
      holders.insert(its_holders.begin(), its_holders.end());
  std::erase_if(holders, [this](PyObject* object) { return names_.contains(object); });
  return holders;
}

#endif

}  // namespace cowshed::python
