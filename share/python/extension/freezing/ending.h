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
// __del__, and frees objects of extensions.  Each is finalised once, in the order in which the
// garbage collector finds them. Returns what is left to finalise at the end of a process with
// several threads: one of them may be using it, and a file that a thread waits for cannot be
// closed.
std::vector<Object> end_objects(Ending ending);
void finalise(PyObject* object);

}  // namespace cowshed::python
