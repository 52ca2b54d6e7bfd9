#!/usr/bin/env python3
"""Tests pickled on real scripts: PICKLED=.../cowshed/pickled python3 pickled_test.py"""

import collections
import contextlib
import glob
import io
import json
import os
import pathlib
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from random import Random

PICKLED = os.environ.get("PICKLED") or os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                    "../../../share/python/cowshed/pickled")
METHODS = ("fork", "spawn", "forkserver")


class ScriptTest(unittest.TestCase):
    """A folder with a script, and the report of a run."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pickled-test-")
        # The tool's own temporary folders land here as well, so that a leftover is found.
        self.temporary = os.path.join(self.folder, "tmp")
        os.mkdir(self.temporary)

    def tearDown(self):
        deadline = time.monotonic() + 10
        while True:  # the forkserver and what it has started end a moment after the script
            left = glob.glob(f"{self.temporary}/cowshed-pickled-*")
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        subprocess.run(["rm", "-rf", self.folder], check=True)
        self.assertEqual(left, [], "left behind")

    def script(self, text, name="script.py"):
        path = os.path.join(self.folder, name)
        pathlib.Path(path).write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def environment(self, **more):
        return {**os.environ, "TMPDIR": self.temporary, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def run_tool(self, *arguments, expected=0, **keywords):
        keywords.setdefault("env", self.environment())
        done = subprocess.run([sys.executable, PICKLED, *arguments], capture_output=True, text=True,
                              timeout=120, check=False, **keywords)
        self.assertEqual(done.returncode, expected, done.stderr)
        return done

    def report(self, path, *arguments, method=None, expected=0):
        """(the only run of the JSON report, standard output of the script)."""
        output = os.path.join(self.folder, "report.json")
        chosen = ["--start-method", method] if method else []
        done = self.run_tool("--json", "-o", output, *chosen, path, *arguments, expected=expected)
        report = json.loads(pathlib.Path(output).read_text(encoding="utf-8"))
        self.assertEqual(report["schema"], "cowshed.pickled/1")
        self.assertEqual(len(report["runs"]), 1)
        self.check_sums(report["runs"][0])
        return report["runs"][0], done.stdout

    def check_sums(self, run):
        """Every byte belongs to one path, every object is counted on one channel."""
        self.assertEqual(sum(row["own_bytes"] for row in run["paths"]), run["bytes"])
        self.assertEqual(sum(row["bytes"] for row in run["channels"]), run["bytes"])
        self.assertEqual(sum(row["objects"] for row in run["paths"]), run["objects"])
        self.assertEqual(sum(row["messages"] for row in run["channels"]), run["messages"])
        sizes = [row["bytes"] for row in run["paths"]]
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        for row in run["paths"]:
            self.assertNotIn("not looked into", row["type_path"])

    def channel(self, run, transfer, name=""):
        rows = [row for row in run["channels"]
                if row["transfer"] == transfer and row["channel"].startswith(name)]
        self.assertEqual(len(rows), 1, run["channels"])
        return rows[0]

    def path(self, run, type_path, transfer=None):
        rows = [row for row in run["paths"] if row["type_path"] == type_path
                and transfer in (None, row["transfer"])]
        self.assertEqual(len(rows), 1, [row["type_path"] for row in run["paths"]])
        return rows[0]


class StartTest(ScriptTest):
    """What starts a process."""

    SCRIPT = """
        import multiprocessing, os, sys

        class Worker(multiprocessing.Process):
            def __init__(self, cache):
                super().__init__()
                self.cache = cache
            def run(self):
                assert len(self.cache["words"]) == 1000

        def work(table, factor, *, name):
            assert len(table) == 100 and name == "x" * 50

        if __name__ == "__main__":
            # An account of its own: how far the file grows by each dump.
            reduction = multiprocessing.reduction
            dump, sizes = reduction.dump, []
            def counted(obj, file, protocol=None):
                before = file.tell()
                dump(obj, file, protocol)
                sizes.append(file.tell() - before)
            reduction.dump = counted
            table = {i: bytes(7) for i in range(100)}
            processes = [Worker({"words": [f"word {i:04}" for i in range(1000)]}),
                         multiprocessing.Process(target=work, args=(table, 2.5),
                                                 kwargs={"name": "x" * 50})]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
                assert process.exitcode == 0
            print(sum(sizes), len(sizes))
    """

    def test_fork_pickles_nothing(self):
        run, output = self.report(self.script(self.SCRIPT), method="fork")
        self.assertEqual(output, "0 0\n")
        self.assertEqual(run["processes_started"], {"fork": 2})
        self.assertEqual((run["messages"], run["objects"], run["bytes"]), (0, 0, 0))

    def test_spawn_and_forkserver_name_the_carrier(self):
        for method in ("spawn", "forkserver"):
            with self.subTest(method):
                self.check_fresh_interpreter(method)

    def check_fresh_interpreter(self, method):
        run, output = self.report(self.script(self.SCRIPT), method=method)
        self.assertEqual(run["processes_started"], {method: 2})
        start = self.channel(run, "Process start", method)
        self.assertEqual(f"{start['bytes']} {start['messages']}\n", output)
        self.assertEqual(start["messages"], 4)
        words = self.path(run, "Worker.cache → dict → list → str")
        self.assertEqual(words["objects"], 1000)
        # SHORT_BINUNICODE, length, 9 letters, MEMOIZE
        self.assertEqual(words["bytes"], 1000 * 12)
        self.assertEqual(words["carrier"], "Worker.cache")
        largest = [row["type_path"] for row in run["paths"]][:3]
        self.assertEqual(largest, ["Worker", "Worker.cache → dict", "Worker.cache → dict → list"])
        values = self.path(run, "Process(target=work) args[0] → dict → bytes")
        self.assertEqual((values["objects"], values["carrier"]),
                         (100, "Process(target=work) args[0]"))
        keys = self.path(run, "Process(target=work) args[0] → dict key → int")
        self.assertEqual((keys["objects"], keys["bytes"]), (100, 200))  # BININT1
        self.assertEqual(self.path(run, "Process(target=work) args[1] → float")["bytes"], 9)
        self.assertEqual(self.path(run, "Process(target=work) kwargs['name'] → str")["bytes"], 53)
        self.path(run, "Process(target=work) target → global __main__.work")
        self.assertEqual(self.path(run, "preparation data")["objects"], 2)

    def test_the_script_chooses_its_start_method(self):
        path = self.script("""
            import multiprocessing
            def work(data): pass
            if __name__ == "__main__":
                assert multiprocessing.get_start_method(allow_none=True) is None
                multiprocessing.set_start_method("spawn")
                for context in (multiprocessing, multiprocessing.get_context("fork")):
                    process = context.Process(target=work, args=([1, 2, 3],))
                    process.start()
                    process.join()
        """)
        run, _ = self.report(path, method="forkserver")
        self.assertEqual(run["processes_started"], {"fork": 1, "spawn": 1})
        self.assertEqual(self.path(run, "Process(target=work) args[0] → list")["objects"], 1)
        done = self.run_tool("--start-method", "forkserver", path)
        self.assertIn("chose another start method", done.stdout)

    def test_slots_and_repeated_objects(self):
        path = self.script("""
            import multiprocessing
            class Slots:
                __slots__ = ("left", "right")
            def work(*args): pass
            if __name__ == "__main__":
                slots = Slots()
                slots.left = slots.right = [b"x" * 300]
                process = multiprocessing.Process(target=work, args=(slots, slots.left))
                process.start()
                process.join()
        """)
        run, _ = self.report(path, method="spawn")
        left = self.path(run, "Process(target=work) args[0] → Slots.left → list")
        self.assertEqual((left["objects"], left["again"]), (1, 0))
        right = self.path(run, "Process(target=work) args[0] → Slots.right → list")
        self.assertEqual((right["objects"], right["again"], right["bytes"]), (0, 1, 2))  # BINGET
        second = self.path(run, "Process(target=work) args[1] → list")
        self.assertEqual((second["objects"], second["again"]), (0, 1))


class TransferTest(ScriptTest):
    """What goes between processes that run, by every start method."""

    def each_method(self, text):
        path = self.script(text)
        for method in METHODS:
            yield self.report(path, method=method)

    def test_pool(self):
        for run, output in self.each_method("""
            import multiprocessing, pickle
            from multiprocessing import pool
            def initialize(table): pass
            def double(word): return word * 2
            if __name__ == "__main__":
                words = [f"word {i:06}" for i in range(1000)]
                table = {"table": list(range(500))}
                with multiprocessing.Pool(2, initialize, (table,)) as workers:
                    assert workers.map(double, words, chunksize=250) == [w * 2 for w in words]
                    assert workers.apply(double, ("abc",)) == "abcabc"
                    workers.close()
                    workers.join()
                size = result = 0
                for i in range(4):
                    chunk = tuple(words[i * 250:i * 250 + 250])
                    size += len(pickle.dumps((0, i, pool.mapstar, ((double, chunk),), {})))
                    result += len(pickle.dumps((0, i, (True, [w * 2 for w in chunk]))))
                size += len(pickle.dumps((1, 0, double, ("abc",), {})))
                result += len(pickle.dumps((1, 0, (True, "abcabc"))))
                none = len(pickle.dumps(None))
                print(size, result, none)
        """):
            size, result, none = map(int, output.split())
            tasks = self.channel(run, "Pool task", "Pool at script.py:")
            # Each worker gets a None that ends it.
            self.assertEqual((tasks["messages"], tasks["bytes"]), (5 + 2, size + 2 * none))
            results = self.channel(run, "Pool result", "Pool at script.py:")
            self.assertEqual(results["bytes"], result + (results["messages"] - 5) * none)
            words = self.path(run, "double() item → str")
            self.assertEqual((words["objects"], words["bytes"]), (1000, 1000 * 14))
            self.assertEqual(self.path(run, "result value → list → str")["objects"], 1000)
            self.assertEqual(self.path(run, "double() args[0] → str")["objects"], 1)
            if run["start_method"] != "fork":
                table = self.path(run, "Pool worker initargs[0] → dict → list → int")
                self.assertEqual(table["objects"], 2 * 500)
                self.assertEqual(table["carrier"], "Pool worker initargs[0]")

    def test_queues_and_pipes(self):
        for run, output in self.each_method("""
            import multiprocessing, pickle
            def work(queue, joinable, simple, end):
                queue.put([1.5] * 300)
                assert joinable.get() == {"a": 1}
                joinable.task_done()
                simple.put("x" * 400)
                end.send({"done": (True, None)})
                assert end.recv() == b"y" * 500
            if __name__ == "__main__":
                queue, joinable = multiprocessing.Queue(), multiprocessing.JoinableQueue()
                simple = multiprocessing.SimpleQueue()
                mine, theirs = multiprocessing.Pipe()
                process = multiprocessing.Process(target=work,
                                                  args=(queue, joinable, simple, theirs))
                process.start()
                joinable.put({"a": 1})
                assert queue.get() == [1.5] * 300
                assert simple.get() == "x" * 400
                assert mine.recv() == {"done": (True, None)}
                mine.send(b"y" * 500)
                mine.send_bytes(b"not pickled")
                joinable.join()
                process.join()
                print(len(pickle.dumps([1.5] * 300)), len(pickle.dumps({"a": 1})),
                      len(pickle.dumps("x" * 400)),
                      len(pickle.dumps({"done": (True, None)})) + len(pickle.dumps(b"y" * 500)))
        """):
            sizes = [self.channel(run, transfer, channel)["bytes"] for transfer, channel in (
                ("Queue put", "Queue at script.py:"),
                ("JoinableQueue put", "JoinableQueue at script.py:"),
                ("SimpleQueue put", "SimpleQueue at script.py:"),
                ("Pipe send", "Pipe at script.py:"))]
            self.assertEqual(" ".join(map(str, sizes)) + "\n", output)
            self.assertEqual(self.channel(run, "Pipe send")["messages"], 2)
            self.assertEqual([row["taken"] for row in run["channels"] if row["messages"]
                              and row["transfer"].endswith("Queue put")], [1, 1, 1])
            self.assertEqual(self.path(run, "list → float", "Queue put")["objects"], 300)
            if run["start_method"] != "fork":
                self.path(run, "Process(target=work) args[0] → Queue → Connection")

    def test_never_taken_is_said_only_where_it_is_so(self):
        path = self.script("""
            import multiprocessing
            class Refuses:
                def __reduce__(self): return int, ("no number", None)
            def work(number): pass
            if __name__ == "__main__":
                with multiprocessing.Pool(1, maxtasksperchild=1) as pool:
                    pool.map(work, range(3), chunksize=1)
                    pool.close()
                    pool.join()
                queue = multiprocessing.SimpleQueue()
                queue.put(Refuses())
                try: queue.get()
                except TypeError: queue.put("left")
        """)
        self.assertEqual([line for line in self.run_tool(path).stdout.splitlines() if "never taken" in line],
                         ["  Put and never taken: 1 of 2 messages, SimpleQueue at script.py:11"])

    def test_manager(self):
        for run, _ in self.each_method("""
            import multiprocessing
            def work(table, rows):
                table["key"] = ["x" * 10] * 3 + list(range(20))
                rows.append(b"z" * 600)
            if __name__ == "__main__":
                with multiprocessing.Manager() as manager:
                    table, rows = manager.dict(), manager.list()
                    process = multiprocessing.Process(target=work, args=(table, rows))
                    process.start()
                    process.join()
                    assert len(table["key"]) == 23
                    assert rows[0] == b"z" * 600
        """):
            item = self.path(run, "DictProxy.__setitem__() args[1] → list → str")
            self.assertEqual((item["objects"], item["again"]), (1, 2))
            value = self.path(run, "ListProxy.append() args[0] → bytes")
            self.assertEqual((value["objects"], value["bytes"]), (1, 600 + 6))  # BINBYTES, MEMOIZE
            # What the manager answers, from a process of its own.
            self.assertEqual(self.path(run, "result value → bytes")["bytes"], 606)
            self.assertGreater(self.channel(run, "Manager result")["messages"], 4)

    def test_executor(self):
        for run, output in self.each_method("""
            import concurrent.futures, pickle, sys
            def initialize(table): pass
            def triple(word): return word * 3
            if __name__ == "__main__":
                with concurrent.futures.ProcessPoolExecutor(
                        1, initializer=initialize, initargs=(b"i" * 700,)) as executor:
                    assert executor.submit(triple, "w" * 300).result() == "w" * 900
        """):
            self.assertEqual(self.path(run, "_CallItem.args → tuple → str")["objects"], 1)
            self.assertEqual(self.path(run, "_ResultItem.result → str")["bytes"], 900 + 6)
            self.channel(run, "Executor task", "Executor at script.py:")
            self.channel(run, "Executor result", "Executor at script.py:")
            if run["start_method"] != "fork":
                table = self.path(run, "Executor worker initargs[0] → bytes")
                self.assertEqual(table["bytes"], 706)

    def test_sockets_and_listeners(self):
        for run, _ in self.each_method("""
            import multiprocessing, threading
            from multiprocessing.connection import Client, Listener
            if __name__ == "__main__":
                with Listener(authkey=b"key") as listener:
                    thread = threading.Thread(
                        target=lambda: Client(listener.address, authkey=b"key").send([1, 2]))
                    thread.start()
                    with listener.accept() as end:
                        assert end.recv() == [1, 2]
                    thread.join()
        """):
            row = self.channel(run, "Connection send", "Connection at script.py:")
            self.assertEqual((row["messages"], row["objects"]), (1, 3))


class JoblibTest(ScriptTest):
    """joblib's processes: loky's, which are no children by multiprocessing, and a Pool's."""

    WORDS = """
        import sys
        from joblib import Parallel, delayed
        def count(words): return [len(words)]
        words = [f"word {i:06}" for i in range(1000)]
        if __name__ == "__main__":
            parallel = Parallel(n_jobs=2, backend=sys.argv[1], batch_size=1)
            assert parallel(delayed(count)(words) for _ in range(4)) == [[1000]] * 4
    """

    def test_a_list_for_each_call(self):
        for backend, channel in (("loky", "Executor"), ("multiprocessing", "Pool")):
            run, _ = self.report(self.script(self.WORDS), backend)
            if backend == "loky":
                self.assertEqual(run["processes_started"], {"loky": 2})
                # What comes back, from interpreters that joblib has started.
                self.assertEqual(self.path(run, "_ResultItem.result → list → list → int")["objects"], 4)
            self.assertEqual(sum(run["processes_started"].values()), 2)
            words = [row for row in run["paths"] if row["type_path"].endswith("tuple → list → str")]
            self.assertEqual([(row["transfer"], row["objects"], row["bytes"]) for row in words],
                             [(f"{channel} task", 4000, 4000 * 14)])
            self.assertGreaterEqual(self.channel(run, f"{channel} task", f"{channel} at script.py:")["messages"], 4)
            self.channel(run, f"{channel} result", f"{channel} at script.py:")
            self.assertNotIn("never taken", self.run_tool(self.script(self.WORDS), backend).stdout)

    def test_arrays_that_are_passed_as_files_are_named(self):
        path = self.script("""
            import sys, numpy
            from joblib import Parallel, delayed
            def total(array): return array.sum()
            if __name__ == "__main__":
                array = numpy.zeros(1 << 18)
                Parallel(n_jobs=2, backend=sys.argv[1], batch_size=1)(delayed(total)(array) for _ in range(4))
        """)
        for backend, channel in (("loky", "Executor"), ("multiprocessing", "Pool")):
            run, _ = self.report(path, backend)
            self.assertLess(run["bytes"], 1 << 18)
            (mapped,) = run["mapped"]
            self.assertEqual((mapped["arrays"], mapped["bytes"]), (4, 4 << 21))
            self.assertIn(f"Not counted: 4 arrays of 8.0 MiB that {channel} at script.py:7 passes as files",
                          self.run_tool(path, backend).stdout)


class FaithTest(ScriptTest):
    """The script cannot tell."""

    def compare(self, path, *arguments, module=False, cwd=None, env=None):
        env = env or self.environment()
        chosen = ["-m"] if module else []
        output = os.path.join(self.folder, "report")
        stock, ours = (subprocess.run([sys.executable, *tool, *chosen, path, *arguments], capture_output=True,
                                      text=True, timeout=60, check=False, cwd=cwd, env=env)
                       for tool in ([], [PICKLED, "-o", output]))
        self.assertEqual((ours.stdout, ours.stderr, ours.returncode), (stock.stdout, stock.stderr, stock.returncode))
        self.assertTrue(os.path.getsize(output))
        return stock

    SHOW = """
        import os, sys
        print(sys.argv, sys.path, __name__, __file__, __spec__ and __spec__.name, sys.flags)
        print(sorted(os.environ.items()), os.getcwd())
        print(sorted(name for name in sys.modules
                     if name.split(".")[0] not in ("_cowshed_pickled", "sitecustomize", "gc")))
        print(os.listdir("/proc/self/fd"), "on stderr", file=sys.stderr)
    """

    def test_arguments_paths_environment(self):
        path = self.script(self.SHOW)
        done = self.compare(path, "--json", "-o", "x", "--", "")
        self.assertIn("on stderr", done.stderr)
        self.compare("script.py", cwd=self.folder)
        self.compare("script", "-m", module=True, cwd=self.folder)
        self.compare(path, env=self.environment(PYTHONPATH=""))
        self.compare(path, env=self.environment(PYTHONPATH=f"{self.folder}:/nowhere"))

    def test_a_sitecustomize_of_the_users_own(self):
        self.script("""
            import sys
            with open("/proc/self/cmdline") as file:
                command = file.read()
            if "cowshed/pickled" not in command:  # not in the interpreter of the tool itself
                print("custom", sys.path)
        """, "sitecustomize.py")
        done = self.compare(self.script("import sitecustomize; print(sitecustomize.__file__)"),
                            env=self.environment(PYTHONPATH=self.folder))
        self.assertIn("custom", done.stdout)

    def test_exit_codes(self):
        for text, code in (("import sys; sys.exit(3)", 3), ("raise ValueError('no')", 1),
                           ("import sys; sys.exit('text')", 1), ("def", 1),
                           ("import os; os._exit(9)", 9)):
            self.assertEqual(self.compare(self.script(text)).returncode, code)
        path = self.script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        self.run_tool(path, expected=128 + 9)

    def test_spawned_children_see_what_they_always_see(self):
        path = self.script("""
            import multiprocessing, os, sys
            def show():
                print(sys.argv, sys.path, __name__, sorted(os.environ.items()))
                print(sys.modules["__main__"].__file__, multiprocessing.get_start_method())
            if __name__ == "__main__":
                process = multiprocessing.get_context(sys.argv[1]).Process(target=show)
                process.start()
                process.join()
        """)
        for method in METHODS:
            self.compare(path, method)
        self.compare("script", "spawn", module=True, cwd=self.folder)

    def test_errors_are_the_stock_ones(self):
        path = self.script("""
            import multiprocessing, threading
            from concurrent.futures import ProcessPoolExecutor
            class Bad:
                def __reduce__(self): raise RuntimeError("not me")
            class Worse:
                def __reduce__(self): return 5
            def work(*args): pass
            deep = []
            for _ in range(100000): deep = [deep]
            if __name__ == "__main__":
                one, other = multiprocessing.Pipe()
                spawn = multiprocessing.get_context("spawn")
                for value in (threading.Lock(), lambda: 1, Bad(), Worse(), deep, (i for i in "x")):
                    process = spawn.Process(target=work, args=(value,))
                    for send in (one.send, lambda _: process.start()):
                        try:
                            send(value)
                        except RecursionError:
                            print("RecursionError")
                        except Exception as error:
                            print(type(error), str(error).split(" at 0x")[0])
                one.send("still works")
                print(other.recv())
        """)
        self.compare(path)
        run, _ = self.report(path)
        self.assertEqual(sum(row["count"] for row in run["failures"]), 12)
        self.assertIn("lock: TypeError: cannot pickle '_thread.lock' object",
                      [row["error"] for row in run["failures"]])

    def test_reducers_run_once(self):
        path = self.script("""
            import multiprocessing, sys
            class Once:
                calls = 0
                def __reduce__(self):
                    Once.calls += 1
                    return Once, ()
            if __name__ == "__main__":
                one, other = multiprocessing.Pipe()
                one.send([Once(), Once()])
                sys.exit(Once.calls)
        """)
        run, _ = self.report(path, expected=2)
        self.assertEqual(self.path(run, "list → Once")["objects"], 2)

    def test_sent_bytes_are_the_stock_ones(self):
        path = self.script("""
            import collections, datetime, decimal, functools, multiprocessing, os, pickle, enum
            from multiprocessing.reduction import ForkingPickler
            class Plain:
                def __init__(self, *values): self.values = values; self.me = self
            class Slots:
                __slots__ = ("a", "b")
                def __init__(self): self.a = 1; self.b = [self]
            class Table(dict): pass
            class Colour(enum.Enum): RED = 1
            class New(tuple):
                def __new__(cls, a, *, b=2): return super().__new__(cls, (a, b))
                def __getnewargs_ex__(self): return (self[0],), {"b": self[1]}
            def set_state(value, state): value.state = state
            class Setter:
                def __reduce__(self): return Setter, (), {"a": ["b"]}, None, None, set_state
            class Loop:
                def __init__(self): self.inside = [self]
                def __reduce__(self): return make_loop, (self.inside,)
            def make_loop(inside): return Loop()
            Point = collections.namedtuple("Point", "x y")
            class State:
                def __getstate__(self): return (1, {"x": "y"})
                def __setstate__(self, state): pass
            class Stock(pickle.Pickler):
                def __init__(self, *args):
                    super().__init__(*args)
                    self.dispatch_table = ForkingPickler(*args).dispatch_table
            loop = []; loop.append((loop,))
            recursive = ([],); recursive[0].append(recursive)
            shared = ["s" * 40] * 3
            table = Table(a=1); table.extra = [1]
            CORPUS = [None, True, 0, 255, 256, 65536, -1, 1 << 40, -(1 << 3000), 1.5, "", "é" *
                300, "x" * 70000, b"", b"b" * 300, b"c" * 200000, bytearray(b"abc"), (), (1,), (1,
                2), (1, 2, 3), (1, 2, 3, 4), list(range(3000)), [[[]], [1], ["x"]], {}, {"k": 1},
                {i: str(i) for i in range(3000)}, set(), {1, 2, 3}, frozenset({1, 2}),
                [frozenset()], Setter(), [Setter(), Setter()], Loop(), [Loop(), Loop()], Plain(1,
                shared, shared), Slots(), [Slots(), Slots()], table, Colour.RED, [Colour.RED] * 3,
                New(5), Point(1, 2), State(), loop, recursive, Ellipsis, NotImplemented,
                type(None), int, len, os.path.join, functools.partial(print, 1, sep=""),
                [1].append, "x".upper, datetime.datetime(2026, 1, 2), decimal.Decimal("1.5"),
                collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]),
                collections.Counter("abc"), collections.deque([1, 2]), ValueError("x"), complex(1,
                2), range(5), slice(1, 2), Plain.__init__, {"deep": {"deep": {"deep": [({"deep":
                ({"x"},)},)]}}}, [Plain(i) for i in range(2000)], tuple(range(3000)), {f"k{i}": i
                for i in range(1500)}, [("a", i) for i in range(30000)]]
            if __name__ == "__main__":
                import io, threading
                one, other = multiprocessing.Pipe()
                total = 0
                for value in CORPUS:
                    file = io.BytesIO()
                    Stock(file).dump(value)
                    sender = threading.Thread(target=one.send, args=(value,))
                    sender.start()
                    sent = other.recv_bytes()
                    sender.join()
                    assert sent == file.getvalue(), repr(value)[:80]
                    total += len(sent)
                print(len(CORPUS), total)
        """)
        run, output = self.report(path)  # which checks, too, that every one was looked into
        row = self.channel(run, "Pipe send")
        self.assertEqual(f"{row['messages']} {row['bytes']}\n", output)

    def test_python_files_are_not_left_behind(self):
        before = set(glob.glob(f"{PICKLED}/**", recursive=True))
        environment = self.environment(PYTHON=sys.executable)
        del environment["PYTHONDONTWRITEBYTECODE"]
        subprocess.run([os.path.join(PICKLED, "../../../../tools/pickled"), self.script("import multiprocessing.pool")],
                       env=environment, check=True, capture_output=True)
        self.assertEqual(set(glob.glob(f"{PICKLED}/**", recursive=True)), before)


class EndTest(ScriptTest):
    """Ends that are not peaceful."""

    def test_killed_children_leave_what_they_sent(self):
        path = self.script("""
            import multiprocessing, os, signal, time
            def work(end, how):
                end.send(how)
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            if __name__ == "__main__":
                for method in ("fork", "spawn", "forkserver"):
                    for how in ("kill", "terminate"):
                        context = multiprocessing.get_context(method)
                        mine, theirs = context.Pipe()
                        process = context.Process(target=work, args=(theirs, how))
                        process.start()
                        assert mine.recv() == how
                        if how == "terminate":
                            process.terminate()
                        process.join()
                        assert process.exitcode == (-9 if how == "kill" else -15)
        """)
        run, _ = self.report(path)
        sent = [row for row in run["paths"] if row["transfer"] == "Pipe send"]
        self.assertEqual(sum(row["objects"] for row in sent), 6)
        self.assertEqual(run["processes_started"], {method: 2 for method in METHODS})

    def check_signal(self, number, whole_group):
        path = self.script("""
            import fcntl, multiprocessing, struct, termios, time
            def work(queue):
                for _ in range(4):
                    queue.put([1, 2, 3])
                queue.put("x" * 200000)  # more than a pipe holds
            def waiting(queue):
                return struct.unpack("i", fcntl.ioctl(queue._reader, termios.FIONREAD, b"four"))[0]
            if __name__ == "__main__":
                queue = multiprocessing.Queue()
                process = multiprocessing.Process(target=work, args=(queue,), daemon=True)
                process.start()
                queue.get()
                while waiting(queue) < 60000:
                    time.sleep(0.01)
                print("ready", flush=True)
                process.join()
        """)
        report = os.path.join(self.folder, "report.txt")
        process = subprocess.Popen([sys.executable, PICKLED, "-o", report, path], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   start_new_session=True, env=self.environment())
        self.assertEqual(process.stdout.readline(), "ready\n")
        for _ in range(2):  # as timeout(1) does
            (os.killpg if whole_group else os.kill)(process.pid, number)
        process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the worker
        process.stdout.close()
        output = pathlib.Path(report).read_text(encoding="utf-8")
        self.assertIn("list → int", output)
        self.assertIn("\n  Put and never taken: 4 of 5 messages, Queue at script.py:", output)
        self.assertEqual(process.returncode, 128 + number)

    def test_control_c_still_prints(self):
        self.check_signal(signal.SIGINT, whole_group=True)

    def test_sigterm_is_passed_on(self):
        self.check_signal(signal.SIGTERM, whole_group=False)

    def test_a_signal_handler_may_send(self):
        path = self.script("""
            import multiprocessing, signal, time
            if __name__ == "__main__":
                queue = multiprocessing.SimpleQueue()
                ticks = multiprocessing.SimpleQueue()
                sent = 0
                def tick(*_):
                    global sent
                    ticks.put((sent, [sent]))
                    sent += 1
                    if sent < 200:
                        signal.setitimer(signal.ITIMER_REAL, 0.0005)
                signal.signal(signal.SIGALRM, tick)
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                count = 0
                while sent < 200:
                    queue.put({"a": [count] * 20})
                    queue.get()
                    count += 1
                print(count)
        """)
        run, output = self.report(path)
        messages = sorted(row["messages"] for row in run["channels"])
        self.assertEqual(messages, sorted([200, int(output)]))


class CommandTest(ScriptTest):
    """The command line."""

    def test_missing_script(self):
        done = self.run_tool("no-such-script.py", expected=127)
        self.assertEqual(done.stderr,
                         "pickled: cannot run 'no-such-script.py': there is no such file\n")

    def test_bad_usage(self):
        for arguments in ((), ("--start-method", "sporn", "x"), ("--top", "-1", "x"),
                          ("--wrong", "x"), ("-o", "", "x"), ("-o", "/no/such/folder/x", PICKLED)):
            done = self.run_tool(*arguments, expected=125)
            self.assertTrue(done.stderr.startswith("pickled: "), done.stderr)

    def test_help_and_version(self):
        self.assertIn("type path", self.run_tool("--help").stdout)
        self.assertRegex(self.run_tool("--version").stdout, r"^pickled \d+\.\d+\.\d+\n$")

    def test_all_methods_side_by_side(self):
        path = self.script("""
            import multiprocessing, sys
            def work(data): pass
            if __name__ == "__main__":
                process = multiprocessing.Process(target=work, args=(["word"] * 5,))
                process.start()
                process.join()
                method = multiprocessing.get_start_method()
                sys.exit({"fork": 2, "spawn": 5, "forkserver": 1}[method])
        """)
        done = self.run_tool("--start-method", "all", path, expected=5)
        lines = done.stdout.splitlines()
        self.assertTrue(any(line.split() == ["FORK", "SPAWN", "FORKSERVER", "TRANSFER", "CHANNEL"]
                            for line in lines), lines)
        start = next(line for line in lines if line.strip().startswith("nothing"))
        self.assertRegex(start, r"nothing +2 x, [\d.]+ \w+ +2 x, [\d.]+ \w+ +Process start")
        row = next(line for line in lines if line.endswith("args[0] → list"))
        self.assertRegex(row.strip(), r"^- +(\d+ B) +\1 +1 ")
        done = self.run_tool("--json", "--start-method", "all", path, expected=5)
        report = json.loads(done.stdout)
        self.assertEqual([(run["start_method"], run["exit_status"]) for run in report["runs"]],
                         [("fork", 2), ("spawn", 5), ("forkserver", 1)])

    def test_top_and_plain_output(self):
        path = self.script("""
            import multiprocessing
            one, other = multiprocessing.Pipe()
            one.send([1, "x", 2.5, b"y", None, True, (1, 2)])
        """)
        done = self.run_tool("--top", "2", path)
        self.assertIn("... and 7 more, all smaller (--top 0 prints all)", done.stdout)
        self.assertNotIn("\033", done.stdout)
        self.assertNotIn("more, all smaller", self.run_tool("--top", "0", path).stdout)

    def test_nothing_pickled(self):
        self.assertIn("Nothing was pickled.", self.run_tool(self.script("print('x')")).stdout)


class MeasureTest(unittest.TestCase):
    """The reader of pickles, on streams of its own."""

    def measure(self, value, protocol=4, streams=runpy.run_path(os.path.join(PICKLED, "streams.py"))):
        objects, file = [], io.BytesIO()
        pickler = type("Pickler", (pickle.Pickler,), {})(file, protocol)
        pickler.persistent_id = objects.append
        pickler.dump(value)
        return streams["measure"](file.getvalue(), objects, None), len(file.getvalue())

    def test_bytes_of_a_part_are_those_that_the_whole_lacks_without_it(self):
        whole, size = self.measure(["x" * 1000, {"k": 1.5}])
        without, smaller = self.measure(["x" * 1000])
        part = whole.kids["", "dict"]
        # One APPENDS with its MARK in place of one APPEND.
        self.assertEqual(part.bytes(), size - smaller - 1)
        self.assertEqual(whole.bytes(), size)
        self.assertEqual(without.kids["", "str"].bytes(), 1000 + 6)

    def test_objects_are_known_by_their_type(self):
        tree, _ = self.measure([collections.deque([1]), 1 + 2j])
        self.assertEqual({label for _, label in tree.kids}, {"deque", "complex"})

    def test_random_graphs_to_the_byte(self):
        namespace = type(sys.implementation)
        for seed in range(3000):
            random = Random(seed)
            made = []

            def make(depth=0):
                if made and random.random() < 0.2:
                    return random.choice(made)  # shared, or a cycle
                some = lambda: [make(depth + 1) for _ in range(random.randrange(5))]
                if depth > 4 or random.random() < 0.3:
                    return random.choice((None, 1, 70000, -5, 1 << 70, 0.5, "", "text" * 90, b"b",
                                          (), frozenset(), len, int, 1j, bytearray(b"x"),
                                          ValueError("x"), range(3)))
                kind = random.randrange(6)
                if kind == 0:
                    value = []
                    made.append(value)
                    value.extend(some())
                elif kind == 1:
                    value = {}
                    made.append(value)
                    value.update(enumerate(some()))
                elif kind == 2:
                    value = namespace()
                    made.append(value)
                    value.__dict__.update((f"a{i}", item) for i, item in enumerate(some()))
                else:
                    value = (tuple, collections.deque, lambda items: frozenset(
                        range(len(items))))[kind - 3](some())
                    made.append(value)
                return value

            value = make()
            with self.subTest(seed=seed):
                tree, size = self.measure(value, 4 + seed % 2)
                self.assertEqual(tree.bytes(), size)


if __name__ == "__main__":
    unittest.main()
