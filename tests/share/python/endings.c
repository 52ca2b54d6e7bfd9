// An extension whose objects act when they are freed, as Cython's __dealloc__ or a C++ destructor
// does.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 256 };

typedef struct {
  PyObject_HEAD char path[SIZE], text[SIZE];
  PyObject *held, *weak;
} Sink;

static void append(const char* path, const char* text) {
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (file >= 0 && write(file, text, strlen(text)) >= 0) close(file);
}

static int init(Sink* self, PyObject* arguments, PyObject* names) {
  const char* path;
  PyObject* held = NULL;
  (void)names;
  if (!PyArg_ParseTuple(arguments, "s|O", &path, &held)) return -1;
  strncpy(self->path, path, SIZE - 1);
  self->held = Py_XNewRef(held);
  return 0;
}

static PyObject* add(Sink* self, PyObject* text) {
  strncat(self->text, PyUnicode_AsUTF8(text), SIZE - 1 - strlen(self->text));
  Py_RETURN_NONE;
}

static int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  return PyBuffer_FillInfo(view, self, ((Sink*)self)->text, SIZE, 0, flags);
}

// Writes what it was given, to its path and to the file that it holds.
static void end(Sink* self) {
  append(self->path, self->text);
  if (self->held) {
    PyObject* done = PyObject_CallMethod(self->held, "write", "s", self->text);
    if (done) Py_DECREF(done);
    else PyErr_WriteUnraisable(NULL);
  }
}

static void free_plain(Sink* self) {
  if (self->weak) PyObject_ClearWeakRefs((PyObject*)self);
  end(self);
  Py_CLEAR(self->held);
  Py_TYPE(self)->tp_free((PyObject*)self);
}

static void free_tracked(Sink* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (self->weak) PyObject_ClearWeakRefs((PyObject*)self);
  end(self);
  Py_CLEAR(self->held);
  type->tp_free((PyObject*)self);
  Py_DECREF(type);
}

static int traverse(Sink* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->held);
  return 0;
}

static PyMethodDef methods[] = {{"write", (PyCFunction)add, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyBufferProcs buffers = {get_buffer, NULL};

// Static, and unknown to the garbage collector.
static PyTypeObject plain = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "endings.Plain",
                             .tp_basicsize = sizeof(Sink),
                             .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                             .tp_new = PyType_GenericNew,
                             .tp_init = (initproc)init,
                             .tp_dealloc = (destructor)free_plain,
                             .tp_weaklistoffset = offsetof(Sink, weak),
                             .tp_as_buffer = &buffers,
                             .tp_methods = methods};

// On the heap, tracked, and without tp_clear.
static PyType_Slot slots[] = {{Py_tp_new, PyType_GenericNew}, {Py_tp_init, init},
                              {Py_tp_dealloc, free_tracked},  {Py_tp_traverse, traverse},
                              {Py_tp_methods, methods},       {0, NULL}};
static PyType_Spec tracked = {"endings.Tracked", sizeof(Sink), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};

static void free_capsule(PyObject* capsule) {
  char* const path = PyCapsule_GetPointer(capsule, "path");
  append(path, "capsule");
  free(path);
}

static PyObject* make_capsule(PyObject* module, PyObject* path) {
  (void)module;
  return PyCapsule_New(strdup(PyUnicode_AsUTF8(path)), "path", free_capsule);
}

static PyMethodDef functions[] = {{"capsule", make_capsule, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "endings", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_endings(void) {
  PyObject* const module = PyType_Ready(&plain) == 0 ? PyModule_Create(&definition) : NULL;
  PyObject* const heap = module ? PyType_FromSpec(&tracked) : NULL;
  if (!heap || PyModule_AddObjectRef(module, "Plain", (PyObject*)&plain) < 0 ||
      PyModule_AddObject(module, "Tracked", heap) < 0) {
    return NULL;
  }
  return module;
}
