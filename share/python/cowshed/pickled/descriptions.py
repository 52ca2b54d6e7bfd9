# mypy: ignore-errors
"""What the objects that are pickled are called, and where they go."""

import os
import sys

from . import recorder

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
        elif os.path.dirname(name) != os.path.dirname(__file__) and not name.startswith("<"):
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
    local = recorder.active.local
    connection = getattr(local, "connection", None)
    if connection is None:
        return "ForkingPickler", made_by()[0], "", None, None, None
    kind, channel = recorder.active.channel_of(connection) or ("", "")
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
