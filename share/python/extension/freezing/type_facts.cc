#include <Python.h>
#include <algorithm>
#include <cstring>
#include <datetime.h>
#include <iterator>
#include <string_view>

#include <cowshed/share/python/extension/freezing/deallocation.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>
#include <cowshed/share/python/extension/freezing/type_facts.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

bool starts_with(PyTypeObject* type, std::string_view start) {
  return std::string_view(type->tp_name).starts_with(start);
}

bool is_of_module(PyTypeObject* type) {
  if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) return true;
  if (PyType_GetModule(type) != nullptr) return true;
  PyErr_Clear();
  return false;
}

namespace {

// Whether a class statement made it, and not an extension.
bool is_class_statement(PyTypeObject* type) {
  return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0 &&
         type->tp_dealloc == deallocator_of_classes() && !is_of_module(type);
}

// object.__sizeof__ and the like in C, without a look-up that may run Python code.
PyCFunction size_function(PyTypeObject* type) {
  for (Py_ssize_t i = 0; type->tp_mro != nullptr && i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    auto* const base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
    for (const PyMethodDef* method = base->tp_methods; method && method->ml_name; ++method)
      if (std::strcmp(method->ml_name, "__sizeof__") == 0 && method->ml_flags == METH_NOARGS)
        return method->ml_meth;
  }
  return nullptr;
}

// The type of a module in C, if that is loaded.
Object type_of_module(const char* module, const char* name) {
  const Object imported(PyImport_GetModule(Object(PyUnicode_FromString(module)).get()));
  Object type(imported ? PyObject_GetAttrString(imported.get(), name) : nullptr);
  PyErr_Clear();
  return type && PyType_Check(type.get()) ? std::move(type) : Object();
}

// Of a class that may be Python code: its offset is a part of the hash.
bool has_foreign_zone(PyObject* object) {
  const std::string_view name = Py_TYPE(object)->tp_name;
  const bool is_moment = name == "datetime.datetime";
  if ((!is_moment && name != "datetime.time") ||
      !reinterpret_cast<_PyDateTime_BaseTZInfo*>(object)->hastzinfo) {
    return false;
  }
  PyObject* const zone =
      is_moment ? PyDateTime_DATE_GET_TZINFO(object) : PyDateTime_TIME_GET_TZINFO(object);
  const std::string_view zones = Py_TYPE(zone)->tp_name;
  return (zones != "datetime.timezone" && zones != "zoneinfo.ZoneInfo") ||
         !is_of_module(Py_TYPE(zone));
}

}  // namespace

bool Types::prepare() {
  const Object io(PyImport_ImportModule("_io"));
  if (!io) return false;
  io_base_ = Object(PyObject_GetAttrString(io.get(), "_IOBase"));
  datetime_ = type_of_module("_datetime", "datetime");
  time_ = type_of_module("_datetime", "time");
  zone_ = type_of_module("_datetime", "timezone");
  if (Py_Version >= 0x030f0000) frozendict_ = type_of_module("builtins", "frozendict");
  library_ = Object::borrow(PySys_GetObject("stdlib_module_names"));
  return static_cast<bool>(io_base_);
}

const TypeFacts& Types::facts_of(PyTypeObject* type) {
  if (type == last_type_) return *last_facts_;
  const auto [place, is_new] = types_.try_emplace(type);
  if (is_new) place->second = find_facts(type);
  last_type_ = type;
  last_facts_ = &place->second;
  return place->second;
}

std::uint64_t Types::size_of(PyObject* object) {
  constexpr std::uint64_t kCollectorsHead = 2 * sizeof(void*);
  const TypeFacts& facts = facts_of(Py_TYPE(object));
  const PyCFunction its_size = facts.size_of;
  std::uint64_t others = PyObject_IS_GC(object) ? kCollectorsHead : 0;
  if (facts.is_array && is_immortal(object)) others += numpy_.disowned_bytes(object);
  const Object size(its_size != nullptr ? its_size(object, nullptr) : nullptr);
  const Py_ssize_t bytes = size ? PyLong_AsSsize_t(size.get()) : 0;
  PyErr_Clear();
  return others + (bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0);
}

bool Types::may_hash(PyObject* object, int depth) {
  if (facts_of(Py_TYPE(object)).is_frozendict) {
    bool are_plain = true;
    each_item(object, [&](PyObject* key, PyObject* value) {
      are_plain = are_plain && is_plain(key, depth) && is_plain(value, depth);
    });
    return are_plain;
  }
  if (!PyTuple_Check(object)) return !has_foreign_zone(object);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i)
    if (!is_plain(PyTuple_GET_ITEM(object, i), depth)) return false;
  return true;
}

// Null: a tuple that is on its way has such items.
bool Types::is_plain(PyObject* object, int depth) {
  constexpr int kDeepest = 20;
  if (object == nullptr || depth > kDeepest) return false;
  if (PyUnicode_CheckExact(object) || PyLong_CheckExact(object) || PyFloat_CheckExact(object) ||
      PyBytes_CheckExact(object) || PyBool_Check(object) || PyComplex_CheckExact(object) ||
      object == Py_None || Py_TYPE(object)->tp_hash == PyBaseObject_Type.tp_hash) {
    return true;
  }
  return facts_of(Py_TYPE(object)).hashes_itself && may_hash(object, depth + 1);
}

TypeFacts Types::find_facts(PyTypeObject* type) const {
  TypeFacts facts;
  facts.size_of = size_function(type);
  if (type == &PyFrame_Type || type == &PyGen_Type || type == &PyCoro_Type ||
      type == &PyAsyncGen_Type) {
    facts.kind = Kind::suspended;
  } else if (starts_with(type, "_thread.") || type == &PyMemoryView_Type ||
             type == &PyPickleBuffer_Type || std::strcmp(type->tp_name, "managedbuffer") == 0) {
    facts.kind = Kind::leave;  // a bytearray, say, cannot grow as long as a view lives
  } else if (may_act_when_freed(type) && registered_for(type) == nullptr) {
    facts.kind = Kind::suspended;
    facts.holds_outside = true;
  } else if (type->tp_finalize != nullptr || type->tp_del != nullptr ||
             is_of(type, io_base_.get()) || must_be_closed(type) || is_known_outside(type)) {
    facts.kind = Kind::leave;
    facts.holds_outside = true;
    facts.owns = holds_itself_open(type);
  }
  facts.is_array = numpy_.is_array(type);
  facts.is_holder = numpy_.is_holder(type);
  facts.is_moment = is_of(type, datetime_.get()) || is_of(type, time_.get());
  facts.children_of = registered_for(type);
  facts.is_opaque = !facts.is_holder && facts.children_of == nullptr && may_be_opaque(type);
  const auto hashes_as = [type](const PyTypeObject& known) {
    return type->tp_hash == known.tp_hash;
  };
  facts.hashes_itself =
      hashes_as(PyUnicode_Type) || hashes_as(PyBytes_Type) || hashes_as(PyFrozenSet_Type) ||
      ((starts_with(type, "datetime.") || std::strcmp(type->tp_name, "decimal.Decimal") == 0) &&
       is_of_module(type));
#if PY_VERSION_HEX >= 0x030e0000
  facts.hashes_itself |= hashes_as(PyTuple_Type);
#endif
  facts.is_frozendict = is_of(type, frozendict_.get());
  if (facts.is_frozendict)
    facts.hashes_itself |= hashes_as(*reinterpret_cast<PyTypeObject*>(frozendict_.get()));
  return facts;
}

PyObject* Types::registered_for(PyTypeObject* type) const {
  for (Py_ssize_t i = 0; type->tp_mro != nullptr && i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
    Py_ssize_t position = 0;
    PyObject* key = nullptr;
    PyObject* function = nullptr;
    while (PyDict_Next(children_of_, &position, &key, &function))
      if (key == PyTuple_GET_ITEM(type->tp_mro, i)) return function;
  }
  return nullptr;
}

// In C and not Python's own; of data, not of functions and attributes.
bool Types::may_be_opaque(PyTypeObject* type) const {
  while (is_class_statement(type)) type = type->tp_base;
  if ((type->tp_flags & _Py_TPFLAGS_STATIC_BUILTIN) != 0 || type->tp_descr_get != nullptr ||
      numpy_.is_plain(type)) {
    return false;
  }
  const std::string_view name = type->tp_name;
  const std::string_view module = name.substr(0, name.find('.'));
  const Object text(PyUnicode_FromStringAndSize(module.data(), std::ssize(module)));
  return module == "builtins" ||
         (text && library_ && PySet_Contains(library_.get(), text.get()) == 0);
}

bool Types::is_of(PyTypeObject* type, PyObject* base) {
  return base != nullptr && PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(base)) != 0;
}

#endif

}  // namespace cowshed::python
