#pragma once

#include <Python.h>

// What the death of an object does, beside giving its memory back.  Such an object is not frozen,
// so that it dies as it does without a freeze.
namespace cowshed::python {

// The deallocator of types that have none of their own.  It calls that of their base.
destructor deallocator_of_classes();
// Whether the deallocator of this type may do more, such as write to a file.  True for each type of
// an extension that is not known: nobody can tell.  Python's own types have finalisers for that,
// and only some have none; see is_known_outside().
bool may_act_when_freed(PyTypeObject* type);
// The same for one object: also a capsule with a destructor.
bool may_act_when_freed(PyObject* object);

// Whether Python's own type, without a finaliser, holds what others see, or wait for.
bool is_known_outside(PyTypeObject* type);

// Whether objects of this type must be closed at the end, although they have no finaliser.
bool must_be_closed(PyTypeObject* type);
// Whether closing takes effect only when what the object holds is gone: prepared statements keep a
// database open, and locked.
bool holds_itself_open(PyTypeObject* type);

// Takes `child` out of a holder that nobody uses any more.  False: the holder lets go of nothing
// before it dies itself, such as a bound method.
bool let_go(PyObject* holder, PyObject* child);

}  // namespace cowshed::python
