#pragma once

#include <Python.h>
#include <cstdint>
#include <string_view>
#include <unordered_map>

#include <cowshed/share/python/extension/freezing/numpy.h>
#include <cowshed/share/python/extension/freezing/object.h>

// What a freeze has to know of a type.
namespace cowshed::python {

enum class Kind : unsigned char {
  data,
  leave,     // must die or be flushed
  suspended  // a frame, a generator, an object of an extension: it ends; what it refers to is data
};

struct TypeFacts {
  Kind kind = Kind::data;
  bool holds_outside = false;  // a file, say, which others see as long as it lives
  bool owns = false;           // what only it holds must die with it
  bool hashes_itself = false;  // its hash is kept in it, and computing it runs no Python code
  bool is_holder = false;      // of NumPy
  bool is_array = false;       // of NumPy
  bool is_moment = false;      // it may have a time zone
  bool is_frozendict = false;
  bool is_opaque = false;
  PyObject* children_of = nullptr;  // as registered
  PyCFunction size_of = nullptr;
};

class Types {
 public:
  // `children_of`: as of freeze_in_place().
  explicit Types(PyObject* children_of) : children_of_(children_of) {}
  // Before all else.  False: a Python error is set.
  bool prepare();

  const TypeFacts& facts_of(PyTypeObject* type);
  NumPy& numpy() { return numpy_; }
  // As sys.getsizeof() counts it, and the collector's head.  A frozen array has the size that it
  // had.
  std::uint64_t size_of(PyObject* object);
  // Whether hashing an object that hashes itself runs no Python code.
  bool may_hash(PyObject* object, int depth = 0);

  bool is_datetime(PyTypeObject* type) const { return is_of(type, datetime_.get()); }
  bool is_zone(PyTypeObject* type) const {
    return reinterpret_cast<PyObject*>(type) == zone_.get();
  }

 private:
  bool is_plain(PyObject* object, int depth);
  TypeFacts find_facts(PyTypeObject* type) const;
  PyObject* registered_for(PyTypeObject* type) const;
  bool may_be_opaque(PyTypeObject* type) const;
  static bool is_of(PyTypeObject* type, PyObject* base);

  PyObject* const children_of_;
  NumPy numpy_;
  Object io_base_;
  Object datetime_;
  Object time_;
  Object zone_;
  Object frozendict_;
  Object library_;  // the names of its modules
  std::unordered_map<PyTypeObject*, TypeFacts> types_;
  PyTypeObject* last_type_ = nullptr;
  const TypeFacts* last_facts_ = nullptr;
};

bool starts_with(PyTypeObject* type, std::string_view start);
bool is_of_module(PyTypeObject* type);  // and so is implemented in C

}  // namespace cowshed::python
