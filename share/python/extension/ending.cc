#include <Python.h>
#include <bitset>
#include <cstddef>
#include <cstdio>
#include <new>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <cowshed/share/python/extension/ending.h>
#include <cowshed/share/python/extension/immortal.h>
#include <cowshed/share/python/extension/interpreter.h>
#include <cowshed/share/python/extension/object.h>

namespace cowshed::python {

bool must_be_closed(PyTypeObject* type) {
  const std::string_view name = type->tp_name;
  return name == "_gdbm.gdbm" || name == "_dbm.dbm";
}

bool holds_itself_open(PyTypeObject* type) {
  return std::string_view(type->tp_name) == "sqlite3.Connection";
}

#if COWSHED_KNOWS_IMMORTALS

namespace {

bool has_finaliser(PyObject* object) {
  PyTypeObject* const type = Py_TYPE(object);
  return type->tp_finalize != nullptr || type->tp_del != nullptr || must_be_closed(type) ||
         holds_itself_open(type);
}

// What nothing can be imported for at the end.
struct {
  Object builtins;
  Object sys;
  Object get_objects;  // of gc
  Object io_base;
} needed;

// A set of objects, in some 1/64 of their memory.
class Marks {
 public:
  // Whether it is new.
  bool insert(PyObject* object) {
    const auto [block, bit] = place_of(object);
    if (last_ == nullptr || block != last_block_) {
      last_ = &blocks_[block];
      last_block_ = block;
    }
    const bool is_new = !last_->test(bit);
    last_->set(bit);
    return is_new;
  }
  bool contains(PyObject* object) const {
    const auto [block, bit] = place_of(object);
    const auto found = blocks_.find(block);
    return found != blocks_.end() && found->second.test(bit);
  }

 private:
  static constexpr std::size_t kBits = 1U << 14U;
  static constexpr std::size_t kAlignment = 16;

  static std::pair<std::size_t, std::size_t> place_of(PyObject* object) {
    const auto place = reinterpret_cast<std::size_t>(object) / kAlignment;
    return {place / kBits, place % kBits};
  }

  std::unordered_map<std::size_t, std::bitset<kBits>> blocks_;  // their addresses are stable
  std::bitset<kBits>* last_ = nullptr;
  std::size_t last_block_ = 0;
};

// Where the collector finds an object dead, all its references come from dead objects.  This makes
// the same count for the objects that are not frozen.  A frozen one counts as dead: its own
// references are unknown.
class Deaths {
 public:
  explicit Deaths(Ending ending) : ending_(ending) {}

  // The objects to finalise.
  std::vector<Object> find() {
    const std::vector<PyObject*> rest = young();
    cowshed_visit_frozen([](PyObject* object, void* self) { of(self).meet(object); }, this);
    for (PyObject* object : rest) meet(object);
    scan_late();
    scan_dropped();
    keep_what_lives();
    for (PyObject* object : found_) add(object);
    return std::move(dead_);
  }

 private:
  static Deaths& of(void* self) { return *static_cast<Deaths*>(self); }

  // What the collector tracks and no freeze has seen.
  static std::vector<PyObject*> young() {
    const Object list(PyObject_CallNoArgs(needed.get_objects.get()));
    std::vector<PyObject*> objects;
    for (Py_ssize_t i = 0; list && PyList_Check(list.get()) && i < PyList_GET_SIZE(list.get()); ++i)
      objects.push_back(PyList_GET_ITEM(list.get(), i));
    return objects;
  }

  // The collector goes through its list, and comes back to what it has found no reference to.
  void meet(PyObject* object) {
    if (PyModule_Check(object)) reached_.insert(object);
    if (reached_.contains(object)) return scan(object);
    is_deferred_.insert(object);
    deferred_.push_back(object);
  }

  void scan_late() {
    for (; late_done_ < late_.size(); ++late_done_) scan(late_[late_done_]);
  }

  // What the program has dropped since the freeze.  A frozen object may hold what it no longer
  // would if it had died, so the others come first, and of these the holders.
  void scan_dropped() {
    for (PyObject* object : deferred_) {
      if (is_immortal(object) || reached_.contains(object)) continue;
      each_child_and_in_dict(object, note_held);
    }
    for (const bool all : {false, true}) {
      for (PyObject* object : deferred_) {
        const bool is_next = all || (!is_immortal(object) && !is_held_.contains(object));
        if (is_next && reached_.insert(object)) scan(object), scan_late();
      }
    }
  }

  static int note_held(PyObject* child, void* self) {
    of(self).is_held_.insert(child);
    return 0;
  }

  void scan(PyObject* object) {
    if (!is_immortal(object)) {
      mortal_.push_back(object);
      if (has_finaliser(object)) found_.push_back(object);
    }
    scanning_ = is_file(object) ? object : nullptr;
    each_child(object, [](PyObject* child, void* self) { return of(self).visit(child); });
    if (scanning_ != nullptr) each_child_and_in_dict(object, note_behind);
  }

  // Also those in the object's own __dict__.
  void each_child_and_in_dict(PyObject* object, visitproc visit) {
    each_child(object, visit);
    std::vector<PyObject*> dicts;
    const auto add = [](PyObject* child, void* to) {
      if (PyDict_CheckExact(child)) static_cast<std::vector<PyObject*>*>(to)->push_back(child);
      return 0;
    };
    if (const auto traverse = Py_TYPE(object)->tp_traverse) traverse(object, add, &dicts);
    for (PyObject* dict : dicts) each_child(dict, visit);
  }

  // A file, or a socket, to which the scanned file may still have to write.
  static int note_behind(PyObject* child, void* self) {
    if (!is_immortal(child) && has_finaliser(child))
      of(self).in_front_.emplace(child, of(self).scanning_);
    return 0;
  }

  void each_child(PyObject* object, visitproc visit) {
    if (const auto traverse = Py_TYPE(object)->tp_traverse) traverse(object, visit, this);
  }

  int visit(PyObject* child) {
    const bool is_tracked = PyObject_IS_GC(child) && PyObject_GC_IsTracked(child);
    if (is_tracked && reached_.insert(child) && is_deferred_.contains(child))
      late_.push_back(child);
    if (is_immortal(child)) return 0;
    const bool ends = has_finaliser(child);
    if (!is_tracked && !ends) return 0;
    if (references_[child]++ == 0 && !is_tracked) found_.push_back(child);
    return 0;
  }

  static bool is_file(PyObject* object) {
    return PyType_IsSubtype(Py_TYPE(object),
                            reinterpret_cast<PyTypeObject*>(needed.io_base.get())) != 0;
  }

  // A file or socket after the file in front of it, which still has to write to it.
  void add(PyObject* object) {
    if (alive_.contains(object)) return;
    alive_.insert(object);  // once is enough
    if (const auto file = in_front_.find(object); file != in_front_.end()) add(file->second);
    dead_.push_back(Object::borrow(object));
  }

  void keep_what_lives() {
    keep_values_of(needed.sys.get());
    keep_values_of(needed.builtins.get());
    if (ending_ == Ending::of_process) return;
    for (PyObject* object : mortal_) {
      const auto known = references_.find(object);
      if (Py_REFCNT(object) > (known == references_.end() ? 0 : known->second)) keep(object);
    }
    drain();
  }

  // They are cleared last, and then die by themselves: the standard streams.
  void keep_values_of(PyObject* module) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(PyModule_GetDict(module), &position, nullptr, &value)) keep(value);
    drain();
  }

  void keep(PyObject* object) {
    if (!is_immortal(object) && alive_.insert(object).second) pending_.push_back(object);
  }

  void drain() {
    while (!pending_.empty()) {
      PyObject* const object = pending_.back();
      pending_.pop_back();
      if (!PyObject_IS_GC(object) || PyType_Check(object)) continue;
      each_child(object, [](PyObject* child, void* self) {
        of(self).keep(child);
        return 0;
      });
    }
  }

  const Ending ending_;
  std::vector<PyObject*> deferred_;
  std::vector<PyObject*> late_;
  std::size_t late_done_ = 0;
  Marks is_deferred_;
  Marks reached_;
  Marks is_held_;                 // by something dropped
  PyObject* scanning_ = nullptr;  // a file
  std::unordered_map<PyObject*, PyObject*> in_front_;
  std::vector<PyObject*> mortal_;
  std::unordered_map<PyObject*, Py_ssize_t> references_;
  std::unordered_set<PyObject*> alive_;
  std::vector<PyObject*> pending_;
  std::vector<PyObject*> found_;
  std::vector<Object> dead_;
};

bool is_running(PyObject* object) {
  if (!PyGen_CheckExact(object) && !PyCoro_CheckExact(object)) return false;
  const Object running(
      PyObject_GetAttrString(object, PyGen_CheckExact(object) ? "gi_running" : "cr_running"));
  if (!running) PyErr_Clear();
  return running.get() == Py_True;
}

void finalise(PyObject* object) {
  if (is_running(object)) return;
  if (must_be_closed(Py_TYPE(object))) (void)Object(PyObject_CallMethod(object, "close", nullptr));
  else PyObject_CallFinalizer(object);
  if (PyErr_Occurred()) PyErr_WriteUnraisable(object);
  if (holds_itself_open(Py_TYPE(object))) Py_TYPE(object)->tp_clear(object);
}

bool is_prepared = false;

int on_change_of_builtins(PyDict_WatchEvent event, PyObject*, PyObject*, PyObject*) {
#if PY_VERSION_HEX >= 0x030d0000
  const bool is_finalising = Py_IsFinalizing() != 0;
#else
  const bool is_finalising = _Py_IsFinalizing() != 0;
#endif
  static bool is_over = false;
  if (!is_finalising || is_over || event == PyDict_EVENT_DEALLOCATED) return 0;
  is_over = true;
  const auto end = [](PyObject*) { end_objects(Ending::of_interpreter); };
  static char owner;
  const Object last(PyCapsule_New(&owner, nullptr, end));
  if (!last || PyDict_SetItemString(PyImport_GetModuleDict(), "cowshed.end", last.get()) != 0)
    PyErr_Clear();
  return 0;
}

}  // namespace

// The interpreter begins to clear by setting builtins._ to None.  Then it empties sys.modules. This
// puts an object there that dies then, before anything is cleared that frozen objects refer to.
bool end_objects_at_exit() {
  if (is_prepared) return true;
  const auto attribute_of = [](const char* module, const char* name) {
    const Object imported(PyImport_ImportModule(module));
    return Object(imported ? PyObject_GetAttrString(imported.get(), name) : nullptr);
  };
  needed = {Object(PyImport_ImportModule("builtins")), Object(PyImport_ImportModule("sys")),
            attribute_of("gc", "get_objects"), attribute_of("_io", "_IOBase")};
  if (!needed.builtins || !needed.sys || !needed.get_objects || !needed.io_base) return false;
  const int watcher = PyDict_AddWatcher(on_change_of_builtins);
  is_prepared = watcher >= 0 && PyDict_Watch(watcher, PyModule_GetDict(needed.builtins.get())) == 0;
  return is_prepared;
}

void end_objects(Ending ending) {
  if (!is_prepared) return;  // nothing is frozen
  try {
    for (const Object& object : Deaths(ending).find()) finalise(object.get());
  } catch (const std::bad_alloc&) {
    std::fputs("cowshed: no memory to finalise what frozen objects hold\n", stderr);
  }
}

#else

bool end_objects_at_exit() { return true; }
void end_objects(Ending) {}

#endif

}  // namespace cowshed::python
