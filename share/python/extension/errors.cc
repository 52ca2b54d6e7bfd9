#include <string>

#include <cowshed/share/python/extension/errors.h>
#include <cowshed/share/python/extension/freezing/object.h>

namespace cowshed::python {

PyObject* raise(const Error& error) {
  const Object errors(PyImport_ImportModule("cowshed.errors"));
  if (!errors) return nullptr;
  const std::string code(to_string(error.code));
  const Object made(PyObject_CallMethod(errors.get(), "_make", "ssi", code.c_str(),
                                        error.message.c_str(), error.system_errno));
  if (made) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.get())), made.get());
  return nullptr;
}

}  // namespace cowshed::python
