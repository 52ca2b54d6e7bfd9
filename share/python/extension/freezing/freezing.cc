#include <Python.h>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <iterator>
#include <malloc.h>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <cowshed/base/standard_error.h>
#include <cowshed/share/python/extension/freezing/children.h>
#include <cowshed/share/python/extension/freezing/ending.h>
#include <cowshed/share/python/extension/freezing/freezing.h>
#include <cowshed/share/python/extension/freezing/hidden_references.h>
#include <cowshed/share/python/extension/freezing/holders.h>
#include <cowshed/share/python/extension/freezing/immortal.h>
#include <cowshed/share/python/extension/freezing/interpreter.h>
#include <cowshed/share/python/extension/freezing/object.h>
#include <cowshed/share/python/extension/freezing/reachable.h>
#include <cowshed/share/python/extension/freezing/tracking.h>
#include <cowshed/share/python/extension/freezing/type_facts.h>

// The roots are the objects that the garbage collector tracks.  The walk marks each root, and the
// untracked objects that it refers to: strings, numbers, tuples of these, code.  It does not follow
// tracked objects, because they are roots, too.  So it is never deep.  References that no traversal
// shows are known of NumPy and of datetime, and from the functions of register_children().
namespace cowshed::python {

#if COWSHED_KNOWS_IMMORTALS

namespace {

// Of a type in C that may have references which its traversal leaves out.
struct Opaque {
  std::uint64_t objects = 0;
  std::array<PyObject*, 64> latest{};
};

// Frozen objects with references that only the program or NumPy shows.  A later freeze looks for
// new ones.  They are never freed.
std::vector<PyObject*>& frozen_holders() {
  static std::vector<PyObject*> objects;
  return objects;
}

class Freezer {
 public:
  Freezer(PyObject* children_of, Frozen& frozen)
      : frozen_(frozen), types_(children_of), holders_(types_) {}

  bool prepare() { return types_.prepare(); }

  void keep(PyObject* objects, PyObject* tracked) {
    listed_ = 1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(objects); ++i)
      exclude(PySequence_Fast_GET_ITEM(objects, i));
    excluded_.insert(objects);
    excluded_.insert(tracked);
  }

  // From now on, only what modules and classes refer to.
  bool limit_to_reachable(PyObject* tracked) {
    reachable_.emplace(types_);
    if (!reachable_->add_modules()) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(tracked); ++i)
      if (PyType_Check(PyList_GET_ITEM(tracked, i))) reachable_->add(PyList_GET_ITEM(tracked, i));
    return true;
  }

  void freeze_all(Object tracked) {
    holders_.find(tracked.get());
    for (std::size_t i = 0; i < frozen_holders().size(); ++i) {
      freeze(frozen_holders()[i]);
      drain();
    }
    const Py_ssize_t count = PyList_GET_SIZE(tracked.get());
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* const object = PyList_GET_ITEM(tracked.get(), i);
      if (!reachable_ || reachable_->contains(object)) root(object);
      else if (!is_immortal(object) && !may_be_unfinished(object))
        left_.push_back(Object::borrow(object));
      if ((i & 0xfff) == 0) show_progress(i, count);
    }
    // From here on signal handlers may run, and threads, which do not bear its references.
    excluded_.erase(tracked.get());
    tracked = Object();
    listed_ = 0;
    if (!reachable_) {
      freeze_locals();
      each_item(cowshed_interned_strings(), [&](PyObject* text, PyObject*) { reach(text); });
    }
    for (std::size_t line = 0; PyObject* const name = cowshed_cached_name(line); ++line)
      reach(name);
    if (shown_) show("\r\033[K");
  }

  // Runs the functions of register_children(), and freezes what they return.
  void freeze_registered() {
    for (std::size_t i = 0; i < registered_.size(); ++i) {
      const auto [object, function] = registered_[i];
      const Object children(PyObject_CallOneArg(function, object));
      const Object list(children
                            ? PySequence_Fast(children.get(), "children_of() returns no iterable")
                            : nullptr);
      if (!list) {
        keep_interruption(PyExc_Exception);
        if (PyErr_Occurred()) PyErr_WriteUnraisable(function);
        leave_in_part(Py_TYPE(object), 1);
        continue;
      }
      for (Py_ssize_t k = 0; k < PySequence_Fast_GET_SIZE(list.get()); ++k) {
        freeze(PySequence_Fast_GET_ITEM(list.get(), k));
        drain();
      }
    }
  }

  // At the end: which types have references that were not followed.
  void count_hidden() {
    for (const auto& [type, opaque] : opaque_) {
      const auto is_hidden = [this](PyObject* object) {
        return object != nullptr && has_hidden_references(object, excluded_);
      };
      if (std::any_of(opaque.latest.begin(), opaque.latest.end(), is_hidden))
        leave_in_part(type, opaque.objects);
    }
  }

  // At the very end.  False: a Python error is set, which a signal handler raised meanwhile.
  bool was_uninterrupted() {
    if (!interruption_) return true;
    PyErr_SetRaisedException(interruption_.release());
    return false;
  }

  // After gc.freeze(): the collector goes on to care for what stays as it was.
  void give_back() const {
    for (const Object& left : left_) {
      PyObject* const object = left.get();
      if (is_immortal(object) || !PyObject_IS_GC(object) || !PyObject_GC_IsTracked(object))
        continue;
      PyObject_GC_UnTrack(object);
      PyObject_GC_Track(object);
    }
  }

 private:
  // Without the reference that the list of roots has.
  static Py_ssize_t references(PyObject* object) {
    return Py_REFCNT(object) - (PyObject_GC_IsTracked(object) ? listed_ : 0);
  }

  // C code that has the only reference to a tuple may still resize it.  The walk marks such a tuple
  // when it finds another object that refers to it.
  static bool may_be_unfinished(PyObject* object) {
    return (PyTuple_CheckExact(object) || PyFrozenSet_CheckExact(object)) &&
           references(object) <= 1;
  }

  void root(PyObject* object) {
    if (may_be_unfinished(object)) return;
    freeze(object);
    drain();
  }

  void reach(PyObject* object) {
    pending_.push_back(object);
    drain();
  }

  void drain() {
    while (!pending_.empty()) {
      PyObject* const object = pending_.back();
      pending_.pop_back();
      if (!is_immortal(object)) freeze(object);
    }
  }

  // An object that is tracked may have new children since it was frozen.
  void freeze(PyObject* object) {
    if (excluded_.contains(object)) return;
    const TypeFacts& facts = types_.facts_of(Py_TYPE(object));
    if (facts.kind == Kind::leave || is_awaited(object, types_)) {
      if (facts.owns) exclude(object);
      return leave(object);
    }
    const bool is_new = facts.kind == Kind::data && !is_immortal(object);
    if (is_new) fill(object, facts);
    holds_outside_ = holders_.contain(object);
    children_of(object, facts);
    if (is_new && !(holds_outside_ && may_be_dropped(object))) mark(object, facts);
    else if (is_new || facts.kind == Kind::suspended) leave(object);
    if (facts.children_of != nullptr && is_immortal(object) && asked_.insert(object).second)
      registered_.emplace_back(object, facts.children_of);
  }

  void leave(PyObject* object) {
    ++frozen_.left[Py_TYPE(object)->tp_name];
    if (excluded_.insert(object).second) left_.push_back(Object::borrow(object));
    child(reinterpret_cast<PyObject*>(Py_TYPE(object)));
  }

  void leave_in_part(PyTypeObject* type, std::uint64_t objects) {
    frozen_.left[type->tp_name] += objects;
    frozen_.in_part += objects;
  }

  void mark(PyObject* object, const TypeFacts& facts) {
    frozen_.bytes += types_.size_of(object);
    if (PyUnicode_Check(object)) {
      auto& state = reinterpret_cast<PyASCIIObject*>(object)->state;
      if (state.interned == SSTATE_INTERNED_MORTAL) state.interned = SSTATE_INTERNED_IMMORTAL;
    }
    // An untracked dict may get new values, which the next freeze then finds.
    if (PyDict_Check(object) && !PyObject_GC_IsTracked(object)) PyObject_GC_Track(object);
    if (facts.is_array) NumPy::disown(object);
    make_immortal(object);
    ++frozen_.objects;
    if (facts.is_opaque) {
      Opaque& opaque = opaque_[Py_TYPE(object)];
      opaque.latest[opaque.objects++ % opaque.latest.size()] = object;
    }
    const bool is_root = PyObject_IS_GC(object) && PyObject_GC_IsTracked(object);
    if (!is_root && (facts.children_of || (facts.is_holder && types_.numpy().has_objects(object))))
      frozen_holders().push_back(object);
  }

  // What reading would write into the object, or beside it.  Runs no Python code.
  void fill(PyObject* object, const TypeFacts& facts) {
    if (PyUnicode_Check(object) && !PyUnicode_IS_ASCII(object)) PyUnicode_AsUTF8(object);
    if (facts.hashes_itself && types_.may_hash(object)) PyObject_Hash(object);
    if (PyType_Check(object)) {
      PyUnstable_Type_AssignVersionTag(reinterpret_cast<PyTypeObject*>(object));
    } else if (PyCode_Check(object)) {
      auto* const code = reinterpret_cast<PyCodeObject*>(object);
      Py_XDECREF(PyCode_GetVarnames(code));
      Py_XDECREF(PyCode_GetCellvars(code));
      Py_XDECREF(PyCode_GetFreevars(code));
    }
    PyErr_Clear();
  }

  static bool has_values_inline(PyTypeObject* type) {
#if PY_VERSION_HEX >= 0x030d0000
    return (type->tp_flags & Py_TPFLAGS_INLINE_VALUES) != 0;
#else
    return (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) != 0;
#endif
  }

  void child(PyObject* object) {
    if (object == nullptr || is_immortal(object)) return;
    holds_outside_ |= is_outside(object, types_);
    if (!PyObject_IS_GC(object) || !PyObject_GC_IsTracked(object) || may_be_unfinished(object))
      pending_.push_back(object);
  }

  static int visit(PyObject* object, void* self) {
    auto& freezer = *static_cast<Freezer*>(self);
    freezer.child(object);
    if (object != nullptr && PyDict_CheckExact(object)) freezer.has_dict_ = true;
    return 0;
  }

  // Whether the object's own __dict__ holds it.  The traversal has visited the values that lie in
  // the object itself.
  void look_into_dict(PyObject* object) {
    if (!has_dict_ || PyModule_Check(object) || PyFunction_Check(object)) return;
    PyObject** const dict = _PyObject_GetDictPtr(object);
    if (dict == nullptr || *dict == nullptr) return;
    each_item(*dict, [&](PyObject* /*key*/, PyObject* value) {
      holds_outside_ |= !is_immortal(value) && is_outside(value, types_);
    });
  }

  void children_of(PyObject* object, const TypeFacts& facts) {
    has_dict_ = false;
    if (!each_child(object, types_, visit, this)) leave_in_part(Py_TYPE(object), 1);
    if (PyDict_Check(object) || facts.is_frozendict || PyCode_Check(object) || PyType_Check(object))
      return;
    look_into_dict(object);
    // It is made when it is first asked for.  An object that stays gets none that is frozen.
    if (!has_values_inline(Py_TYPE(object)) || holds_outside_) return;
    const Object dict(PyObject_GenericGetDict(object, nullptr));
    if (dict) pending_.push_back(dict.get());  // tracked, but not among the roots if it is new
    PyErr_Clear();
  }

  // The collector does not track all that functions which are running have in variables.
  // sys._current_frames() would also make frames of other interpreters, in this one's memory.
  void freeze_locals() {
    std::vector<Object> frames;  // threads may end when a signal handler runs
    for (PyThreadState* thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
         thread != nullptr; thread = PyThreadState_Next(thread)) {
      Object frame(reinterpret_cast<PyObject*>(PyThreadState_GetFrame(thread)));
      while (frame) {
        auto* const here = reinterpret_cast<PyFrameObject*>(frame.get());
        frames.push_back(std::move(frame));
        frame = Object(reinterpret_cast<PyObject*>(PyFrame_GetBack(here)));
      }
    }
    for (const Object& frame : frames)
      freeze_locals_of(reinterpret_cast<PyFrameObject*>(frame.get()));
  }

  void freeze_locals_of(PyFrameObject* frame) {
    const Object code(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
    auto* const object = reinterpret_cast<PyCodeObject*>(code.get());
    if ((object->co_flags & CO_OPTIMIZED) == 0) return;  // a module's are its dict
    std::vector<Object> values;                          // other threads may drop them meanwhile
    for (auto* const names_of : {PyCode_GetVarnames, PyCode_GetCellvars, PyCode_GetFreevars}) {
      const Object names(names_of(object));
      for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names.get()); ++i) {
        Object value(PyFrame_GetVar(frame, PyTuple_GET_ITEM(names.get(), i)));
        if (value) values.push_back(std::move(value));
        else keep_interruption(PyExc_NameError);  // it is unbound
        PyErr_Clear();
      }
    }
    PyErr_Clear();
    child(code.get());
    for (const Object& value : values) pending_.push_back(value.get());
    drain();
  }

  // What nobody else refers to goes with it.
  void exclude(PyObject* object) {
    std::vector<PyObject*> pending = {object};
    while (!pending.empty()) {
      PyObject* const next = pending.back();
      pending.pop_back();
      if (!excluded_.insert(next).second) continue;
      left_.push_back(Object::borrow(next));
      const auto follow = [](PyObject* held, void* to) {
        if (references(held) == 1) static_cast<std::vector<PyObject*>*>(to)->push_back(held);
        return 0;
      };
      const TypeFacts& facts = types_.facts_of(Py_TYPE(next));
      if (facts.is_holder) types_.numpy().traverse(next, follow, &pending);
      if (PyDict_Check(next) || facts.is_frozendict) {
        each_item(next, [&](PyObject* key, PyObject* value) {
          follow(key, &pending);
          follow(value, &pending);
        });
      } else if (Py_TYPE(next)->tp_traverse && PyObject_IS_GC(next) && !PyType_Check(next)) {
        Py_TYPE(next)->tp_traverse(next, follow, &pending);
      }
    }
  }

  // Formatting an error may run a signal handler.
  void keep_interruption(PyObject* expected) {
    if (!PyErr_ExceptionMatches(expected)) interruption_ = Object(PyErr_GetRaisedException());
  }

  void show_progress(Py_ssize_t done, Py_ssize_t all) {
    const std::time_t now = std::time(nullptr);
    if (began_ == 0) began_ = shown_at_ = now;
    if (now - began_ < 2 || now == shown_at_ || ::isatty(STDERR_FILENO) == 0) return;
    shown_at_ = now;
    shown_ = true;
    show("\rcowshed: freezing, " + std::to_string(100 * done / all) + " %");
  }
  // Signals may be blocked, and nobody may read what the terminal shows.
  static void show(std::string_view text) {
    internal::write_to_standard_error(text, internal::identity_of(STDERR_FILENO));
  }

  static inline Py_ssize_t listed_ = 0;  // 1 while there is the list of roots
  Frozen& frozen_;
  Types types_;
  Holders holders_;
  std::optional<Reachable> reachable_;
  bool holds_outside_ = false;  // the object whose children are visited
  bool has_dict_ = false;
  std::vector<PyObject*> pending_;
  std::unordered_set<PyObject*> excluded_;
  std::vector<Object> left_;                                 // the same, in the collector's order
  std::vector<std::pair<PyObject*, PyObject*>> registered_;  // frozen, with their function
  std::unordered_set<PyObject*> asked_;                      // the same
  std::unordered_map<PyTypeObject*, Opaque> opaque_;
  Object interruption_;
  std::time_t began_ = 0;
  std::time_t shown_at_ = 0;
  bool shown_ = false;
};

bool call(PyObject* module, const char* function) {
  return static_cast<bool>(Object(PyObject_CallMethod(module, function, nullptr)));
}

// Allocating may start the collector, which runs finalisers.
class WithoutCollector {
 public:
  WithoutCollector() = default;
  WithoutCollector(const WithoutCollector&) = delete;
  WithoutCollector& operator=(const WithoutCollector&) = delete;
  ~WithoutCollector() {
    if (was_enabled_) PyGC_Enable();
  }

 private:
  const bool was_enabled_ = PyGC_Disable() != 0;
};

// Whether this is no freeze inside another.  The other's list refers to each object, so that nobody
// could tell a tuple that is still being made.
class OnlyWalk {
 public:
  OnlyWalk() : is_it_(std::exchange(walker_, ::getpid()) != ::getpid()) {}
  OnlyWalk(const OnlyWalk&) = delete;
  OnlyWalk& operator=(const OnlyWalk&) = delete;
  ~OnlyWalk() {
    if (is_it_) walker_ = 0;
  }
  explicit operator bool() const { return is_it_; }

 private:
  static inline pid_t walker_ = 0;  // a child has its own
  const bool is_it_;
};

bool freeze_objects(PyObject* keep, PyObject* children_of, bool only_reachable, Frozen& frozen) {
  const Object gc(PyImport_ImportModule("gc"));
  const Object kept(PySequence_Fast(keep, ""));
  Freezer freezer(children_of, frozen);
  if (!gc || !kept || !end_objects_at_exit()) return false;
  const WithoutCollector here;
  if (!freezer.prepare() || !call(gc.get(), "unfreeze")) return false;
  track_frozen_again();
  Object tracked(PyObject_CallMethod(gc.get(), "get_objects", nullptr));
  if (!tracked) return false;
  freezer.keep(kept.get(), tracked.get());
  if (only_reachable && !freezer.limit_to_reachable(tracked.get())) return false;
  freezer.freeze_all(std::move(tracked));
  freezer.freeze_registered();
  freezer.count_hidden();
  if (!call(gc.get(), "freeze")) return false;
  freezer.give_back();
  return freezer.was_uninterrupted();
}

}  // namespace

// A child that allocates would first take free memory among the frozen, and copy its pages.  A
// process that freezes again and again needs that memory itself.
bool freeze_in_place(PyObject* keep, PyObject* children_of, bool only_reachable, Frozen& frozen) {
  {
    const OnlyWalk here;
    if (!here) return true;
    if (!freeze_objects(keep, children_of, only_reachable, frozen)) return false;
  }
  static bool is_first = true;
  if (!std::exchange(is_first, false)) return true;
  ::malloc_trim(0);
  cowshed_close_pools();
  return true;
}

bool measure_reachable(PyObject* children_of, ReachableBytes& bytes) {
  {
    const WithoutCollector here;
    Types types(children_of);
    Reachable reachable(types);
    if (!types.prepare() || !reachable.add_modules()) return false;
    bytes = {reachable.frozen_bytes(), reachable.other_bytes()};
  }
  ::malloc_trim(0);  // the walk's own
  return true;
}

#else

namespace {

bool refuse() {
  PyErr_SetString(PyExc_NotImplementedError, "this version of Python has no immortal objects");
  return false;
}

}  // namespace

bool freeze_in_place(PyObject*, PyObject*, bool, Frozen&) { return refuse(); }

bool measure_reachable(PyObject*, ReachableBytes&) { return refuse(); }

#endif

}  // namespace cowshed::python
