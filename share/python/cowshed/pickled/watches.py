# mypy: ignore-errors
"""Changes the modules of multiprocessing, and of what builds on it, so that what they pickle is recorded."""

import os
import sys

from . import recorder
from .descriptions import describe, made_by
from .interpreters import entry, recording
from .streams import Node, Unreadable, measure

class Tee:
    """A file that keeps what is written to it."""

    def __init__(self, file):
        self.target = file
        self.kept = []

    def write(self, data):
        self.kept.append(bytes(data))
        return self.target.write(data)


def watch_reduction(module):
    watch_pickler(module.ForkingPickler)


def watch_pickler(pickler):
    import pickle
    import pickletools  # noqa: F401: now, as a signal handler must not find it half imported

    stock_init = pickler.__init__
    stock_dump = pickler.dump
    stock_type = pickle.Pickler

    def init(self, file, *args, **kwargs):
        self._cowshed_file = Tee(file)
        stock_init(self, self._cowshed_file, *args, **kwargs)

    def dump(self, value):
        objects = []
        # A subclass's own persistent_id stays: then only the whole is reported.
        if type(self).persistent_id is stock_type.persistent_id:
            self.persistent_id = objects.append
        kept = self._cowshed_file.kept = []
        try:
            result = stock_dump(self, value)
        except Exception as error:
            note_failure(value, error)
            raise
        note(value, b"".join(kept), objects)
        return result

    pickler.__init__ = init
    pickler.dump = dump


BROKEN = (Unreadable, LookupError, TypeError, AttributeError, ValueError, RecursionError)


def note(value, data, objects):
    label = None
    kind, channel, method = "unknown", "", ""
    try:
        kind, channel, method, label, names, attributes = describe(value)
        tree = measure(data, objects, label, names, attributes)
    except BROKEN:  # never the script's trouble
        tree = Node(len(data), label=f"{label or type(value).__qualname__} (not looked into)")
    recorder.active.write(kind, channel, method, len(data), tree)


def note_failure(value, error):
    try:
        kind, channel, method, label, _, _ = describe(value)
        what = label or type(value).__qualname__
        what = f"{what}: {type(error).__qualname__}: {str(error)[:500]}"
    except BROKEN:
        return
    recorder.active.write(kind, channel, method, 0, None, error=what)


def instead_of(owner, name):
    """Puts a function in place of owner.name, which is its __wrapped__ then.  It has the same name
    and documentation."""
    import functools  # which multiprocessing has imported

    def put(function):
        functools.update_wrapper(function, getattr(owner, name))
        setattr(owner, name, staticmethod(function) if name == "_feed" else function)
        return function

    return put


def note_while(owner, name, attribute, value_of):
    """While owner.name runs, `attribute` of the thread's own is value_of(its arguments)."""

    @instead_of(owner, name)
    def call(*args, **kwargs):
        before = getattr(recorder.active.local, attribute, None)
        setattr(recorder.active.local, attribute, value_of(*args))
        try:
            return call.__wrapped__(*args, **kwargs)
        finally:
            setattr(recorder.active.local, attribute, before)


def watch_connection(module):
    note_while(module._ConnectionBase, "send", "connection", lambda connection, *_: connection)

    @instead_of(module, "Pipe")
    def Pipe(duplex=True):
        ends = Pipe.__wrapped__(duplex)
        where, owner = made_by()
        recorder.active.name_channel(ends, "Pipe send", f"{owner or 'Pipe'} at {where}")
        return ends


def name_queue(queue, kind, name):
    recorder.active.name_channel((queue._reader, queue._writer), kind, name)


def note_calls(owner, name, event):
    """Records each call of a queue's put or get that has done it."""

    @instead_of(owner, name)
    def call(self, *args, **kwargs):
        def note_event():
            kind, channel = recorder.active.channel_of(self._reader) or ("", "")
            if kind in recorder.QUEUES:
                recorder.active.write(kind, channel, "", 0, None, event=event)

        try:
            value = call.__wrapped__(self, *args, **kwargs)
        except (AttributeError, ImportError, TypeError):  # taken, but it cannot be unpickled here
            if event == "taken":
                note_event()
            raise
        note_event()
        return value


def watch_sending(module):
    note_while(module.Queue, "_feed", "connection",
               lambda buffer, notempty, send_bytes, *_: send_bytes.__self__)
    note_while(module.SimpleQueue, "put", "connection", lambda queue, *_: queue._writer)


def watch_queues(module):
    for owner in (module.Queue, module.JoinableQueue, module.SimpleQueue):
        if "put" in vars(owner):
            note_calls(owner, "put", "put")
        if "get" in vars(owner):
            note_calls(owner, "get", "taken")
    watch_sending(module)

    @instead_of(module.Queue, "__init__")
    def init(self, *args, **kwargs):
        init.__wrapped__(self, *args, **kwargs)
        where, owner = made_by()
        if owner == "Executor":
            name_queue(self, "Executor task", f"Executor at {where}")
        else:
            kind = "JoinableQueue put" if isinstance(self, module.JoinableQueue) else "Queue put"
            name_queue(self, kind, f"{type(self).__qualname__} at {where}")

    @instead_of(module.SimpleQueue, "__init__")
    def init_simple(self, *args, **kwargs):
        init_simple.__wrapped__(self, *args, **kwargs)
        where, owner = made_by()
        # A Pool's own tells it that a worker has ended; the last notice nobody takes.
        kind = "Executor result" if owner == "Executor" else f"{owner} notice" if owner else "SimpleQueue put"
        name_queue(self, kind, f"{owner or type(self).__qualname__} at {where}")


def watch_pool(module):
    name_queues_of(module.Pool)


def name_queues_of(pool):
    @instead_of(pool, "_setup_queues")
    def setup_queues(self):
        setup_queues.__wrapped__(self)
        name = f"Pool at {made_by()[0]}"
        name_queue(self._inqueue, "Pool task", name)
        name_queue(self._outqueue, "Pool result", name)


def watch_managers(module):
    note_while(module.BaseProxy, "_callmethod", "call",
               lambda proxy, method="", *_: (type(proxy).__qualname__, method))
    note_while(module, "dispatch", "call", lambda connection, id, method="", *_: ("Manager", method))
    server = module.Server
    handler = "_handle_request" if hasattr(server, "_handle_request") else "handle_request"  # 3.9
    for name in ("serve_client", handler):
        note_while(server, name, "serving", lambda server, connection: connection)


# What a fresh interpreter of multiprocessing, or of cowshed.get_context(), imports first.
FIRST_MODULES = ("multiprocessing.spawn", "multiprocessing.forkserver", "cowshed.preloaded")


def watch_util(module):
    @instead_of(module, "spawnv_passfds")
    def spawnv_passfds(path, args, passfds):
        args = list(args)
        if len(args) > 2 and "-c" in args:
            code = args.index("-c") + 1
            if any(f"from {module} import" in args[code] for module in FIRST_MODULES):
                args[code] = f"{entry(recorder.active.folder, recorder.active.method)}\n{args[code]}"
        return spawnv_passfds.__wrapped__(path, args, passfds)


def watch_popen(module):
    @instead_of(module.Popen, "__init__")
    def init(self, process_obj):
        init.__wrapped__(self, process_obj)
        recorder.active.write("Process start", self.method, self.method, 0, None, event="started")


def watch_loky_reduction(module):
    watch_pickler(module.get_loky_pickler())

    @instead_of(module, "set_loky_pickler")
    def set_loky_pickler(*args):
        before = module.get_loky_pickler()
        set_loky_pickler.__wrapped__(*args)
        if module.get_loky_pickler() is not before:
            watch_pickler(module.get_loky_pickler())


def watch_fork_exec(module):
    @instead_of(module, "fork_exec")
    def fork_exec(cmd, keep_fds, env=None):
        return fork_exec.__wrapped__(cmd, keep_fds, recording({**os.environ, **(env or {})}, recorder.active.folder))


def watch_joblib_pool(module):
    watch_pickler(module.CustomizablePickler)
    name_queues_of(module.PicklingPool)

    @instead_of(module.CustomizablePicklingQueue, "_make_methods")
    def make_methods(self):
        make_methods.__wrapped__(self)
        for name in ("_send", "put"):
            note_while(self, name, "connection", lambda *_: self._writer)


def watch_memmapping(module):
    @instead_of(module.ArrayMemmapForwardReducer, "__call__")
    def call(self, array):
        reduced = call.__wrapped__(self, array)
        if reduced[0] is not module.loads:
            kind, channel = recorder.active.channel_of(getattr(recorder.active.local, "connection", None)) or ("", "")
            recorder.active.write(kind, channel, "", array.nbytes, None, event="mapped")
        return reduced


def watch_context(module):
    if recorder.active.method:
        # The default, as if the platform's: the script may still set another.
        module._default_context._default_context = module._concrete_contexts[recorder.active.method]


class Watcher:
    """Lets the watch_ functions at the modules of multiprocessing when these are imported."""

    def __init__(self, watches):
        self.watches = watches

    def find_spec(self, name, path=None, target=None):
        watch = self.watches.pop(name, None)
        if watch is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        stock = spec.loader.exec_module

        def exec_module(module):
            stock(module)
            del spec.loader.exec_module
            try:
                watch(module)
            except AttributeError as error:
                sys.stderr.write(f"pickled: cannot look into {name} of this Python: {error}\n")

        spec.loader.exec_module = exec_module
        if not self.watches:
            sys.meta_path.remove(self)
        return spec


def instrument(folder, method):
    """Makes this interpreter record all that its multiprocessing pickles in `folder`."""
    recorder.start(folder, method)
    watches = {"multiprocessing.reduction": watch_reduction,
               "multiprocessing.connection": watch_connection,
               "multiprocessing.queues": watch_queues,
               "multiprocessing.pool": watch_pool,
               "multiprocessing.managers": watch_managers,
               "multiprocessing.util": watch_util,
               "multiprocessing.popen_fork": watch_popen,
               "multiprocessing.context": watch_context,
               "joblib.pool": watch_joblib_pool,
               "joblib._memmapping_reducer": watch_memmapping}
    for package in ("loky", "joblib.externals.loky"):
        watches |= {f"{package}.backend.reduction": watch_loky_reduction,
                    f"{package}.backend.queues": watch_sending,
                    f"{package}.backend.popen_loky_posix": watch_popen,
                    f"{package}.backend.fork_exec": watch_fork_exec}
    for name in list(watches):
        if name in sys.modules:
            watches.pop(name)(sys.modules[name])
    if watches:
        sys.meta_path.insert(0, Watcher(watches))
