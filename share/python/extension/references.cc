// Published objects: the names and numbers by which processes of one tree find them.
#include <Python.h>
#include <array>
#include <cstring>
#include <string_view>

#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/methods.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/registry/objects.h>

namespace cowshed::python {
namespace {

using internal::RefBits;

internal::TypeInfo object_type() {
  internal::TypeInfo type = internal::kTypeInfo<PyObject>;
  type.name = "Python object";
  return type;
}

PyObject* to_bytes(const RefBits& bits) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(&bits), sizeof bits);
}

bool to_bits(PyObject* bytes, RefBits& bits) {
  if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != sizeof bits) {
    PyErr_SetString(PyExc_ValueError, "a reference has 16 bytes");
    return false;
  }
  std::memcpy(&bits, PyBytes_AS_STRING(bytes), sizeof bits);
  return true;
}

// name: str, or None for no name.
PyObject* publish(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  Py_ssize_t size = 0;
  PyObject* object = nullptr;
  if (!PyArg_ParseTuple(arguments, "z#O", &name, &size, &object)) return nullptr;
  const std::string_view view(name, static_cast<std::size_t>(size));
  const auto bits = registry::publish_own(name == nullptr ? nullptr : &view, object, object_type());
  if (!bits) return raise(bits.error());
  Py_INCREF(object);  // until withdraw()
  return to_bytes(*bits);
}

PyObject* find(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(arguments, "s#", &name, &size)) return nullptr;
  const auto bits = internal::find({name, static_cast<std::size_t>(size)}, object_type());
  return bits ? to_bytes(*bits) : raise(bits.error());
}

PyObject* resolve(PyObject*, PyObject* bytes) {
  RefBits bits;
  if (!to_bits(bytes, bits)) return nullptr;
  const auto object = Ref<PyObject>(bits).get();
  if (!object) return raise(object.error());
  return Py_NewRef(const_cast<PyObject*>(*object));
}

PyObject* withdraw(PyObject*, PyObject* bytes) {
  RefBits bits;
  if (!to_bits(bytes, bits)) return nullptr;
  const auto object = Ref<PyObject>(bits).get();
  if (!object) return raise(object.error());
  if (const auto done = internal::withdraw(bits, object_type()); !done) return raise(done.error());
  Py_DECREF(const_cast<PyObject*>(*object));
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef reference_methods[] = {{"publish", publish, METH_VARARGS, nullptr},
                                   {"find", find, METH_VARARGS, nullptr},
                                   {"resolve", resolve, METH_O, nullptr},
                                   {"withdraw", withdraw, METH_O, nullptr},
                                   {nullptr, nullptr, 0, nullptr}};

}  // namespace cowshed::python
