#include <Python.h>
#include <array>
#include <cstring>

#include <cowshed/share/python/extension/freezing/numpy.h>

namespace cowshed::python {
namespace {

// PyArrayObject_fields of numpy/ndarraytypes.h, a part of its ABI.
struct ArrayFields {
  PyObject_HEAD char* data;
  int dimensions;
  const Py_ssize_t* shape;
  const Py_ssize_t* strides;
  PyObject* base;
  PyObject* dtype;
  int flags;
};
constexpr int kOwnsData = 4;
constexpr int kMostDimensions = 64;

ArrayFields& fields_of(PyObject* array) { return *reinterpret_cast<ArrayFields*>(array); }

Object attribute(const Object& object, const char* name) {
  return Object(object ? PyObject_GetAttrString(object.get(), name) : nullptr);
}

bool is_true(const Object& object, const char* name) {
  return attribute(object, name).get() == Py_True;
}

Py_ssize_t number(const Object& object, const char* name) {
  const Object value = attribute(object, name);
  return value ? PyLong_AsSsize_t(value.get()) : 0;
}

// Whether the fields of an array are where they should be.
bool knows_fields(const Object& type) {
  const Object array(type ? PyObject_CallFunction(type.get(), "((ii))", 2, 3) : nullptr);
  const Object dtype = attribute(array, "dtype");
  if (!dtype) return false;
  ArrayFields& fields = fields_of(array.get());
  if (fields.dimensions != 2 || fields.dtype != dtype.get() || fields.base != nullptr) return false;
  if (fields.shape[0] != 2 || fields.shape[1] != 3 || fields.strides[0] != 3 * fields.strides[1])
    return false;
  const auto says_owner = [&] { return is_true(attribute(array, "flags"), "owndata"); };
  if ((fields.flags & kOwnsData) == 0 || !says_owner()) return false;
  fields.flags &= ~kOwnsData;
  const bool is_flag = !says_owner();
  fields.flags |= kOwnsData;
  return is_flag;
}

// Whether items share memory: of a view with strides of the program's choice.
bool overlaps(const ArrayFields& array, Py_ssize_t item_bytes) {
  double bytes = static_cast<double>(item_bytes);
  double extent = bytes;
  for (int i = 0; i < array.dimensions; ++i) {
    bytes *= static_cast<double>(array.shape[i]);
    extent += static_cast<double>(array.shape[i] - 1) *
              static_cast<double>(array.strides[i] < 0 ? -array.strides[i] : array.strides[i]);
  }
  return bytes > extent;
}

bool is_empty(const ArrayFields& array) {
  for (int i = 0; i < array.dimensions; ++i)
    if (array.shape[i] == 0) return true;
  return false;
}

}  // namespace

NumPy::NumPy() {
  const Object name(PyUnicode_FromString("numpy"));
  const Object module(name ? PyImport_GetModule(name.get()) : nullptr);
  array_ = attribute(module, "ndarray");
  if (knows_fields(array_)) {
    record_ = attribute(module, "void");
    scalar_ = attribute(module, "generic");
    dtype_ = attribute(module, "dtype");
    as_array_ = attribute(scalar_, "__array__");
  } else {
    array_ = Object();
  }
  PyErr_Clear();
}

bool NumPy::is_of(PyTypeObject* type, const Object& base) {
  return base && PyType_Check(base.get()) &&
         PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(base.get())) != 0;
}

bool NumPy::is_array(PyTypeObject* type) const { return is_of(type, array_); }

void NumPy::disown(PyObject* array) { fields_of(array).flags &= ~kOwnsData; }

void NumPy::add_runs_of_subarray(PyObject* subarray, Py_ssize_t offset, Layout& layout) {
  const Object type = Object::borrow(PyTuple_GetItem(subarray, 0));
  PyObject* const shape = PyTuple_GetItem(subarray, 1);
  Py_ssize_t count = 1;
  for (Py_ssize_t i = 0; shape != nullptr && i < PyTuple_Size(shape); ++i)
    count *= PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i));
  const Py_ssize_t step = number(type, "itemsize");
  Layout item;
  add_runs(type.get(), 0, item);
  layout.is_known &= item.is_known;
  if (item.runs.size() == 1 && item.runs[0].count == 1) {
    layout.runs.push_back({offset + item.runs[0].offset, count, step});
    return;
  }
  for (Py_ssize_t i = 0; i < count; ++i)
    for (const Run& run : item.runs)
      layout.runs.push_back({offset + i * step + run.offset, run.count, run.step});
}

void NumPy::add_runs(PyObject* dtype, Py_ssize_t offset, Layout& layout) {
  const Object type = Object::borrow(dtype);
  if (!is_true(type, "hasobject")) return;
  const Object subarray = attribute(type, "subdtype");
  if (subarray && PyTuple_Check(subarray.get()))
    return add_runs_of_subarray(subarray.get(), offset, layout);
  const Object fields = attribute(type, "fields");
  if (fields && fields.get() != Py_None) {
    const Object values(PyMapping_Values(fields.get()));
    for (Py_ssize_t i = 0; values && i < PyList_GET_SIZE(values.get()); ++i) {
      PyObject* const field = PyList_GET_ITEM(values.get(), i);  // dtype, offset, perhaps a title
      add_runs(PyTuple_GetItem(field, 0), offset + PyLong_AsSsize_t(PyTuple_GetItem(field, 1)),
               layout);
    }
    return;
  }
  const Object kind = attribute(type, "kind");
  const auto is_kind = [&](const char* letter) {
    return kind && PyUnicode_CompareWithASCIIString(kind.get(), letter) == 0;
  };
  if (is_kind("O")) layout.runs.push_back({offset, 1, 0});
  else if (!is_kind("T")) layout.is_known = false;  // T: strings in memory of NumPy's own
}

const NumPy::Layout& NumPy::layout_of(PyObject* dtype) {
  const auto [place, is_new] = layouts_.try_emplace(dtype);
  if (is_new) {
    place->second.item_bytes = number(Object::borrow(dtype), "itemsize");
    add_runs(dtype, 0, place->second);
    if (PyErr_Occurred()) {
      place->second = {};
      place->second.is_known = false;
      PyErr_Clear();
    }
  }
  return place->second;
}

std::uint64_t NumPy::disowned_bytes(PyObject* object) {
  const ArrayFields& array = fields_of(object);
  if (array.base != nullptr || (array.flags & kOwnsData) != 0) return 0;
  Py_ssize_t bytes = layout_of(array.dtype).item_bytes;
  for (int i = 0; i < array.dimensions; ++i) bytes *= array.shape[i];
  return static_cast<std::uint64_t>(bytes);
}

bool NumPy::has_objects(PyObject* holder) {
  if (is_array(Py_TYPE(holder))) return !layout_of(fields_of(holder).dtype).runs.empty();
  return is_true(attribute(Object::borrow(holder), "dtype"), "hasobject");
}

void NumPy::visit_items(PyObject* object, const Layout& layout, visitproc visit, void* context) {
  const ArrayFields& array = fields_of(object);
  if (is_empty(array) || array.dimensions > kMostDimensions) return;
  std::array<Py_ssize_t, kMostDimensions> indices{};
  Py_ssize_t* const index = indices.data();
  const char* item = array.data;
  for (int axis = 0; axis >= 0;) {
    for (const Run& run : layout.runs) {
      for (Py_ssize_t i = 0; i < run.count; ++i) {
        PyObject* held = nullptr;  // a field may be unaligned
        std::memcpy(static_cast<void*>(&held), item + run.offset + i * run.step, sizeof held);
        if (held != nullptr) visit(held, context);
      }
    }
    for (axis = array.dimensions - 1; axis >= 0; --axis) {
      item += array.strides[axis];
      if (++index[axis] < array.shape[axis]) break;
      item -= array.strides[axis] * array.shape[axis];
      index[axis] = 0;
    }
  }
}

// Its memory is in the record, or in the array that it was taken from.
bool NumPy::traverse_record(PyObject* record, visitproc visit, void* context) {
  if (!has_objects(record)) return true;
  const Object array(as_array_ ? PyObject_CallOneArg(as_array_.get(), record) : nullptr);
  if (!array || !is_array(Py_TYPE(array.get()))) {
    PyErr_Clear();
    return false;
  }
  const Layout& layout = layout_of(fields_of(array.get()).dtype);
  visit_items(array.get(), layout, visit, context);
  return layout.is_known;
}

bool NumPy::traverse(PyObject* holder, visitproc visit, void* context) {
  if (!is_array(Py_TYPE(holder))) return traverse_record(holder, visit, context);
  const ArrayFields& array = fields_of(holder);
  visit(array.dtype, context);
  if (array.base != nullptr) visit(array.base, context);
  const Layout& layout = layout_of(array.dtype);
  if (layout.runs.empty()) return layout.is_known;
  const bool is_view = array.base != nullptr && is_array(Py_TYPE(array.base)) &&
                       !layout_of(fields_of(array.base).dtype).runs.empty();
  // The array that has the memory is one of those that the base leads to.
  if (is_view || (array.base != nullptr && overlaps(array, layout.item_bytes)))
    return layout.is_known;
  visit_items(holder, layout, visit, context);
  return layout.is_known;
}

}  // namespace cowshed::python
