#pragma once

#include <Python.h>
#include <vector>

#include <cowshed/share/python/extension/freezing/object.h>

// The end of a process with frozen objects.  What a frozen object refers to does not die, so nobody
// else would flush or finalise it.
namespace cowshed::python {

enum class Ending : unsigned char {
  of_interpreter,  // after all exit functions, when no other thread can run any more
  of_process       // by os._exit(), so that nothing dies later
};

// Has end_objects() called when the interpreter ends, before it clears the modules.  A second call
// does nothing.  False: a Python error is set.
bool end_objects_at_exit();

// Finalises what would die at a normal exit if nothing were frozen: files, generators, objects with
// __del__.  Each is finalised once, in the order in which the garbage collector finds them. Returns
// what is left to finalise at the end of a process with several threads: one of them may be using
// it, and a file that a thread waits for cannot be closed.
std::vector<Object> end_objects(Ending ending);
void finalise(PyObject* object);

// Whether objects of this type must be closed at the end, although they have no finaliser.
bool must_be_closed(PyTypeObject* type);
// Whether closing takes effect only when what the object holds is gone: prepared statements keep a
// database open, and locked.
bool holds_itself_open(PyTypeObject* type);

}  // namespace cowshed::python
