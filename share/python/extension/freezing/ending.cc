#include <Python.h>
#include <algorithm>
#include <array>
#include <cstddef>
#include <memory_resource>
#include <new>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <cowshed/base/mapped_resource.h>
#include <cowshed/base/standard_error.h>
#include <cowshed/share/python/extension/freezing/deallocation.h>
#include <cowshed/share/python/extension/freezing/ending.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>
#include <cowshed/share/python/extension/freezing/numpy.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/freezing/tracking.h>

namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

namespace {

// Whether it has something to do at the end.
bool has_finaliser(PyObject* object) {
  PyTypeObject* const type = Py_TYPE(object);
  return type->tp_finalize != nullptr || type->tp_del != nullptr || must_be_closed(type) ||
         holds_itself_open(type) || may_act_when_freed(object);
}

// What nothing can be imported for at the end.
struct {
  Object builtins;
  Object sys;
  Object get_objects;  // of gc
  Object io_base;
  // Never freed: the interpreter ends first.
  std::pmr::unordered_set<PyObject*>* namespaces = nullptr;  // the dicts of the modules
  NumPy* numpy = nullptr;
} needed;

// Blocks of malloc's would lie in holes of the shared heap, and each copy a page.  Never freed.
std::pmr::memory_resource* memory() {
  static auto* const buffer =
      new std::pmr::monotonic_buffer_resource(1 << 20U, new internal::MappedResource);
  return buffer;
}

// While they are in sys.modules.
void note_namespaces() {
  track_frozen_again();
  needed.numpy = new NumPy;
  needed.namespaces = new std::pmr::unordered_set<PyObject*>(memory());
  each_item(PyImport_GetModuleDict(), [](PyObject* /*name*/, PyObject* module) {
    if (PyModule_Check(module)) needed.namespaces->insert(PyModule_GetDict(module));
  });
}

// Where the collector finds an object dead, all its references come from dead objects.  This makes
// the same count for the objects that are not frozen.  A frozen one counts as dead: its own
// references are unknown.
class Deaths {
 public:
  explicit Deaths(Ending ending) : ending_(ending) {}

  // The objects to finalise, in about the collector's order.
  std::vector<Object> find() {
    const Object list(PyObject_CallNoArgs(needed.get_objects.get()));
    if (!list || !PyList_Check(list.get())) return {};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i)
      others_.push_back(PyList_GET_ITEM(list.get(), i));
    cowshed_visit_frozen([](PyObject* object, void* self) { of(self).count(object); }, this);
    for (PyObject* object : others_) count(object);
    for (std::size_t i = 0; i < unlisted_.size(); ++i) count(unlisted_[i]);
    keep_what_lives();
    forget_callbacks();
    put_in_order();
    // Finalisers first: they may use what an extension frees.
    for (PyObject* object : ordered_)
      if (!may_act_when_freed(object)) add(object);
    for (PyObject* object : ordered_) add(object);
    for (const auto& [held, holders] : holders_)
      for (PyObject* holder : holders) kept_.push_back(Object::borrow(holder));
    return std::exchange(dead_, {});
  }

  // Drops what refers to the object, so that it dies now: frozen holders would never do so.
  void release(PyObject* object, int depth = 0) {
    constexpr int kDeepest = 100;
    const auto place = holders_.find(object);
    if (place == holders_.end() || depth > kDeepest) return;
    for (PyObject* holder : std::exchange(place->second, {})) {
      if (!let_go(holder, object)) release(holder, depth + 1);
      // The interpreter caches what is in the dict of a class.
      if (const auto type = classes_.find(holder); type != classes_.end())
        PyType_Modified(type->second);
    }
  }

  // After find(), of a process: what only sys holds, which the interpreter clears last.
  std::vector<Object> last() { return add_all(last_); }
  // The rest, which other threads may be using, or this one.
  std::vector<Object> in_use() { return add_all(in_use_); }

 private:
  struct Node {
    Py_ssize_t references = 0;  // from objects that were counted
    Py_ssize_t holders = 0;     // of these: from objects that are not frozen and not placed yet
    bool is_named = false;      // in a module
    bool is_placed = false;
  };

  static Deaths& of(void* self) { return *static_cast<Deaths*>(self); }

  void count(PyObject* object) {
    if (PyWeakref_Check(object)) weak_.push_back(object);
    if (PyType_Check(object)) {
      auto* const type = reinterpret_cast<PyTypeObject*>(object);
      classes_.emplace(Object(PyType_GetDict(type)).get(), type);
    }
    const bool is_module = needed.namespaces->contains(object);
    const bool holds = !is_module && !is_immortal(object);
    const auto note = [&](PyObject* child, bool is_reference) {
      if (is_plain_data(child)) return;
      if (is_unlisted(child) && seen_unlisted_.insert(child).second) unlisted_.push_back(child);
      if (is_reference && is_released(child) && !may_act_when_freed(object))
        holders_[child].push_back(object);
      if (is_immortal(child) || (!PyObject_IS_GC(child) && !has_finaliser(child))) return;
      Node& node = nodes_[child];
      node.references += is_reference ? 1 : 0;
      node.is_named |= is_module;
      node.holders += holds ? 1 : 0;
    };
    for_each_child(object, [&](PyObject* child) {
      note(child, true);
      if (holds && PyDict_CheckExact(child) && is_immortal(child))
        for_each_child(child, [&](PyObject* value) { note(value, false); });
    });
  }

  // Whether the object dies by release(): it acts then, or holds what does and lets go of nothing.
  static bool is_released(PyObject* object) {
    PyTypeObject* const type = Py_TYPE(object);
    return !is_immortal(object) && (may_act_when_freed(object) || is_array(object) ||
                                    (PyObject_IS_GC(object) && type->tp_clear == nullptr));
  }

  template <class Act>
  static void for_each_child(PyObject* object, Act act) {
    const auto visit = [](PyObject* child, void* to) {
      (*static_cast<Act*>(to))(child);
      return 0;
    };
    if (const auto traverse = Py_TYPE(object)->tp_traverse; traverse && PyObject_IS_GC(object))
      traverse(object, visit, &act);
    if (is_array(object)) needed.numpy->traverse(object, visit, &act);
  }

  // Whether the collector does not list it: an array of NumPy, or a tuple or dict that holds such
  // an array or an object of an extension.
  static bool is_unlisted(PyObject* object) {
    if (!PyTuple_CheckExact(object) && !PyDict_CheckExact(object))
      return !PyObject_IS_GC(object) && is_array(object);
    if (PyObject_GC_IsTracked(object)) return false;
    bool holds_one = false;
    for_each_child(object, [&](PyObject* item) {
      holds_one =
          holds_one || (!is_plain_data(item) && (is_unlisted(item) || may_act_when_freed(item)));
    });
    return holds_one;
  }

  static bool is_array(PyObject* object) {
    return !PyUnicode_CheckExact(object) && !PyDict_CheckExact(object) &&
           needed.numpy->is_holder(Py_TYPE(object));
  }

  // What a module names comes first, with what that holds.  A frozen holder may have died by now,
  // were it not frozen, so the rest follows its holders that are not frozen.
  void put_in_order() {
    for (PyObject* object : others_)
      if (nodes_[object].is_named) place(object);
    place_what_they_hold(true);
    for (PyObject* object : others_)
      if (nodes_[object].holders <= 0) place(object);
    place_what_they_hold(false);
    for (PyObject* object : others_) {  // cycles
      place(object);
      place_what_they_hold(false);
    }
    for (const auto& [object, node] : nodes_)  // the program has called gc.freeze() since, say
      if (!node.is_placed) place(object);
    place_what_they_hold(false);
  }

  void place_what_they_hold(bool at_once) {
    for (; holders_done_ < placed_.size(); ++holders_done_)
      place_children(placed_[holders_done_], at_once);
  }

  void place(PyObject* object) {
    if (is_immortal(object) || std::exchange(nodes_[object].is_placed, true)) return;
    placed_.push_back(object);
    if (has_finaliser(object)) ordered_.push_back(object);
  }

  void place_children(PyObject* object, bool at_once) {
    const bool is_a_file = is_file(object);
    const bool acts = may_act_when_freed(object);
    // A file, or a socket, to which this one may still have to write.
    const auto note = [&](PyObject* child) {
      if (nodes_.contains(child) &&
          ((is_a_file && has_finaliser(child)) || (acts && is_file(child))))
        in_front_.emplace(child, object);
    };
    const auto act = [&](PyObject* child) {
      const auto node = nodes_.find(child);
      if (node == nodes_.end()) return;
      if (--node->second.holders <= 0 || at_once) place(child);
      note(child);
    };
    for_each_child(object, [&](PyObject* child) {
      act(child);
      if (!PyDict_CheckExact(child)) return;
      if (is_immortal(child)) for_each_child(child, act);
      else if (is_a_file || acts) for_each_child(child, note);  // the attributes
    });
  }

  static bool is_file(PyObject* object) {
    return PyType_IsSubtype(Py_TYPE(object),
                            reinterpret_cast<PyTypeObject*>(needed.io_base.get())) != 0;
  }

  void add(PyObject* object) {
    if (!alive_.insert(object).second) return;  // or it is there already
    if (const auto file = in_front_.find(object); file != in_front_.end()) add(file->second);
    dead_.push_back(Object::borrow(object));
  }

  std::vector<Object> add_all(const std::pmr::vector<PyObject*>& kept) {
    for (PyObject* object : kept) alive_.erase(object);
    for (PyObject* object : ordered_) add(object);
    return std::exchange(dead_, {});
  }

  void keep_what_lives() {
    if (ending_ == Ending::of_interpreter) {
      // It clears them later, and then they die by themselves.
      keep_values_of(needed.sys.get());
      keep_values_of(needed.builtins.get());
      keep_what_is_in_use();
      return;
    }
    for (const char* name : {"__stdin__", "__stdout__", "__stderr__"})
      if (PyObject* stream = PySys_GetObject(name)) keep(stream);
    drain();
    kept_now_ = &in_use_;
    if (has_other_threads()) keep_what_is_in_use();
    kept_now_ = &last_;
    keep_values_of(needed.sys.get());
  }

  void keep_what_is_in_use() {
    for (PyObject* object : others_) {
      const auto node = nodes_.find(object);
      const Py_ssize_t known = node == nodes_.end() ? 0 : node->second.references;
      if (Py_REFCNT(object) - 1 > known) keep(object);  // the list of others has one
    }
    drain();
  }

  // The collector calls no weak reference that dies with its object.  Later its function could not
  // use what is cleared.
  void forget_callbacks() {
    for (PyObject* reference : weak_) {
      PyObject*& callback = reinterpret_cast<PyWeakReference*>(reference)->wr_callback;
      if (callback && !alive_.contains(reference) &&
          (PyFunction_Check(callback) || PyMethod_Check(callback))) {
        Py_CLEAR(callback);
      }
    }
  }

  void keep_values_of(PyObject* module) {
    // The interpreter has cleared these before.
    constexpr std::array kFirst{"meta_path", "modules", "path_hooks", "path_importer_cache"};
    each_item(PyModule_GetDict(module), [&](PyObject* name, PyObject* value) {
      if (std::ranges::none_of(kFirst, [&](const char* first) {
            return PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, first) == 0;
          }))
        keep(value);
    });
    drain();
  }

  void keep(PyObject* object) {
    if (is_immortal(object) || !alive_.insert(object).second) return;
    pending_.push_back(object);
    if (kept_now_ != nullptr) kept_now_->push_back(object);
  }

  static bool has_other_threads() {
    PyThreadState* const newest = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    return PyThreadState_Next(newest) != nullptr;
  }

  void drain() {
    while (!pending_.empty()) {
      PyObject* const object = pending_.back();
      pending_.pop_back();
      // A module is cleared, whoever refers to it.
      if (!PyType_Check(object) && !needed.namespaces->contains(object))
        for_each_child(object, [&](PyObject* child) { keep(child); });
    }
  }

  const Ending ending_;
  std::pmr::vector<PyObject*> weak_{memory()};    // references
  std::pmr::vector<PyObject*> others_{memory()};  // that the collector tracks, or a freeze has left
  std::pmr::vector<PyObject*> unlisted_{memory()};
  std::pmr::unordered_set<PyObject*> seen_unlisted_{memory()};
  std::pmr::unordered_map<PyObject*, Node> nodes_{memory()};
  std::pmr::unordered_map<PyObject*, std::pmr::vector<PyObject*>> holders_{memory()};
  std::vector<Object> kept_;  // the holders, until release()
  std::pmr::unordered_map<PyObject*, PyTypeObject*> classes_{memory()};  // by their dict
  std::pmr::unordered_set<PyObject*> alive_{memory()};
  std::pmr::vector<PyObject*> pending_{memory()};
  std::pmr::vector<PyObject*>* kept_now_ = nullptr;  // gets what keep() finds
  std::pmr::vector<PyObject*> in_use_{memory()};
  std::pmr::vector<PyObject*> last_{memory()};
  std::pmr::vector<PyObject*> placed_{memory()};
  std::size_t holders_done_ = 0;
  std::pmr::vector<PyObject*> ordered_{memory()};
  std::pmr::unordered_map<PyObject*, PyObject*> in_front_{memory()};
  std::vector<Object> dead_;
};

bool is_running(PyObject* object) {
  if (!PyGen_CheckExact(object) && !PyCoro_CheckExact(object)) return false;
  const Object running(
      PyObject_GetAttrString(object, PyGen_CheckExact(object) ? "gi_running" : "cr_running"));
  if (!running) PyErr_Clear();
  return running.get() == Py_True;
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
  note_namespaces();
  const auto end = [](PyObject*) { (void)end_objects(Ending::of_interpreter); };
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
  needed = {Object(PyImport_ImportModule("builtins")),
            Object(PyImport_ImportModule("sys")),
            attribute_of("gc", "get_objects"),
            attribute_of("_io", "_IOBase"),
            {}};
  if (!needed.builtins || !needed.sys || !needed.get_objects || !needed.io_base) return false;
  const int watcher = PyDict_AddWatcher(on_change_of_builtins);
  is_prepared = watcher >= 0 && PyDict_Watch(watcher, PyModule_GetDict(needed.builtins.get())) == 0;
  return is_prepared;
}

std::vector<Object> end_objects(Ending ending) {
  try {
    if (ending == Ending::of_process) note_namespaces();
    Deaths deaths(ending);
    std::vector<Object> dead = deaths.find();
    std::vector<Object> last = deaths.last();
    std::vector<Object> left = deaths.in_use();
    const auto end = [&deaths](std::vector<Object>& objects) {
      for (Object& object : objects) {
        finalise(object.get());
        if (may_act_when_freed(object.get())) deaths.release(object.get());
        object = Object();
      }
    };
    end(dead);
    if (last.empty()) return left;
    // At an exit, these finalisers print nothing either.
    for (const char* name : {"stdout", "stderr"})
      if (PySys_SetObject(name, Py_None) != 0) PyErr_Clear();
    end(last);
    return left;
  } catch (const std::bad_alloc&) {
    internal::write_to_standard_error("cowshed: no memory to finalise objects at the end\n");
    return {};
  }
}

void finalise(PyObject* object) {
  if (is_running(object)) return;
  if (must_be_closed(Py_TYPE(object))) (void)Object(PyObject_CallMethod(object, "close", nullptr));
  else PyObject_CallFinalizer(object);
  if (PyErr_Occurred()) PyErr_WriteUnraisable(object);
  if (holds_itself_open(Py_TYPE(object))) Py_TYPE(object)->tp_clear(object);
}

#else

bool end_objects_at_exit() { return true; }
std::vector<Object> end_objects(Ending) { return {}; }
void finalise(PyObject*) {}

#endif

}  // namespace cowshed::python
