#include <Python.h>
#include <cstring>
#include <datetime.h>
#include <structmember.h>

#include <cowshed/share/python/extension/freezing/children.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

namespace {

void children_of_code(PyCodeObject* code, visitproc visit, void* context) {
  for (PyObject* part : {code->co_consts, code->co_names, code->co_exceptiontable,
                         code->co_localsplusnames, code->co_localspluskinds, code->co_filename,
                         code->co_name, code->co_qualname, code->co_linetable})
    visit(part, context);
  if (const auto* cached = code->_co_cached)
    for (PyObject* part :
         {cached->_co_code, cached->_co_varnames, cached->_co_cellvars, cached->_co_freevars})
      visit(part, context);
}

// Traversal leaves these out, and may not be called for a static type.
void children_of_type(PyTypeObject* type, visitproc visit, void* context) {
  visit(type->tp_bases, context);
  visit(type->tp_mro, context);
  const Object dict(PyType_GetDict(type));
  if (dict) visit(dict.get(), context);
  if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) return;
  auto* const heap = reinterpret_cast<PyHeapTypeObject*>(type);
  visit(heap->ht_name, context);
  visit(heap->ht_qualname, context);
  visit(heap->ht_slots, context);
  if ((type->tp_flags & _Py_TPFLAGS_STATIC_BUILTIN) == 0)
    visit(static_cast<PyObject*>(type->tp_subclasses), context);
}

// The numbers of a range, for instance.
void children_of_members(PyObject* object, visitproc visit, void* context) {
  for (const PyMemberDef* member = Py_TYPE(object)->tp_members; member && member->name; ++member) {
    if (member->type != T_OBJECT && member->type != T_OBJECT_EX) continue;
    PyObject* value = nullptr;
    std::memcpy(&value, reinterpret_cast<const char*>(object) + member->offset, sizeof value);
    visit(value, context);
  }
}

void child_of_moment(PyObject* object, const Types& types, visitproc visit, void* context) {
  if (!reinterpret_cast<_PyDateTime_BaseTZInfo*>(object)->hastzinfo) return;
  visit(types.is_datetime(Py_TYPE(object)) ? PyDateTime_DATE_GET_TZINFO(object)
                                           : PyDateTime_TIME_GET_TZINFO(object),
        context);
}

void children_of_zone(PyObject* zone, visitproc visit, void* context) {
  for (const char* part : {"utcoffset", "tzname"}) {
    const Object value(PyObject_CallMethod(zone, part, "O", Py_None));
    if (value && Py_REFCNT(value.get()) > 1)
      visit(value.get(), context);  // it was not made by the call
  }
  PyErr_Clear();
}

}  // namespace

bool each_child(PyObject* object, Types& types, visitproc visit, void* context) {
  PyTypeObject* const type = Py_TYPE(object);
  visit(reinterpret_cast<PyObject*>(type), context);
  if (is_plain_data(object)) return true;
  const TypeFacts& facts = types.facts_of(type);
  if (type->tp_traverse != nullptr && PyObject_IS_GC(object))
    type->tp_traverse(object, visit, context);
  else children_of_members(object, visit, context);
  const bool is_known = !facts.is_holder || types.numpy().traverse(object, visit, context);
  if (facts.is_moment) child_of_moment(object, types, visit, context);
  if (types.is_zone(type)) children_of_zone(object, visit, context);
  if (PyDict_Check(object) || facts.is_frozendict) {  // its traversal may leave out the keys
    each_item(object, [&](PyObject* key, PyObject* value) {
      visit(key, context);
      visit(value, context);
    });
  } else if (PyCode_Check(object)) {
    children_of_code(reinterpret_cast<PyCodeObject*>(object), visit, context);
  } else if (PyType_Check(object)) {
    children_of_type(reinterpret_cast<PyTypeObject*>(object), visit, context);
  }
  return is_known;
}

#endif

}  // namespace cowshed::python
