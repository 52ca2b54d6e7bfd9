"""Programs that freeze do and end as without: same output, messages, files and status.

as_plain_test.py [DRAWS [ROUNDS [SEED]]] [TEST] also draws programs of what a program leaves to its
end.  By hand, as_plain_test.py --program SEED FOLDER [freeze] runs one of them.
"""

import atexit
import contextlib
import importlib
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import weakref

ENDS = """
    import atexit, logging, lzma, tempfile, weakref
    class Holder: pass
    class Final:
        def __del__(self): print("del Final")
    h = Holder(); h.file = open("attribute", "w"); h.file.write("before\\n")
    files = [open("list", "w"), h.file, lzma.open("packed", "wt")]
    h.temporary, h.folder = tempfile.NamedTemporaryFile(dir="."), tempfile.TemporaryDirectory(dir=".")
    open(h.folder.name + "/file", "w").close(); logging.basicConfig(filename="log"); logging.warning("before")
    h.final = Final(); weakref.finalize(h, print, "del finalize"); atexit.register(print, "del atexit")
    def wait():
        try: yield
        finally: print("del wait")
    waiting = wait(); next(waiting)
    FREEZE
    for file in files: file.write("after\\n")
    logging.warning("after")
    (sys.exit if FROZEN is bool else cowshed.end_process)(3)
    """

# Where they say FREEZE, the frozen run calls freeze().
PROGRAMS = {
    "order of finalisers": """
        class A:
            def __init__(self, name): self.name = name
            def __del__(self): os.write(1, f"{self.name}\\n".encode())
        a = A("a"); b = A("b")
        FREEZE
        c = A("c"); c.b = b; d = A("d")
        """,
    "dropping a holder, an object and a generator": """
        import socket
        class Holder: pass
        class A:
            def __del__(self): os.write(1, b"died\\n")
        def wait():
            try: yield
            finally: os.write(1, b"finally\\n")
        h = Holder(); a, b = socket.socketpair(); h.s = a; a = A(); waiting = wait(); next(waiting)
        h.f = open("o.txt", "w"); h.f.write("data\\n")
        FREEZE
        del h, a, waiting; gc.collect(); b.settimeout(1)
        print(open("o.txt").read(), b.recv(9))
        """,
    "dropping what weakref.finalize() awaits": """
        import multiprocessing.util, tempfile, weakref
        class Holder: pass
        a, b, h = Holder(), Holder(), Holder(); weakref.finalize(a, print, "finalised")
        multiprocessing.util.Finalize(b, print, ["of multiprocessing"])
        h.folder = tempfile.TemporaryDirectory(dir="."); folder = tempfile.TemporaryDirectory(dir=".")
        FREEZE
        del a, b, h, folder; print(os.listdir())
        """,
    "callbacks of weak references": """
        import weakref
        class A: pass
        def died(_): os.write(1, b"died\\n")
        a, b = A(), A(); before = weakref.ref(a, died)
        FREEZE
        c = A(); after = [weakref.ref(b, died), weakref.ref(c, died)]
        """,
    "values added after gc.unfreeze()": """
        import numpy as np
        d, l, n = {}, [], np.empty(1, object)
        class A: pass
        a = A(); n[0] = []
        FREEZE
        gc.unfreeze(); gc.collect()
        d["k"] = "".join(["x"] * 50); l.append(["y"]); a.z = ["w"]; n[0].append(["v"])
        FREEZE
        print(FROZEN(d["k"]), FROZEN(l[0]), FROZEN(a.z), FROZEN(n[0][0]))
        """,
    "finalisers after gc.unfreeze()": """
        class A:
            def __del__(self): os.write(1, b"died\\n")
        a = A(); b = [A()]
        FREEZE
        gc.unfreeze()
        """,
    "resize of an array": """
        import numpy as np
        arrays = [np.zeros(n) for n in (100, 1_000_000)]; views = [a[:] for a in arrays]
        FREEZE
        for a in arrays:
            try: a.resize(4_000_000); print("resized")
            except ValueError: print("refused")
        views[1][:] = 1; print(views[1].sum(), arrays[0].sum())
        """,
    "files in arrays": """
        import numpy as np
        a, b, c = np.empty(1, object), {"array": np.empty(1, object)}, [[np.empty(1, object)]]
        a[0], b["array"][0], c[0][0][0] = open("a", "w"), [open("b", "w")], open("c", "w")
        for file in (a[0], b["array"][0][0], c[0][0][0]): file.write("before\\n")
        FREEZE
        for file in (a[0], b["array"][0][0], c[0][0][0]): file.write("after\\n")
        del file
        """,
    "file in an array that is dropped": """
        import numpy as np
        a = np.empty(1, object); a[0] = open("a", "w"); a[0].write("before\\n")
        FREEZE
        del a; print(open("a").read())
        """,
    "dict that the collector does not track, in a worker": """
        import endings, numpy
        kept = {"array": numpy.frombuffer(endings.Plain("out"), numpy.uint8)}
        FREEZE
        if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        kept["array"][:5] = numpy.frombuffer(b"after", numpy.uint8)
        (sys.exit if FROZEN is bool else cowshed.end_process)(7)
        """,
    "dropping what holds objects of extensions": """
        import endings, weakref
        class Service: pass
        def died(_): os.write(1, b"died\\n")
        s = Service(); s.sinks = {"a": [endings.Plain("a")], "b": endings.Tracked("b", open("c", "w"))}
        many = [s.sinks["b"].write] * 9; watch = weakref.ref(s.sinks["a"][0], died); capsule = endings.capsule("d")
        for sink in (s.sinks["a"][0], s.sinks["b"]): sink.write("before,")
        FREEZE
        for sink in (s.sinks["a"][0], s.sinks["b"]): sink.write("after")
        del s, sink, many, capsule; print(sorted(os.listdir()), open("c").read(), open("b").read())
        """,
    "a finaliser that uses an object of an extension": """
        import endings
        class A: pass
        A.sink = sink = endings.Plain("a")
        class B:
            def __del__(self, A=A): A.sink.write("end")
        def use(kept=[B()]): return [A.sink for _ in range(99)]
        use()
        FREEZE
        """,
    "a file that only an object of an extension holds": """
        import endings
        kept = [[[[[[[[[endings.Tracked("a", open("b", "w"))]]]]]]]]]
        FREEZE
        kept[0][0][0][0][0][0][0][0][0].write("after")
        """,
    "keys that are objects of an extension": """
        import collections, endings
        dicts = {}, collections.OrderedDict(), collections.defaultdict(int)
        FREEZE
        for name, kept in zip("abc", dicts): kept[endings.Plain(name)] = kept["other"] = 1; [*kept][0].write("after")
        """,
    "bytearrays with views that are dropped": """
        import pickle
        datas = bytearray(b"abc"), bytearray(b"abc"); view = memoryview(datas[0]); buffer = pickle.PickleBuffer(datas[1])
        FREEZE
        for data in datas:
            try: data.append(1)
            except BufferError: print("refused")
        del view, buffer
        for data in datas: data.append(1); print(data)
        """,
    "database that is dropped": """
        import sqlite3
        class Own(sqlite3.Connection): pass
        opened = sqlite3.connect("db"), sqlite3.connect("own", factory=Own)
        for c in opened: c.execute("create table t (a)"); c.commit(); c.execute("insert into t values (1)")
        FREEZE
        del c, opened; gc.collect()
        for name in "db", "own": sqlite3.connect(name, timeout=0).execute("insert into t values (2)")
        print(sorted(os.listdir()))
        """,
    "executor of a class of its own that is dropped": """
        import concurrent.futures
        class Mixed: pass
        class Own(Mixed, concurrent.futures.ThreadPoolExecutor): pass
        own = Own(1)
        FREEZE
        own.submit(int).result(); thread, = own._threads; del own; thread.join(9); print(thread.is_alive())
        """,
    "file that an exit function uses": """
        import atexit, lzma, logging
        packed = lzma.open("packed", "wt"); logging.basicConfig(filename="log"); logger = logging.getLogger()
        def end(): packed.write("end"); logger.warning("end"); packed.close()
        atexit.register(end)
        FREEZE
        """,
    "daemon thread": """
        import threading, time
        class A:
            def __del__(self): os.write(1, b"died\\n")
        def work():
            mine = A(); ready.set(); time.sleep(1000)
        ready = threading.Event()
        threading.Thread(target=work, daemon=True).start(); ready.wait()
        FREEZE
        """,
    "freeze in a finaliser of its own collection": """
        class A:
            def __del__(self): FREEZE
        gc.disable(); a = A(); a.me = a; del a
        FREEZE
        print("ok")
        """,
    "freeze in a finaliser at the end": """
        class A:
            def __del__(self): FREEZE; os.write(1, b"died\\n")
        a = A()
        """,
    "freeze in a signal handler within freeze": """
        import signal
        def handle(*_): FREEZE
        signal.signal(signal.SIGUSR1, handle)
        gc.callbacks.append(lambda phase, _: phase == "start" and signal.raise_signal(signal.SIGUSR1))
        FREEZE
        gc.callbacks.clear(); print("ok")
        """,
    "freeze in a child of a fork within freeze": """
        import threading, time, warnings
        warnings.simplefilter("ignore")
        inside = threading.Event()
        def wait(phase, _):
            if phase == "start": inside.set(); time.sleep(0.2)
        gc.callbacks.append(wait)
        def work(): gc.collect(); FREEZE
        t = threading.Thread(target=work); t.start(); inside.wait()
        pid = os.fork()
        if pid == 0:
            gc.callbacks.clear(); FREEZE; os._exit(0)
        print(os.waitpid(pid, 0)[1]); t.join(); gc.callbacks.clear()
        """,
    "cycle that keep leaves": """
        class A:
            def __del__(self): print("died", flush=True)
        cache = {"a": A()}; cache["me"] = cache
        KEEP(cache)
        del cache; gc.collect(); print("end")
        """,
    "workers that end by a SystemExit": """
        FREEZE
        for code in "fatal", ("a", 1), 5, -1, True, None, "":
            pid = os.fork()
            if pid:
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                continue
            try: sys.exit(code)
            finally: FROZEN is bool or cowshed.end_process()
        """,
    "files and finalisers that end_process() ends": ENDS,
    "files and finalisers that end_process() ends, not frozen": ENDS.replace("FREEZE", ""),
    "files that only sys, builtins, an error or a stream hold, which end_process() ends": """
        import builtins
        class Tee:
            def __init__(self, *files): self.files = files
            def write(self, text): [file.write(text) for file in self.files]
            def flush(self): pass
        class Final:
            def __del__(self): print("del Final")
        def fail(name):
            file = open(name, "w"); file.write("data"); 1 / 0
        builtins.kept, sys.kept, sys.final = open("builtins", "w"), [open("sys", "w")], Final()
        FREEZE
        for file in builtins.kept, *sys.kept: file.write("after")
        try: fail("kept")
        except ZeroDivisionError as error: sys.error = error
        try: fail("last")
        except ZeroDivisionError: sys.last_type, sys.last_value, sys.last_traceback = sys.exc_info()
        sys.stdout = Tee(sys.stdout, open("tee", "w")); print("text")
        (sys.exit if FROZEN is bool else cowshed.end_process)(3)
        """,
    "files that the collector has been told to leave alone": """
        files = []
        FREEZE
        for i in range(30): files.append(open(str(i), "w")); files[i].write("text")
        gc.freeze()
        """,
    "os.fork() and an end": """
        file = open("file", "w")
        class A:
            def __del__(self): print("died", os.getpid() == parent, flush=True)
        parent = os.getpid(); a = A()
        FREEZE
        pid = os.fork(); file.write("parent" if pid else "child")
        if pid: os.waitpid(pid, 0)
        """,
}

KINDS = {}


def kind(make):
    """A kind of work: a generator that makes something, yields it, and uses it after the freeze."""
    KINDS[make.__name__] = make
    return make


def forking():
    import multiprocessing
    return multiprocessing.get_context("fork")


def append(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def file_kind(name, open_file, before, after):
    """A file that is written to before the freeze and after it."""
    def make(path):
        file = open_file(path)
        file.write(before)
        yield file
        file.write(after)
    KINDS[name] = make


file_kind("text_file", lambda path: open(path, "w"), "before\n", "after\n")
file_kind("text_file_of_lines", lambda path: open(path, "w", buffering=1), "", "after\nthe rest")
file_kind("binary_file", lambda path: open(path, "wb"), b"", b"x" * 100_001)
file_kind("wrapped_file", lambda path: io.TextIOWrapper(io.BufferedWriter(io.FileIO(path, "w")), "utf-16"),
          "é" * 10, "ü" * 10)
file_kind("packed_by_lzma", lambda path: importlib.import_module("lzma").open(path, "wt"), "", "after" * 1000)
file_kind("temporary_file", lambda path: tempfile.NamedTemporaryFile("w", prefix="temporary", dir=os.path.dirname(path)),
          "", "after")


@kind
def read_and_write(path):
    file = open(path, "w+b")
    file.write(b"some text")
    file.seek(0)
    file.read(4)
    yield file
    file.seek(2)
    file.write(b"X")


@kind
def packed(path):
    import gzip
    file = gzip.GzipFile(path, "wb", mtime=0)
    file.write(b"before")
    atexit.register(file.close)  # else plain Python loses data
    yield file
    file.write(b"after")


@kind
def archive(path):
    import zipfile
    file = zipfile.ZipFile(path, "w")
    file.writestr(zipfile.ZipInfo("before"), "text")
    yield file
    file.writestr(zipfile.ZipInfo("after"), "text")


@kind
def rows(path):
    import csv
    writer = csv.writer(open(path, "w"))
    yield writer
    writer.writerow(range(9))


@kind
def database_of_strings(path):
    import dbm.dumb
    import shelve
    shelf = shelve.Shelf(dbm.dumb.open(path, "n"), writeback=True)
    shelf["before"] = []
    yield shelf
    shelf["before"].append("after")


@kind
def database(path):
    import sqlite3
    connection = sqlite3.connect(path)
    connection.execute("create table t (a)")
    connection.commit()
    yield connection
    connection.execute("insert into t values (1)")
    connection.commit()
    connection.execute("insert into t values (2)")


@kind
def mapping(path):
    import mmap
    with open(path, "w+b") as file:
        file.truncate(9000)
        mapped = mmap.mmap(file.fileno(), 9000)
    yield mapped
    mapped[8000:8005] = b"after"


@kind
def temporary_folder(path):
    folder = tempfile.TemporaryDirectory(prefix="temporary", dir=os.path.dirname(path))
    yield folder
    open(folder.name + "/file", "w").close()


def log_kind(name, make_handler):
    def make(path):
        import logging.handlers
        logger = logging.getLogger(os.path.basename(path))
        logger.addHandler(make_handler(logging, path))
        logger.warning("before")
        yield logger
        logger.warning("after")
    KINDS[name] = make


log_kind("log", lambda logging, path: logging.FileHandler(path))
log_kind("log_in_memory", lambda logging, path: logging.handlers.MemoryHandler(100, target=logging.FileHandler(path)))


@kind
def log_of_a_thread(path):
    import logging.handlers
    import queue
    records = queue.SimpleQueue()
    logger = logging.getLogger(os.path.basename(path))
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, logging.FileHandler(path))
    listener.start()
    atexit.register(listener.stop)
    yield logger
    for number in range(100):
        logger.warning("after %d", number)


@kind
def exit_function(path):
    file = open(path, "w")
    atexit.register(lambda: file.write("at exit"))
    yield file
    atexit.register(file.write, "later")


class Final:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("del", self.name)


@kind
def finaliser(path):
    yield Final(os.path.basename(path))


class Saver:
    def __init__(self, path):
        self.path, self.lines = path, []

    def __del__(self):
        append(self.path, json.dumps(self.lines))


@kind
def finaliser_that_needs_its_module(path):
    saver = Saver(path)
    saver.lines.append("before")
    yield saver
    saver.lines.append({"after": path[-5:]})


@kind
def finaliser_in_a_cycle(path):
    final = Final(os.path.basename(path))
    final.me = [final]
    yield final


@kind
def finaliser_that_fails(path):
    class Fails:
        def __del__(self):
            raise ValueError(os.path.basename(path))
    yield Fails()


@kind
def finaliser_of_a_weak_reference(path):
    class Plain:
        pass
    plain = Plain()
    weakref.finalize(plain, append, path, "finalised")
    yield plain


@kind
def generator(path):
    def wait():
        try:
            yield
        finally:
            append(path, "finally")
    waiting = wait()
    next(waiting)
    yield waiting


@kind
def context(path):
    stack = contextlib.ExitStack()
    stack.callback(append, path, "left")
    stack.enter_context(open(path + "2", "w")).write("text")
    yield stack


@kind
def thread(path):
    go = threading.Event()
    file = open(path, "w")

    def work():
        go.wait()
        file.write("thread")
    threading.Thread(target=work).start()
    yield file
    go.set()


@kind
def thread_pool(path):
    from concurrent import futures
    pool = futures.ThreadPoolExecutor(2)
    pool.submit(append, path, "1").result()
    yield pool
    for _ in range(3):
        pool.submit(lambda: (time.sleep(0.01), append(path, "2")))


@kind
def queue_to_a_child(path):
    queue = forking().Queue()

    def consume():
        size = 0
        while (part := queue.get(timeout=60)) is not None:
            size += len(part)
        append(path, str(size))
    consumer = forking().Process(target=consume)
    consumer.start()
    queue.put(b"")
    yield queue
    for _ in range(3):
        queue.put(bytes(1 << 20))
    queue.put(None)


@kind
def process(path):
    worker = forking().Process(target=lambda: append(path, "worked"))
    yield worker
    worker.start()


@kind
def process_pool(path):
    pool = forking().Pool(2)
    pool.map(len, ["a", "b"])
    yield pool
    print(pool.map(len, ["after"]))


@kind
def process_pool_of_futures(path):
    from concurrent import futures
    pool = futures.ProcessPoolExecutor(1, mp_context=forking())
    pool.submit(append, path, "before").result()
    yield pool
    pool.submit(append, path, "after")


@kind
def manager(path):
    shared = forking().Manager()
    held = shared.dict()
    yield shared, held
    held["a"] = 1


@kind
def command(path):
    with open(path, "w") as file:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    process.stdin.write(b"before\n")
    yield process
    process.stdin.write(b"after\n")


@kind
def socket_pair(path):
    import socket
    ours, theirs = socket.socketpair()
    with theirs, open(path, "w") as received:
        subprocess.Popen(["cat"], stdin=theirs, stdout=received)
    file = ours.makefile("w")
    ours.close()
    file.write("before\n")
    yield file
    file.write("after\n")


@kind
def shared_memory(path):
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=4096)
    yield memory
    memory.buf[0] = 1
    memory.unlink()


@kind
def local_of_a_thread(path):
    local = threading.local()
    local.file = open(path, "w")
    yield local
    local.file.write("after")


@kind
def context_variable(path):
    import contextvars
    variable = contextvars.ContextVar("variable")
    variable.set(open(path, "w"))
    yield variable
    variable.get().write("after")


@kind
def event_loop(path):
    import asyncio
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    yield loop
    loop.run_until_complete(loop.run_in_executor(None, append, path, "run"))


def extension_kind(name, make):
    file_kind(name, lambda path: make(importlib.import_module("endings"), path), "", "after")


extension_kind("object_of_an_extension", lambda endings, path: endings.Plain(path))
extension_kind("tracked_object_of_an_extension", lambda endings, path: endings.Tracked(path, endings.Plain(path + "2")))


@kind
def subclass_of_an_extension(path):
    import endings

    class Sink(endings.Tracked):
        pass
    sink = Sink(path, endings.Plain(path + "2"))
    sink.me = [sink]
    yield sink
    sink.write("after")


@kind
def method_of_an_extension(path):
    import endings
    write = endings.Plain(path).write
    yield [write]
    write("after")


@kind
def capsule(path):
    import endings
    yield endings.capsule(path)


@kind
def view_of_an_extension(path):
    import endings
    view = memoryview(endings.Plain(path))
    yield view
    view[:5] = b"after"


@kind
def array_of_an_extension(path):
    import endings
    import numpy
    array = numpy.frombuffer(endings.Plain(path), numpy.uint8)
    yield array
    array[:5] = numpy.frombuffer(b"after", numpy.uint8)


@kind
def callback_of_an_extension(path):
    import endings
    sink = endings.Plain(path)
    sink.write("before")
    yield sink, weakref.ref(sink, lambda _: append(path + "2", "died"))


class Holder:
    pass


def holder(thing):
    made = Holder()
    made.thing = thing
    return made


def cycle(thing):
    made = [thing]
    made.append(made)
    return made


# Where a program keeps something: first where it dies when the program drops it, frozen or not.
HOLDS = (lambda thing: thing, holder, lambda thing: (thing,), lambda thing: holder({"key": [holder(thing)]}),
         lambda thing: {"key": (thing, 1)}, lambda thing: lambda: thing, cycle)


# What a worker cannot go on with: threads, processes, and what other programs wait for.
NOT_IN_WORKERS = {"archive", "command", "database", "event_loop", "log_of_a_thread", "manager", "process", "process_pool",
                  "process_pool_of_futures", "queue_to_a_child", "shared_memory", "socket_pair", "temporary_folder",
                  "temporary_file", "thread", "thread_pool"}


def program(seed, folder, freezes):
    draw = random.Random(seed)
    running = []
    is_worker = draw.random() < 0.3
    kinds = sorted(KINDS.keys() - NOT_IN_WORKERS if is_worker else KINDS)
    for number in range(draw.randint(1, 6)):
        name = draw.choice(kinds)
        work = KINDS[name](f"{folder}/{number}_{name}")
        running.append((number, draw.random() < 0.7, work))
    end = draw.choice(("falls off", "exits", "fails", "drops", "collects"))
    holds = HOLDS[:-2] if end in ("drops", "collects") else HOLDS
    kept = vars(sys.modules["__main__"])

    def begin(number, work):
        kept[f"held_{number}"] = draw.choice(holds)(next(work))
    for number, is_before, work in running:
        if is_before:
            begin(number, work)
    if freezes:
        import cowshed
        cowshed.freeze()
    if is_worker:
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    for number, is_before, work in running:
        if not is_before:
            begin(number, work)
    for number, _, work in running:
        for _ in work:
            pass
    print("at the end", flush=draw.random() < 0.5)
    if end == "exits" and is_worker and freezes:
        cowshed.end_process(7)
    if end == "exits":
        sys.exit(7)
    if end == "fails":
        raise RuntimeError("as drawn")
    if end in ("drops", "collects"):
        for name in [name for name in kept if name.startswith("held_")][::2]:
            del kept[name]
        if end == "collects":
            import gc
            gc.collect()


class AsPlainTest(unittest.TestCase):
    maxDiff = 5000

    @classmethod
    def setUpClass(cls):
        import sysconfig
        built = tempfile.TemporaryDirectory()
        cls.addClassCleanup(built.cleanup)
        subprocess.run(["gcc", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "-o", f"{built.name}/endings.so",
                        os.path.join(os.path.dirname(os.path.abspath(__file__)), "endings.c")], check=True)
        os.environ["PYTHONPATH"] += os.pathsep + built.name

    def ended(self, *arguments):
        """What a run has said and left behind in its folder, which replaces an argument None."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-W", "ignore", *(each or folder for each in arguments)],
                                  capture_output=True, text=True, timeout=120, cwd=folder,
                                  env={**os.environ, "PYTHONHASHSEED": "0"})
            files = {}
            for root, _, names in os.walk(folder):
                for name in names:
                    with open(os.path.join(root, name), "rb") as file:
                        files[re.sub("temporary.*", "temporary", name)] = file.read()
            # Python promises no order of finalisers that run together.
            output = re.sub(r"(?:del .*\n)+", lambda run: "".join(sorted(run[0].splitlines(True))), done.stdout)
            # Nor is there a line of source in a traceback of the end, when modules are gone.
            messages = re.sub(r"0x[0-9a-f]+|[0-9]{4}-.*|    raise .*\n", "", done.stderr).replace(folder, "")
            return {"status": done.returncode, "output": output.replace(folder, ""), "files": files,
                    "messages": sorted(re.split(r"(?m)^(?=Exception ignored )", messages))}

    def test_programs(self):
        for name, program in PROGRAMS.items():
            def text(freeze, frozen, keep):
                script = "import gc, os, sys\n" + textwrap.dedent(program)
                return script.replace("FREEZE", freeze).replace("FROZEN", frozen).replace("KEEP", keep)

            with self.subTest(name):
                plain = self.ended("-c", text("0", "bool", "bool"))
                for options in ("", "settle=True"):
                    frozen = "import cowshed\n" + text(f"cowshed.freeze({options})", "cowshed.is_frozen",
                                                       "(lambda kept: cowshed.freeze(keep=[kept]))")
                    self.assertEqual(self.ended("-c", frozen), plain, options)

    def test_drawn_programs(self):
        print("seed", SEED, flush=True)
        for seed in range(SEED, SEED + DRAWS):
            with self.subTest(seed=seed):
                program = (os.path.abspath(__file__), "--program", str(seed), None)
                self.assertEqual(self.ended(*program, "freeze"), self.ended(*program))

    def test_storm(self):
        done = subprocess.run([sys.executable, "-W", "ignore", __file__, "--storm", str(STORM)], capture_output=True,
                              text=True, timeout=300 + STORM)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "done\n", ""))


def storm(rounds):
    """Freezes, forks, and freezes in the child, under signals and finalisers that freeze, too."""
    import signal

    import cowshed

    class Cycle:
        count = 0

        def __init__(self):
            self.me = self

        def __del__(self):
            Cycle.count += 1
            if Cycle.count % 500 == 0:
                cowshed.freeze()

    def work():
        text, items, kept = "", {}, []
        while not over:
            kept.append(Cycle())
            kept[0].kids = kept[-20:]
            items[text[-200:]] = [len(text), {"a": kept[-1]}]
            if len(kept) > 200:
                kept = kept[-100:]
                items.clear()
            text += "x"
            tuple(each for each in range(5))  # C code has the only reference while it is being made
            if len(text) % 8 == 0:
                time.sleep(0.0005)

    over = False
    sys.setswitchinterval(1e-4)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    signal.signal(signal.SIGALRM, lambda *_: cowshed.freeze())
    for _ in range(rounds):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        cowshed.freeze()
        pid = os.fork()
        if pid == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            cowshed.freeze()
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            os._exit(1)
    over = True
    for each in threads:
        each.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("done")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--program"]:
        import json
        program(int(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["freeze"])
    elif sys.argv[1:2] == ["--storm"]:
        storm(int(sys.argv[2]))
    else:
        numbers = [int(each) for each in sys.argv[1:] if each.isdigit()]
        DRAWS, STORM, SEED = numbers + [60, 100, random.randrange(10 ** 6)][len(numbers):]
        unittest.main(argv=[each for each in sys.argv if not each.isdigit()])
