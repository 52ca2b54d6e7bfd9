"""Tests freeze() where objects become immortal in place: Python 3.12 and later."""

import ctypes
import gc
import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import types
import unittest
import warnings
import zipfile

import cowshed
from children import run
from cowshed import _cowshed


def count_of(obj):
    return ctypes.c_uint64.from_address(id(obj)).value


HAS_NUMPY = importlib.util.find_spec("numpy") is not None


class FreezeTest(unittest.TestCase):
    def test_a_layout_that_is_not_as_known_is_refused(self):
        self.assertEqual(_cowshed.why_not_in_place(), "")
        for name, said in {"interned_strings": "interned strings", "cached_attributes": "cache of attributes",
                           "frozen_objects": "frozen objects", "pools": "list of pools"}.items():
            self.assertEqual(_cowshed.layout_fault_if(name, 0), "")
            for by in (-64, -48, -24, -16, -8, 8, 16, 24, 48, 64, 1 << 46):
                self.assertIn(f"{said} is elsewhere than in Python {cowshed.built_for}, for which cowshed was built",
                              _cowshed.layout_fault_if(name, by), by)
        self.assertIn("another value", _cowshed.layout_fault_if("immortal_count", 1 << 31))

    def test_a_warning_names_the_build_of_python_that_is_not_supported(self):
        for forged, said in (("sys._jit = types.SimpleNamespace(is_enabled=lambda: True)",
                              "Python's JIT compiler is enabled"),
                             ("sys.gettotalrefcount = int", "this is a debug build of Python")):
            done = run(f"""
                import gc, sys, types, warnings
                {forged}
                import cowshed
                with warnings.catch_warnings(record=True) as caught:
                    print(str(cowshed.freeze()).splitlines()[0], gc.get_freeze_count() > 1000)
                print(caught[0].message)
            """).splitlines()
            self.assertEqual(done, [f"not frozen in place: {said}; reading an object still writes to its reference "
                                    "count True", f"cowshed.freeze() cannot freeze in place: {said}.  Reading an object "
                                    "still writes to its reference count, which copies its page."])

    def test_a_free_threaded_build_cannot_import_it(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(os.path.dirname(cowshed.__file__), f"{folder}/cowshed",
                            ignore=shutil.ignore_patterns("*.so"))
            said = run("""
                import sys, sysconfig
                sys.path.insert(0, sys.argv[1])
                sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
                try:
                    import cowshed
                except ImportError as error:
                    print(error)
            """, folder)
        self.assertRegex(said, "^cowshed was not built for this Python: .*, a free-threaded build, which it does not "
                               "support; its folder has \n$")

    def test_the_command_ends_quietly_when_nobody_reads_it(self):
        end, other = os.pipe()
        os.close(end)
        command = [sys.executable, "-m", "cowshed"]
        done = subprocess.run(command, stdout=other, stderr=subprocess.PIPE, text=True)
        os.close(other)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, "cowshed: cannot write: No space left on device\n"))

    def test_reading_writes_nothing_to_the_counts(self):
        class Plain:
            def __init__(self, i):
                self.i, self.name = i, f"plain {i}"

        data = {"dict": {f"k{i}": [i, (i, str(i))] for i in range(100)}, "plain": [Plain(i) for i in range(10)],
                "set": {f"s{i}" for i in range(10)}, "text": "größe" * 3, "bytes": b"b" * 99, "float": 2.5 ** 9,
                "range": range(10 ** 9, 10 ** 9 + 2), "frozen": frozenset(("a1", "b2"))}
        cowshed.freeze()
        objects = [data, *data, *data.values(), *data["dict"], *data["dict"].values(), *data["plain"], *data["set"],
                   *(p.name for p in data["plain"]), *(vars(p) for p in data["plain"]), Plain, Plain.__init__,
                   Plain.__init__.__code__, data["range"].start]
        counts = [count_of(each) for each in objects]
        kept = [list(objects), tuple(objects), {id(each): each for each in objects}, vars(data["plain"][0])]
        self.assertEqual([each for each in kept[0] if not cowshed.is_frozen(each)], [])
        del kept
        self.assertEqual([count_of(each) for each in objects], counts)

    def test_extensions_of_an_old_stable_abi_count_in_their_way(self):
        shared = [f"shared {i}" for i in range(10)]
        cowshed.freeze()
        words = [ctypes.c_int64.from_address(id(each)) for each in [shared, *shared]]
        for references in (1, 1000, 1):  # the whole word, without a look at its value
            for word in words:
                word.value += references
            self.assertEqual(len([list(shared) for _ in range(10)]), 10)
            for word in words:
                word.value -= references
            self.assertTrue(all(map(cowshed.is_frozen, [shared, *shared])))
        for word in words:
            word.value += 1  # which is never given back
        copy = list(shared)
        del copy
        gc.collect()
        self.assertEqual(shared, [f"shared {i}" for i in range(10)])

    def test_what_is_made_later_lives_and_dies(self):
        cowshed.freeze()
        late = ["late"]
        self.assertFalse(cowshed.is_frozen(late))
        self.assertLess(sys.getrefcount(late), 3)

    def test_again_freezes_what_is_new(self):
        old = {"a": 1}  # untracked by the collector
        cowshed.freeze()
        old["b"] = "a new value " + str(time.time())
        new = [object() for _ in range(1000)]
        frozen = cowshed.freeze()
        self.assertTrue(1000 < frozen.objects < 3000, frozen)
        self.assertTrue(all(map(cowshed.is_frozen, [old["b"], *new])))

    def test_a_local_variable_that_the_collector_does_not_track(self):
        def inner():
            names = tuple(f"name {i}" for i in range(100))
            gc.collect()
            cowshed.freeze()
            return names

        self.assertTrue(all(map(cowshed.is_frozen, inner())))

    def test_a_tuple_that_is_being_made_can_be_finished(self):
        self.assertEqual(tuple(cowshed.freeze().in_place for _ in range(40)), (True,) * 40)
        self.assertEqual(len(frozenset((cowshed.freeze().in_place, i) for i in range(40))), 40)

    def test_keeps_what_it_shall_leave(self):
        cache = {f"key {i}": [f"value {i}"] for i in range(10)}
        shared = ["shared"]
        cache["shared"] = shared
        cowshed.freeze(keep=[cache])
        self.assertFalse(cowshed.is_frozen(cache))
        self.assertFalse(cowshed.is_frozen(cache["key 1"]))
        self.assertTrue(cowshed.is_frozen(shared))
        with self.assertRaises(TypeError):
            cowshed.freeze(keep=5)

    def test_a_list_of_a_million_links(self):
        head = None
        for _ in range(10 ** 6):
            head = (head,)
        self.assertGreater(cowshed.freeze().objects, 10 ** 6)

    def test_children_that_hash_copy_hardly_anything(self):
        said = run("""
            import datetime, decimal, os
            import cowshed
            class Plain: pass
            begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
            data = [each for i in range(20_000) for each in (
                begin + datetime.timedelta(minutes=i), (begin.date(), i), (decimal.Decimal(i), "EUR"), (Plain(), i),
                (frozenset((str(i),)), i), getattr(__builtins__, "frozendict", tuple)({str(i): (str(-i), i)}))]
            cowshed.freeze()
            if os.fork() == 0:
                for each in data: hash(each)
                os.write(1, str(cowshed.copied()).encode())
                os._exit(0)
            os.wait()
        """)
        self.assertLess(int(said), 1 << 20)

    @unittest.skipUnless(HAS_NUMPY, "NumPy is not installed")
    def test_what_arrays_hold(self):
        import numpy as np

        def texts(count=6):
            return [f"text {time.time()} {i}" for i in range(count)]

        def array():
            return np.array(texts(), dtype=object)

        pair = [("number", "i1"), ("text", "O"), ("more", [("texts", "O", (2, 2)), ("number", "f8")])]
        records = np.zeros(3, dtype=pair)
        records["text"], records["more"]["texts"] = texts(3), np.array(texts(12), dtype=object).reshape(3, 2, 2)
        nested = np.empty(2, dtype=object)
        nested[0], nested[1] = array(), [array()]
        arrays = {"plain": array(), "grid": array().reshape(2, 3), "fortran": np.asfortranarray(array().reshape(2, 3)),
                  "scalar": np.array(texts(1)[0], dtype=object), "nested": nested, "records": records,
                  "unset": np.empty(3, dtype=object), "none": np.empty((0, 3), dtype=object),
                  "views": [array()[4:1:-2], array().reshape(2, 3).T, np.broadcast_to(array(), (10 ** 9, 6)),
                            np.lib.stride_tricks.sliding_window_view(array(), 3), records["more"]["texts"][::2],
                            np.asarray(memoryview(array()))],
                  "masked": np.ma.array(array(), mask=[0, 1] * 3), "record": records[1], "copy": records[1].copy(),
                  "packed": np.array([(1, texts(1)[0])], dtype=[("a", "i1"), ("b", "O")]).view(np.recarray)}
        cowshed.freeze()
        held = [*arrays["plain"], *arrays["grid"].flat, *arrays["fortran"].flat, arrays["scalar"].item(), *nested[0],
                *nested[1][0], *records["text"], *records["more"]["texts"].flat, *arrays["masked"].data,
                *arrays["packed"].b, arrays["copy"]["text"], arrays["record"]["text"]]
        for view in arrays["views"]:
            held.extend(view[0].flat if view.ndim > 1 else view)
        self.assertEqual([each for each in held if not cowshed.is_frozen(each)], [])
        self.assertTrue(all(map(cowshed.is_frozen, arrays["views"])))
        arrays["plain"][0], records["text"][0] = texts(2)
        nested[1].append(texts(1)[0])
        cowshed.freeze()
        self.assertTrue(all(map(cowshed.is_frozen, [arrays["plain"][0], records["text"][0], nested[1][-1]])))

    @unittest.skipUnless(HAS_NUMPY, "NumPy is not installed")
    def test_keeps_what_an_array_holds(self):
        import numpy as np
        cache = np.empty(2, dtype=object)
        cache[0], cache[1] = [f"kept {time.time()}"], {}
        cowshed.freeze(keep=[cache])
        self.assertFalse(any(map(cowshed.is_frozen, [cache, *cache, *cache[0]])))

    @unittest.skipUnless(HAS_NUMPY, "NumPy is not installed")
    def test_what_is_out_of_reach_is_counted_and_can_be_registered(self):
        said = run("""
            import numpy, cowshed, sys
            def make(): return numpy.broadcast(numpy.array([f"text {i}" for i in range(9)], dtype=object))
            def element(each): return each.iters[0].base[1]
            hidden = [make(), make()]
            frozen = cowshed.freeze()
            print(frozen.left["numpy.broadcast"], cowshed.is_frozen(hidden), cowshed.is_frozen(element(hidden[0])))
            cowshed.register_children(numpy.broadcast, lambda each: [*each.iters, each])
            new = [make()]
            print(cowshed.freeze().left.get("numpy.broadcast"), cowshed.is_frozen(element(new[0])))
            cowshed.register_children(numpy.broadcast, lambda each: 5)
            sys.unraisablehook = lambda what: print(what.exc_type.__name__)
            print(cowshed.freeze().left["numpy.broadcast"])
        """)
        self.assertEqual(said, "2 True False\nNone True\nTypeError\n1\n")

    def test_wrong_arguments_are_refused(self):
        with self.assertRaisesRegex(ValueError, "'resolve' or 'leave'"):
            cowshed.freeze(lazy="no")
        for wrong in ((5, list), (list, 5)):
            with self.assertRaisesRegex(TypeError, "takes a class and a function"):
                cowshed.register_children(*wrong)

    def test_tracemalloc_is_warned_of(self):
        import tracemalloc
        tracemalloc.start()
        try:
            with self.assertWarnsRegex(RuntimeWarning, "tracemalloc"):
                cowshed.freeze()
        finally:
            tracemalloc.stop()


if hasattr(types, "LazyImportType"):  # from Python 3.15
    class LazyImportTest(unittest.TestCase):
        FILES = {
            "big.py": "lazy import package.inner.most\ndata = [f'text {i}' for i in range(300_000)]",
            "package/__init__.py": "", "package/inner/__init__.py": "", "package/inner/most.py": "here = 1",
            "broken.py": "raise SystemExit(5)",
            "program.py": """
                import os, sys, cowshed
                lazy import big
                lazy from json import dumps
                lazy import broken, no_such_module
                frozen = cowshed.freeze(lazy=sys.argv[1])
                print(frozen.resolved > 2, "resolved" in str(frozen), "no_such_module" in str(frozen))
                print(*sorted(frozen.unresolved), "big" in sys.modules, "package.inner.most" in sys.modules, flush=True)
                def private_mib():
                    with open("/proc/self/smaps_rollup") as file:
                        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) // 1024
                if os.fork() == 0:
                    before = private_mib()
                    sum(map(len, big.data))
                    print(private_mib() - before, flush=True)
                    os._exit(0)
                os.wait()
            """}

        def ended(self, lazy):
            with tempfile.TemporaryDirectory() as folder:
                for name, text in self.FILES.items():
                    os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
                    with open(f"{folder}/{name}", "w") as file:
                        file.write(textwrap.dedent(text))
                done = subprocess.run([sys.executable, f"{folder}/program.py", lazy], capture_output=True, text=True)
            self.assertEqual(done.stderr, "")
            return done.stdout.splitlines()

        def test_they_are_resolved(self):
            self.assertEqual(self.ended("resolve"), ["True True True", "broken no_such_module True True", "0"])

        def test_they_may_be_left(self):
            *left, private = self.ended("leave")
            self.assertEqual(left, ["False False False", "False False"])
            self.assertGreater(int(private), 20)


class EndTest(unittest.TestCase):
    def test_a_packed_file_is_whole(self):
        """Plain Python may lose its data."""
        for how in ("", "cowshed.end_process()"):
            with tempfile.TemporaryDirectory() as folder:
                run(f"""
                    import gzip, sys, zipfile, cowshed
                    file = gzip.open(sys.argv[1] + "/packed", "wt")
                    member = zipfile.ZipFile(sys.argv[1] + "/archive", "w").open("inner", "w")
                    cowshed.freeze()
                    file.write("after"); member.write(b"after"); {how}
                """, folder)
                with gzip.open(f"{folder}/packed", "rt") as file:
                    self.assertEqual(file.read(), "after", how)
                with zipfile.ZipFile(f"{folder}/archive") as archive:
                    self.assertEqual(archive.read("inner"), b"after", how)

    def test_end_process_gives_up_a_file_that_a_thread_waits_for(self):
        said = run("""
            import fcntl, os, termios, threading, time, cowshed
            end, other = os.pipe(); os.write(other, b"x"); file = os.fdopen(end)
            threading.Thread(target=file.read, daemon=True).start()
            while fcntl.ioctl(end, termios.FIONREAD, bytes(4)) != bytes(4): time.sleep(0.001)
            cowshed.freeze()
            print("end"); cowshed.end_process()
        """)
        self.assertEqual(said, "end\n")

    def test_a_freeze_while_a_freeze_loads_what_the_first_use_would(self):
        said = run("""
            import multiprocessing, sys, cowshed
            def hook(event, args):
                if event == "exec" and args[0].co_filename.endswith("popen_fork.py"): cowshed.freeze()
            sys.addaudithook(hook)
            cowshed.freeze()
            print("done")
        """)
        self.assertEqual(said, "done\n")

    def test_subinterpreters_go_on_and_are_refused(self):
        said = run("""
            import cowshed, os, threading
            try: import _interpreters as interpreters
            except ImportError: import _xxsubinterpreters as interpreters
            before = interpreters.create()
            code = "import json, collections; d = {str(i): [i] for i in range(2000)}; json.dumps(d)"
            interpreters.run_string(before, code)
            (ready, say_ready), (go, say_go) = os.pipe(), os.pipe()
            busy = f"import os\\ndef work(): os.write({say_ready}, b'r'); os.read({go}, 1)\\nwork()"
            thread = threading.Thread(target=interpreters.run_string, args=(before, busy))
            thread.start()
            os.read(ready, 1)
            cowshed.freeze()
            os.write(say_go, b"g")
            thread.join()
            interpreters.run_string(before, code)
            after = interpreters.create()
            interpreters.run_string(after, code)
            interpreters.run_string(after, "try: import cowshed\\nexcept ImportError as e: print(e, flush=True)")
            interpreters.destroy(before); interpreters.destroy(after)
            print("done")
        """)
        self.assertEqual(said, "cowshed works in the main interpreter only\ndone\n")


if __name__ == "__main__":
    with warnings.catch_warnings():
        unittest.main()
