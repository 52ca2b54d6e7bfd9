#pragma once

#include <Python.h>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include <cowshed/share/python/extension/freezing/type_facts.h>

namespace cowshed::python {

// What the loaded modules refer to, and what those objects refer to, and so on: the program's code
// and the data that it keeps.  The variables of running functions are not among it.
class Reachable {
 public:
  explicit Reachable(Types& types) : types_(types) {}

  // False: a Python error is set.
  bool add_modules();
  void add(PyObject* root);

  bool contains(PyObject* tracked) const { return seen_.contains(tracked); }
  // A string, a number counts once for each reference, and as its holder does: small numbers are
  // always frozen.
  std::uint64_t frozen_bytes() const { return frozen_bytes_; }
  std::uint64_t other_bytes() const { return other_bytes_; }

 private:
  static int visit(PyObject* object, void* self);

  Types& types_;
  std::unordered_set<PyObject*> seen_;  // those that may refer to others
  std::vector<PyObject*> pending_;
  bool is_holder_frozen_ = true;
  std::uint64_t frozen_bytes_ = 0;
  std::uint64_t other_bytes_ = 0;
};

}  // namespace cowshed::python
