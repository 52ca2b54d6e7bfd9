#pragma once

#include <Python.h>
#include <unordered_set>

#include <cowshed/share/python/extension/freezing/type_facts.h>

// What the program lets go of by dropping another object.
namespace cowshed::python {

// Whether its death does what others see, or wait for: a file is closed, an extension frees it.
bool is_outside(PyObject* object, Types& types);
// Whether it is so although its type does not tell: a weakref.finalize() waits for it, a capsule
// has a destructor, a weak reference calls back only as long as it lives.
bool is_awaited(PyObject* object, Types& types);
// Modules, classes and functions live as long as the program.
bool may_be_dropped(PyObject* object);

// The objects that hold one from outside, or a holder of one: a frozen one would never let go of
// it.
class Holders {
 public:
  explicit Holders(Types& types) : types_(types) {}

  // `tracked`: a list of all objects that the collector tracks.
  void find(PyObject* tracked);
  bool contain(PyObject* object) const { return all_.contains(object); }

 private:
  using Set = std::unordered_set<PyObject*>;

  Set holders_of(PyObject* tracked, const Set* held);

  Types& types_;
  Set names_;  // the dicts of modules and classes
  Set all_;
};

}  // namespace cowshed::python
