# mypy: ignore-errors
"""What does a Python program pickle when it uses multiprocessing?  `pickled --help` tells.

One file, two lives: started by hand it is the command; a copy of it, imported by the interpreters
of the script as `_cowshed_pickled`, is the recorder.  Until the script itself imports
multiprocessing, the recorder imports nothing but what is built into the interpreter or there at its
start.  It changes a module of multiprocessing only when the script has imported that.

The bytes that are sent are those of the stock pickler.  It reports each object as it comes to it
(`persistent_id`, which answers None), in the order of the stream; so the stream, read afterwards
opcode by opcode beside that list, gives the exact bytes and the exact type of each object, without
running any reducer twice.
"""

import _thread
import itertools
import marshal
import os
import sys

SCHEMA = "cowshed.pickled/1"
METHODS = ("fork", "spawn", "forkserver")

# ------------------------------------------------------------------------ reading a pickle's bytes

# Opcodes that make one value without others.
VALUES = frozenset("""
    NONE NEWTRUE NEWFALSE BININT1 BININT2 BININT LONG1 LONG4 BINFLOAT EMPTY_TUPLE EXT1 EXT2 EXT4
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8""".split())
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
BEGINS = {**EMPTY, "FROZENSET": frozenset}  # of nothing
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ATOMS = frozenset((type(None), bool, int, float, str, bytes))
MOST_PARTS = 1000  # names that are kept of one object's attributes, or of one tuple's items


class Unreadable(Exception):
    """The stream and the list of objects do not fit: only the whole is reported."""


class Node:
    """Objects of one type in one place, and what is inside them."""

    __slots__ = ("label", "count", "own", "again", "kids", "parts", "value")

    def __init__(self, own, value=None, label=None, parts=None, again=0):
        self.label = label or type(value).__qualname__
        self.count = 1 - again
        self.own = own  # bytes, those of the objects inside left out
        self.again = again  # references to an object that the same pickle had already
        self.kids = {}  # (edge, label) -> Node
        self.parts = parts  # [(name or None, child)], as long as names may still be given to them
        self.value = value

    def bytes(self):
        return self.own + sum(kid.bytes() for kid in self.kids.values())

    def is_leaf(self):
        return self.parts is None and not self.kids

    def is_attributes(self):
        return (type(self.value) is dict and self.parts is not None
                and all(type(key.value) is str for key, _ in self.parts))

    def add(self, edge, child):
        child.settle()
        kid = self.kids.setdefault((edge, child.label), child)
        if kid is child:
            child.value = None
            return
        kid.count += child.count
        kid.own += child.own
        kid.again += child.again
        for (inner, _), grandchild in child.kids.items():
            kid.add(inner, grandchild)

    def put(self, key, child):
        """Another part.  Too many of them get no names."""
        if self.parts is not None and len(self.parts) == MOST_PARTS:
            self.settle()
        if self.parts is not None:
            self.parts.append((key, child))
            return
        if key is not None:
            self.add(" key", key)
        self.add("", child)

    def settle(self):
        """Nobody has given names to the parts: they are plain contents."""
        parts, self.parts = self.parts, None
        for key, child in parts or ():
            self.put(key, child)

    def absorb(self, edge, child, names):
        """Takes in what is inside `child`, a tuple or dict that is only a way to carry it.
        `names`: None (the child is an object like others), "index", "each", "dict", or for a tuple
        a list of an (edge, names) for each of its items."""
        if names is None or child.is_leaf() or type(child.value) not in (tuple, dict):
            self.add(edge, child)
            return
        self.own += child.own
        self.name_parts(edge, child, names)

    def name_parts(self, edge, child, names):
        parts, child.parts = child.parts, None
        if parts is None:  # too many for names
            for (inner, _), kid in child.kids.items():
                self.add(edge if names == "each" else f"{edge}[*]{inner}", kid)
            return
        if type(names) is list and len(names) != len(parts):
            names = "index"
        for index, (key, part) in enumerate(parts):
            if key is not None:
                self.own += size_of(key)
            if names == "each":
                self.add(edge, part)
            elif names == "dict" and type(key.value) is str:
                self.add(f"{edge}[{key.value!r}]", part)
            elif type(names) is list:
                name, inner = names[index]
                self.absorb(edge + name, part, inner)
            else:
                self.add(f"{edge}[{index}]", part)

    def take_apart(self, carrier, names="each"):
        """The items of a tuple or dict that pickle itself has made are the object's own."""
        if carrier.is_leaf():
            self.own += carrier.own
        else:
            self.absorb("", carrier, names)


def size_of(node):
    node.settle()
    return node.bytes()


def operations(data):
    """(opcode's name, argument, bytes) of each operation in a pickle."""
    import pickletools

    before = None
    for opcode, argument, at in pickletools.genops(data):
        if before is not None:
            yield *before[:2], at - before[2]
        before = opcode.name, argument, at
    yield *before[:2], 1  # STOP


def measure(data, objects, root_label, names=None, state_names=None):
    """The tree of what is in `data`, a pickle of protocol 4 or 5, given the objects in the order in
    which the pickler came to them.  Raises Unreadable, and what pickletools raises."""
    stack, marks, memo, pending = [], [], [], []
    known = set()  # ids of what the pickler's memo holds
    to_come = iter(objects)
    at = 0
    overhead = 0
    dropped = None  # bytes that a POP has thrown away, for the GET behind it

    def leaf(name):
        """The object that this opcode stands for; those that begin with it are put aside."""
        for value in to_come:
            kind = type(value)
            if name in BEGINS:
                found = kind is BEGINS[name]
            else:
                found = (kind in ATOMS or id(value) in known or (kind is tuple and not value)
                         or name.startswith("EXT") and isinstance(value, type)
                         or "BYTE" in name and kind.__name__ in ("bytearray", "PickleBuffer"))
            if found:
                return value
            pending.append(value)
        raise Unreadable

    def pop_to_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def made_of(children, own):
        node = Node(own, pending.pop(), parts=[])
        for child in children:
            node.put(None, child)
        stack.append(node)

    def set_items(items, own):
        stack[-1].own += own
        for key, value in zip(items[::2], items[1::2]):
            stack[-1].put(key, value)

    def construct(callee, arguments):
        node = Node(1 + size_of(callee), pending.pop())
        node.take_apart(arguments)
        stack.append(node)

    def set_attributes(node, state):
        node.own += state.own
        for key, child in state.parts:
            node.own += key.own
            edge, inner = f".{key.value}", None
            if state_names and node.value is objects[0]:
                edge, inner = state_names.get(key.value, (edge, None))
            node.absorb(edge, child, inner)
        state.parts = None

    def build(node, state):
        node.own += 1
        if state.is_attributes():
            set_attributes(node, state)
            return
        if type(state.value) is not tuple or state.is_leaf():
            node.add("", state)
            return
        # Attributes, or None for none, and slots.
        parts = [child for _, child in state.parts or ()]
        if len(parts) == 2 and parts[1].is_attributes() and (
                parts[0].value is None or parts[0].is_attributes()):
            node.own += state.own
            for part in parts:
                if part.value is None:
                    node.own += part.own
                else:
                    set_attributes(node, part)
            return
        node.take_apart(state)

    steps = operations(data)
    for name, argument, size in steps:
        at += size
        if name in VALUES:
            stack.append(Node(size, leaf(name)))
        elif name == "MEMOIZE":
            stack[-1].own += 1
            memo.append(id(stack[-1].value))
            known.add(memo[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            if dropped is not None:  # an object that contains itself, by a tuple or a reducer
                if pending and id(pending[-1]) == memo[argument]:
                    pending.pop()
                stack.append(Node(size + dropped, None, "itself", again=1))
                dropped = None
            else:
                value = leaf(name)
                if id(value) != memo[argument]:
                    raise Unreadable
                stack.append(Node(size, value, again=1))
        elif name == "MARK":
            marks.append(len(stack))
        elif name in EMPTY:
            stack.append(Node(1, leaf(name), parts=[] if name == "EMPTY_DICT" else None))
        elif name in ("APPENDS", "ADDITEMS"):
            items = pop_to_mark()
            stack[-1].own += 2
            for item in items:
                stack[-1].add("", item)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].own += 1
            stack[-1].add("", item)
        elif name == "SETITEMS":
            set_items(pop_to_mark(), 2)
        elif name == "SETITEM":
            value = stack.pop()
            set_items([stack.pop(), value], 1)
        elif name in TUPLES:
            items = stack[-TUPLES[name]:]
            del stack[-TUPLES[name]:]
            if data[at:at + 2] == b"R0":  # REDUCE POP: setter(object, state) of a reducer
                at += sum(next(steps)[2] for _ in range(2))
                setter = stack.pop()
                stack[-1].own += 2 + size_of(setter) + size_of(items[0])
                build(stack[-1], items[1])
            else:
                made_of(items, 1)
        elif name in ("TUPLE", "FROZENSET"):
            items = pop_to_mark()
            if not items:  # nothing in it that it could have begun with
                pending.append(leaf(name))
            made_of(items, 2)
        elif name == "STACK_GLOBAL":
            function = stack.pop()
            module = stack.pop()
            stack.append(Node(1 + module.own + function.own, pending.pop(),
                              f"global {module.value}.{function.value}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            construct(stack.pop(), arguments)
        elif name == "NEWOBJ_EX":
            keywords = stack.pop()
            arguments = stack.pop()
            construct(stack.pop(), arguments)
            stack[-1].take_apart(keywords, "dict")
        elif name == "BUILD":
            state = stack.pop()
            build(stack[-1], state)
        elif name in ("PROTO", "FRAME", "STOP"):
            if name == "PROTO" and argument not in (4, 5):
                raise Unreadable
            overhead += size
        elif name == "POP":
            dropped = (dropped or 0) + 1 + size_of(stack.pop())
        elif name == "POP_MARK":
            dropped = (dropped or 0) + 2 + sum(size_of(item) for item in pop_to_mark())
        else:
            raise Unreadable
    if len(stack) != 1 or pending or list(to_come):
        raise Unreadable
    top = stack[0]
    if names is not None and top.parts is not None:
        top.name_parts("", top, names)
    top.settle()
    top.own += overhead
    if top.bytes() != len(data):
        raise Unreadable
    if root_label:
        top.label = root_label
    return top


# --------------------------------------------------------------------------------- the recorder

DEEPEST = 24  # steps of a type path; what is deeper is counted in the last


class Recorder:
    """What one process writes down, a record per transfer, in a file of its own that is closed
    between records: a killed process leaves all that it has sent, and the script sees no descriptor
    of ours."""

    def __init__(self, folder, method):
        self.folder = folder
        self.method = method  # the start method that was asked for, or ""
        self.local = _thread._local()
        self.after_fork()

    def after_fork(self):
        self.lock = _thread.RLock()  # a signal handler may send, too
        # Set before the first record: a signal handler may write a record during another.
        self.file = f"{os.getpid()}-{os.urandom(8).hex()}.record"
        self.numbers = itertools.count()
        self.paths = {}
        self.channels = {}
        self.channels_read = 0

    def append(self, name, record):
        try:
            with open(f"{self.folder}/{name}", "ab", buffering=0) as file:
                file.write(marshal.dumps(record))
        except OSError:  # the report is out already: this process has outlived its script
            pass

    def write(self, kind, channel, method, size, tree, error=None, event="sent"):
        with self.lock:
            new, rows = [], []
            pending = [(-1, "", tree, 0)] if tree is not None else []
            while pending:
                parent, edge, node, depth = pending.pop()
                key = (parent, edge, node.label)
                path = self.paths.get(key)
                if path is None:
                    path = self.paths[key] = next(self.numbers)
                    new.append((path, parent, edge, node.label))
                own = node.own if depth < DEEPEST else node.bytes()
                rows.append((path, node.count, own, node.again))
                if depth < DEEPEST:
                    for (inner, _), kid in node.kids.items():
                        pending.append((path, inner, kid, depth + 1))
            self.append(self.file, (kind, channel, method, size, error, event, new, rows))

    def name_channel(self, connections, kind, name):
        for identity in filter(None, map(identity_of, connections)):
            self.channels[identity] = (kind, name)
            self.append("channels", (identity, kind, name))

    def channel_of(self, connection):
        identity = identity_of(connection)
        if identity and identity not in self.channels:
            self.read_channels()
        return self.channels.get(identity)

    def read_channels(self):
        try:
            with open(f"{self.folder}/channels", "rb") as file:
                file.seek(self.channels_read)
                while True:
                    identity, kind, name = marshal.load(file)
                    self.channels_read = file.tell()
                    self.channels[identity] = (kind, name)  # a Pool names its queues once more
        except (OSError, EOFError, ValueError, TypeError):
            pass


def identity_of(connection):
    """A pipe or socket has the same inode in all processes that hold it; None: it has none."""
    try:
        status = os.fstat(connection.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_dev, status.st_ino


recorder = None
OWNERS = {"pool.py": "Pool", "managers.py": "Manager", "process.py": "Executor", "process_executor.py": "Executor",
          "resource_sharer.py": "descriptor sharing"}


def made_by():
    """(`FILE:LINE` of the code outside of multiprocessing and joblib that is at work; what of them it
    has called, of OWNERS)."""
    library = os.path.dirname(os.__file__)
    inside = (f"{library}/multiprocessing/", f"{library}/concurrent/")
    owner = ""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(inside) or frame.f_globals.get("__name__", "").partition(".")[0] in ("joblib", "loky"):
            owner = OWNERS.get(name.rsplit("/", 1)[1], owner)
        elif name != __file__ and not name.startswith("<"):
            return f"{os.path.basename(name)}:{frame.f_lineno}", owner
        frame = frame.f_back
    return "?", owner


def name_of(function):
    name = getattr(function, "__qualname__", None)
    return name if type(name) is str else type(function).__qualname__


POOL_WORKER = [(" inqueue", None), (" outqueue", None), (" initializer", None),
               (" initargs", "index"), (" maxtasks", None), (" wrap_exception", None)]
EXECUTOR_WORKER = [(" call_queue", None), (" result_queue", None), (" initializer", None),
                   (" initargs", "index"), (" max_tasks", None)]
LOKY_WORKER = [*EXECUTOR_WORKER[:4], (" management_lock", None), (" timeout", None), (" exit_lock", None),
               (" depth", None)]


def describe_process(process):
    """How the parts of a pickled Process are called: (label, names of its attributes)."""
    target = process.__dict__.get("_target")
    kind = type(process).__qualname__
    if type(process).__module__ == "multiprocessing.context":
        kind = "Process"  # SpawnProcess and its like
    args = (" args", "index")
    if target is not None:
        name = name_of(target)
        where = getattr(target, "__module__", "")
        if where == "multiprocessing.pool" and name == "worker":
            kind, args = "Pool worker", ("", POOL_WORKER)
        elif where == "concurrent.futures.process" and name == "_process_worker":
            # Before 3.11 there is no max_tasks.
            count = len(process.__dict__.get("_args", ()))
            kind, args = "Executor worker", ("", EXECUTOR_WORKER[:count])
        elif where.endswith("loky.process_executor") and name == "_process_worker":
            kind, args = "Executor worker", ("", LOKY_WORKER)
        else:
            kind = f"{kind}(target={name})"
    return kind, {"_target": (" target", None), "_args": args, "_kwargs": (" kwargs", "dict")}


def describe_task(task):
    """A task of a Pool: (label, names)."""
    if type(task) is not tuple or len(task) != 5:
        return None, None
    function, args = task[2], task[3]
    arguments = (" args", "index")
    if name_of(function) in ("mapstar", "starmapstar") and len(args) == 1 and len(args[0]) == 2:
        function = args[0][0]
        arguments = ("", [("", [(" function", None), (" item", "each")])])
    return f"{name_of(function)}()", [(" job", None), (" index", None), (" function", None),
                                      arguments, (" kwargs", "dict")]


def describe(value):
    """What the pickler has been called for: (kind, channel, start method, label, names,
    attributes)."""
    modules = sys.modules
    popen = modules["multiprocessing.context"].get_spawning_popen()
    if popen is not None:
        method = popen.method
        if isinstance(value, modules["multiprocessing.process"].BaseProcess):
            label, attributes = describe_process(value)
            return "Process start", method, method, label, None, attributes
        if type(value) is dict and "sys_path" in value:
            return "Process start", method, method, "preparation data", "dict", None
        return "Process start", method, method, None, None, None
    local = recorder.local
    connection = getattr(local, "connection", None)
    if connection is None:
        return "ForkingPickler", made_by()[0], "", None, None, None
    kind, channel = recorder.channel_of(connection) or ("", "")
    call = getattr(local, "call", None)
    if getattr(local, "serving", None) is connection:
        names = [(" status", None), (" value", None)]
        return "Manager result", channel or "Manager", "", "result", names, None
    if call is not None and type(value) is tuple and len(value) == 4:
        names = [(" id", None), (" method", None), (" args", "index"), (" kwargs", "dict")]
        return "Manager call", call[0], "", f"{call[0]}.{call[1]}()", names, None
    if not kind:
        where, owner = made_by()
        return ("Connection send", f"{owner or type(connection).__qualname__} at {where}", "", None,
                None, None)
    if kind == "Pool task":
        return kind, channel, "", *describe_task(value), None
    if kind == "Pool result" and type(value) is tuple and len(value) == 3:
        names = [(" job", None), (" index", None), ("", [(" ok", None), (" value", None)])]
        return kind, channel, "", "result", names, None
    return kind, channel, "", None, None, None


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
    recorder.write(kind, channel, method, len(data), tree)


def note_failure(value, error):
    try:
        kind, channel, method, label, _, _ = describe(value)
        what = label or type(value).__qualname__
        what = f"{what}: {type(error).__qualname__}: {str(error)[:500]}"
    except BROKEN:
        return
    recorder.write(kind, channel, method, 0, None, error=what)


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
        before = getattr(recorder.local, attribute, None)
        setattr(recorder.local, attribute, value_of(*args))
        try:
            return call.__wrapped__(*args, **kwargs)
        finally:
            setattr(recorder.local, attribute, before)


def watch_connection(module):
    note_while(module._ConnectionBase, "send", "connection", lambda connection, *_: connection)

    @instead_of(module, "Pipe")
    def Pipe(duplex=True):
        ends = Pipe.__wrapped__(duplex)
        where, owner = made_by()
        recorder.name_channel(ends, "Pipe send", f"{owner or 'Pipe'} at {where}")
        return ends


def name_queue(queue, kind, name):
    recorder.name_channel((queue._reader, queue._writer), kind, name)


PIPE_BYTES = 65536
QUEUES = ("Queue put", "JoinableQueue put", "SimpleQueue put")


def note_calls(owner, name, event):
    """Records each call of a queue's put or get that has done it."""

    @instead_of(owner, name)
    def call(self, *args, **kwargs):
        def note_event():
            kind, channel = recorder.channel_of(self._reader) or ("", "")
            if kind in QUEUES:
                recorder.write(kind, channel, "", 0, None, event=event)

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
                args[code] = f"{entry(recorder.folder, recorder.method)}\n{args[code]}"
        return spawnv_passfds.__wrapped__(path, args, passfds)


def watch_popen(module):
    @instead_of(module.Popen, "__init__")
    def init(self, process_obj):
        init.__wrapped__(self, process_obj)
        recorder.write("Process start", self.method, self.method, 0, None, event="started")


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
        return fork_exec.__wrapped__(cmd, keep_fds, recording({**os.environ, **(env or {})}, recorder.folder))


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
            kind, channel = recorder.channel_of(getattr(recorder.local, "connection", None)) or ("", "")
            recorder.write(kind, channel, "", array.nbytes, None, event="mapped")
        return reduced


def watch_context(module):
    if recorder.method:
        # The default, as if the platform's: the script may still set another.
        module._default_context._default_context = module._concrete_contexts[recorder.method]


def recording(environment, folder):
    """The environment in which an interpreter imports our sitecustomize, which takes this back."""
    before = environment.get("PYTHONPATH")
    environment = {**environment, "COWSHED_PICKLED": folder,
                   "PYTHONPATH": os.pathsep.join([folder, before] if before else [folder])}
    if before is not None:
        environment["COWSHED_PICKLED_PYTHONPATH"] = before
    return environment


def entry(folder, method):
    """Python code that makes an interpreter record; harmless when the folder is gone."""
    return (f"import sys; sys.path.insert(0, {folder!r})\n"
            "try: import _cowshed_pickled\n"
            "except ImportError: _cowshed_pickled = None\n"
            f"sys.path.remove({folder!r})\n"
            f"if _cowshed_pickled: _cowshed_pickled.instrument({folder!r}, {method!r})\n"
            "del _cowshed_pickled")


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
    global recorder
    recorder = Recorder(folder, method)
    os.register_at_fork(after_in_child=recorder.after_fork)
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


# Python imports it at its start, before the script: takes back all that brought it there.
SITECUSTOMIZE = """\
import os, sys
_config = os.environ.pop("COWSHED_PICKLED")
_path = os.environ.pop("COWSHED_PICKLED_PYTHONPATH", None)
if _path is None:
    del os.environ["PYTHONPATH"]
else:
    os.environ["PYTHONPATH"] = _path
while _config in sys.path:
    sys.path.remove(_config)
{entry}
_ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ImportError as _error:
    if _error.name != "sitecustomize":
        raise
    sys.modules["sitecustomize"] = _ours
"""

# ------------------------------------------------------------------------------------ the command

DESCRIPTION = """\
Runs a Python program and tells what its multiprocessing pickles: every object, by the path of types
that leads to it, with count and bytes, largest first."""

EPILOG = """\
Examples:
  pickled app.py --port 80            what the program sends, by its own start method
  pickled --start-method all app.py   once by fork, spawn and forkserver each, side by side
  pickled --json -o sent.json app.py  the same for a machine to read
  pickled -m package.module           a module, as with python3 -m

How to read a type path:
  Worker.cache → dict → list → str    the strings in the lists in the dict that is the attribute
                                      `cache` of a Process subclass: that attribute carried them
  Process(target=work) args[0] → ...  the first argument in args=
  preparation data['sys_path'] → ...  what each start by spawn or forkserver sends besides
  square() item → ..., result value   what goes to a Pool's worker, and what comes back
  global app.work                     a function or class, sent as its name alone
BYTES are those of the pickle, with all that is inside the object.  An object that one pickle
reaches twice is sent, and counted, once; AGAIN is the number of references to it.

What is seen, in all processes that multiprocessing and joblib start: Process, Pool, Queue,
JoinableQueue, SimpleQueue, Pipe, Listener and Client, Manager, ProcessPoolExecutor, whatever else
calls multiprocessing's ForkingPickler, joblib.Parallel with processes, and loky.
What is not seen: send_bytes (nothing is pickled), pickles that a program makes itself, programs
that it runs by subprocess, and what its processes send after it has itself ended.  Arrays that
joblib passes as files are named, but not counted.

The program sends the very bytes that it sends without this tool, but takes some microseconds longer
for each object: one that pickles millions takes several times as long.  The traceback of an object
that cannot be pickled shows one frame of this tool.  A start method that the program chooses itself
is the one used: --start-method sets the default.

Exit status: the program's own (of several, the largest); 128+N when signal N ended it; 127 program
not found; 125 an error of pickled's own or bad usage."""


def version():
    """The project's, in its sources or installed."""
    import importlib.metadata
    here = os.path.dirname(os.path.realpath(__file__))
    try:
        with open(os.path.join(here, "../../../VERSION"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        try:
            return importlib.metadata.version("cowshed")
        except importlib.metadata.PackageNotFoundError:
            return "of an unknown version"


def parse_arguments(argv):
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            self.exit(125, f"pickled: {message} (see --help)\n")

    parser = Parser(prog="pickled", usage="pickled [OPTIONS] SCRIPT [ARGS...]\n"
                    "       pickled [OPTIONS] -m MODULE [ARGS...]", description=DESCRIPTION,
                    epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                    allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pickled {version()}")
    parser.add_argument("--start-method", choices=(*METHODS, "all"), metavar="METHOD",
                        help="fork, spawn, forkserver, or all: the program runs once with each; "
                        "without it, as Python would")
    parser.add_argument("--top", type=int, default=20, metavar="N",
                        help="type paths to print (20; 0: all of them)")
    parser.add_argument("--json", action="store_true",
                        help=f"print one JSON object (schema {SCHEMA}) with all, not tables")
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="write the report to FILE, not to standard output")
    parser.add_argument("-m", dest="module", action="store_true",
                        help="SCRIPT is the name of a module")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("no script to run")
    if options.top < 0:
        parser.error("--top takes a number of 0 or more")
    if options.output == "":
        parser.error("the name of the file is empty")
    return options


class Run:
    """One run of the program, and what it has pickled."""

    def __init__(self, method, status):
        self.method = method  # what was asked for, or "" for the program's own choice
        self.status = status
        self.processes = 0
        self.starts = {}  # start method -> [processes started]
        self.channels = {}  # (kind, channel) -> [messages, objects, bytes, put, taken]
        # (kind, channel, ((edge, label), ...)) -> [count, own, again, bytes]
        self.paths = {}
        self.failures = {}  # (kind, channel, error) -> [count]
        self.mapped = {}  # (kind, channel) -> [arrays, bytes]

    def read(self, folder):
        for name in os.listdir(folder):
            if name.endswith(".record"):
                self.processes += 1
                with open(f"{folder}/{name}", "rb") as file:
                    self.read_process(file)
        for (kind, channel, path), row in self.paths.items():
            for depth in range(1, len(path) + 1):
                self.paths[kind, channel, path[:depth]][3] += row[1]

    def read_process(self, file):
        records = []
        while True:
            try:
                records.append(marshal.load(file))
            except (EOFError, ValueError, TypeError):  # killed while it wrote the last
                break
        # A record that a signal handler wrote uses paths that a later one defines.
        steps = {path: step for record in records for path, *step in record[6]}
        paths = {-1: ()}
        for path in sorted(steps):
            parent, edge, label = steps[path]
            paths[path] = (*paths[parent], (edge, label))
        for kind, channel, method, size, error, event, _, rows in records:
            if error:
                add(self.failures, (kind, channel, error), 1)
                continue
            if event == "mapped":
                add(self.mapped, (kind, channel), 1, size)
                continue
            if event == "started":
                add(self.starts, method, 1)
            add(self.channels, (kind, channel), int(event == "sent"),
                sum(row[1] for row in rows), size, int(event == "put"), int(event == "taken"))
            for path, count, own, again in rows:
                add(self.paths, (kind, channel, paths[path]), count, own, again, 0)

    def name(self):
        return self.method or "/".join(sorted(self.starts)) or "as it is"

    def totals(self):
        return [sum(row[index] for row in self.channels.values()) for index in range(3)]

    def never_taken(self):
        """Of each queue: (its name, messages left, of how many, their bytes by the mean)."""
        for (kind, channel), (messages, _, size, put, taken) in sorted(self.channels.items()):
            if kind in QUEUES and taken < put:
                yield channel, put - taken, put, (put - taken) * size // max(messages, 1)

    def by_kind(self):
        rows = {}
        for (kind, channel, path), row in self.paths.items():
            add(rows, (kind, path), *row)
        return rows


def add(sums, key, *amounts):
    row = sums.setdefault(key, [0] * len(amounts))
    row[:] = map(sum, zip(row, amounts))


def run_program(options, method, interrupted):
    import shutil
    import signal
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="cowshed-pickled-")
    try:
        shutil.copyfile(os.path.abspath(__file__), f"{folder}/_cowshed_pickled.py")
        with open(f"{folder}/sitecustomize.py", "w", encoding="utf-8") as file:
            file.write(SITECUSTOMIZE.format(entry=entry(folder, method)))
        command = [sys.executable, *(["-m"] if options.module else []), *options.command]
        # Ctrl-C is for the program; what is sent to this process alone is passed on to it.
        # These handlers stay until the report is out: timeout(1) sends each signal twice.
        def pass_on(number, _):
            interrupted.append(number)
            child.send_signal(number)

        handlers = {signal.SIGINT: lambda number, _: interrupted.append(number)}
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = pass_on
        child = None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        try:
            child = subprocess.Popen(command, env=recording(os.environ, folder), preexec_fn=lambda: (
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)))
            for number, handler in handlers.items():
                signal.signal(number, handler)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        status = child.wait()
        run = Run(method, 128 - status if status < 0 else status)
        run.read(folder)
        return run
    finally:
        for _ in range(3):  # a process that outlives the program may add a file meanwhile
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break


def units(size):
    if size < 1024:
        return f"{size} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            return f"{size:.1f} {unit}"


def text_of(path):
    text = path[0][1]
    for edge, label in path[1:]:
        text += f"{edge} → {label}"
    return text


def carrier_of(path):
    """The attribute or argument that carried it, or None: what was sent is the object itself."""
    return path[0][1] + path[1][0] if len(path) > 1 and path[1][0] else None


def table(rows, left, heading):
    """Lines of a table; columns from `left` on are text, those before it figures."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if index >= left else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(row, widths))]
        line = "  ".join(cells).rstrip()
        yield line if number else heading(line)


def things(count, name):
    return f"{count} {name}{'' if count == 1 else 'es' if name.endswith('s') else 's'}"


def signal_name(number):
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def by_channel(channels, single):
    rows = {}
    for (kind, channel), total in channels.items():
        add(rows, (kind, channel if single or kind != "Process start" else ""), *total)
    return rows


def side_by_side(tables):
    """For each key the rows that the tables have for it, or None."""
    return {key: [table.get(key) for table in tables] for table in tables for key in table}


def report_text(options, runs, heading):
    command = options.command[0]
    for run in runs:
        messages, objects, size = run.totals()
        starts = ", ".join(f"{count} by {method}" for method, (count,) in sorted(run.starts.items()))
        asked = f" --start-method {run.method}" if run.method else ""
        yield heading(f"pickled{asked}: {command}, by {sys.executable}: {things(messages, 'pickle')} of "
                      f"{things(objects, 'object')}, {units(size)}; "
                      f"processes started: {starts or 'none'}")
        if run.status > 128:
            yield (f"  The program was ended by {signal_name(run.status - 128)}: what follows is "
                   "what it had done until then.")
        if run.method and any(method != run.method for method in run.starts):
            yield f"  The program itself chose another start method than {run.method}."
        for (kind, channel, error), (count,) in sorted(run.failures.items()):
            yield f"  Could not be pickled, {count} x: {kind} ({channel}): {error}"
        for (kind, channel), (count, size) in sorted(run.mapped.items()):
            yield (f"  Not counted: {things(count, 'array')} of {units(size)} that {channel} passes as files, "
                   "which the receiver maps")
        left = list(run.never_taken())
        for channel, count, put, _ in left:
            yield f"  Put and never taken: {count} of {things(put, 'message')}, {channel}"
        if any(size > PIPE_BYTES for *_, size in left) and run.status > 128:
            yield ("  A process ends only when what it has put is in the pipe, which holds 64 KiB: "
                   "get() before join().")
    yield ""
    single = len(runs) == 1
    names = ["BYTES"] if single else [run.name().upper() for run in runs]
    # The start method is the channel of a start: side by side, that is the column.
    kinds = side_by_side([by_channel(run.channels, single) for run in runs])
    if kinds:
        ordered = sorted(kinds.items(), key=lambda item: -max(row[2] for row in item[1] if row))
        if single:
            rows = [("MESSAGES", "OBJECTS", "BYTES", "TRANSFER", "CHANNEL")]
            rows += [(str(row[0][0]), str(row[0][1]), units(row[0][2]), *key)
                     for key, row in ordered]
        else:
            rows = [(*names, "TRANSFER", "CHANNEL")]
            rows += [(*(f"{cell[0]} x, {units(cell[2])}" if cell and cell[0] else "nothing"
                        for cell in row), *key) for key, row in ordered]
        yield from table(rows, len(rows[0]) - 2, heading)
        yield ""
    paths = side_by_side([run.by_kind() for run in runs])
    if not paths:
        yield "Nothing was pickled."
        return
    ordered = sorted(paths.items(), key=lambda item: (-max(row[3] for row in item[1] if row),
                                                      item[0][0], len(item[0][1])))
    shown = ordered[:options.top] if options.top else ordered
    again = any(row and row[2] for _, cells in shown for row in cells)
    rows = [(*names, "OBJECTS", *(["AGAIN"] if again else []), "TRANSFER", "TYPE PATH")]
    for (kind, path), cells in shown:
        most = [max(row[index] for row in cells if row) for index in range(3)]
        rows.append((*(units(row[3]) if row else "-" for row in cells), str(most[0]),
                     *([str(most[2])] if again else []), kind, text_of(path)))
    yield from table(rows, len(rows[0]) - 2, heading)
    if len(shown) < len(ordered):
        yield f"... and {len(ordered) - len(shown)} more, all smaller (--top 0 prints all)"


def report_json(options, runs):
    import json

    def run_object(run):
        messages, objects, size = run.totals()
        rows = sorted(run.paths.items(), key=lambda item: (-item[1][3], len(item[0][2])))
        return {
            "start_method": run.method or None,
            "exit_status": run.status,
            "processes_recorded": run.processes,
            "processes_started": {method: count for method, (count,) in run.starts.items()},
            "messages": messages, "objects": objects, "bytes": size,
            "channels": [{"transfer": kind, "channel": channel, "messages": total[0],
                          "objects": total[1], "bytes": total[2],
                          "put": total[3] if kind in QUEUES else None,
                          "taken": total[4] if kind in QUEUES else None}
                         for (kind, channel), total in
                         sorted(run.channels.items(), key=lambda item: -item[1][2])],
            "paths": [{"transfer": kind, "channel": channel, "type_path": text_of(path),
                       "carrier": carrier_of(path), "objects": row[0], "bytes": row[3],
                       "own_bytes": row[1], "again": row[2]}
                      for (kind, channel, path), row in rows],
            "failures": [{"transfer": kind, "channel": channel, "error": error, "count": count}
                         for (kind, channel, error), (count,) in sorted(run.failures.items())],
            "mapped": [{"transfer": kind, "channel": channel, "arrays": count, "bytes": size}
                       for (kind, channel), (count, size) in sorted(run.mapped.items())],
        }

    return json.dumps({"schema": SCHEMA, "command": options.command,
                       "runs": [run_object(run) for run in runs]}, indent=1, ensure_ascii=False)


def main(argv):
    options = parse_arguments(argv)
    if not options.module and not os.path.exists(options.command[0]):
        print(f"pickled: cannot run '{options.command[0]}': there is no such file", file=sys.stderr)
        return 127
    output = None
    if options.output:
        try:
            output = open(options.output, "w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            print(f"pickled: cannot write '{options.output}': {error.strerror}", file=sys.stderr)
            return 125
    methods = METHODS if options.start_method == "all" else (options.start_method or "",)
    interrupted, runs = [], []
    for method in methods:
        runs.append(run_program(options, method, interrupted))
        if interrupted:
            break
    sys.stdout.reconfigure(errors="backslashreplace")  # arrows in a terminal without them
    stream = output or sys.stdout
    bold = (not output and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb")
    try:
        if options.json:
            print(report_json(options, runs), file=stream)
        else:
            for line in report_text(options, runs,
                                    lambda text: f"\033[1m{text}\033[0m" if bold else text):
                print(line, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        print(f"pickled: cannot write the report: {error.strerror}", file=sys.stderr)
        return 125
    return max(run.status for run in runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
