"""Tests `cowshed run`: programs that nobody edits, with it and without."""

import contextlib
import os
import pathlib
import py_compile
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest

import cowshed

PACKAGES = os.path.dirname(cowshed.__path__[0])
IN_PLACE = not cowshed._cowshed.why_not_in_place()
# Of a program that measures what reading costs.
READING = """
    import gc, multiprocessing, os, sys
    def own(name="Private_Dirty"):
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(name)) >> 10
    def read(items):
        before = own()
        total = sum(item["v"][0] for item in items)
        return total, own() - before
    def load(count): return [{"v": [number, str(number)]} for number in range(count)]
"""
# How tools' sitecustomize modules hand on to the one that they hide.
TOOLS = {
    "ddtrace": """
        sys.path.remove(here)
        itself = sys.modules.pop("sitecustomize")
        try:
            import sitecustomize
        except ImportError:
            sys.modules["sitecustomize"] = itself
        sys.path.insert(0, here)
        """,
    "newrelic": """
        from importlib.machinery import PathFinder
        if spec := PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != here]):
            spec.loader.load_module("sitecustomize")
        """,
    "apm": """
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec
        if spec := PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != here]):
            spec.loader.exec_module(module_from_spec(spec))
        """,
    "opentelemetry": "",
}
FREEZE_ONLY = [] if IN_PLACE else ["--no-undo"]
FROZE = "froze " if IN_PLACE else "not frozen in place: Python 3.11"


class Runner(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        pathlib.Path(self.folder, name).write_text(textwrap.dedent(text))

    def copy_packages(self, *left_out):
        packages = os.path.join(self.folder, "packages")
        shutil.copytree(PACKAGES, packages, ignore=shutil.ignore_patterns(*left_out))
        return packages

    def freezing_and_failing(self):
        """Options and environment of `cowshed run`, and of one that has no build for this Python."""
        site = os.path.join(self.copy_packages("*.so"), "cowshed/run/site")
        return (["--above", "0"], {}), (None, {"PYTHONPATH": site, "COWSHED_ABOVE": "0"})

    def below(self, options, command, packages=PACKAGES):
        return [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {packages!r}); from cowshed.run import "
                "command; sys.exit(command.main(sys.argv[1:]))", *FREEZE_ONLY, *options, "--", *command]

    def run_it(self, command, options=(), expected=0, packages=PACKAGES, stderr=subprocess.PIPE, **environment):
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if options is not None:
            command = self.below(options, command, packages)
        done = subprocess.run(command, cwd=self.folder, timeout=300, stdout=subprocess.PIPE, stderr=stderr, text=True,
                              env={**clean, **environment})
        if expected is not None:
            self.assertEqual(done.returncode, expected, (done.stdout, done.stderr))
        return done

    def run_program(self, text, *options, plain=False, **more):
        self.write("program.py", text)
        return self.run_it([sys.executable, "program.py"], None if plain else options, **more)

    def assert_log(self, done, *texts):
        """The lines that cowshed wrote."""
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), len(texts), done.stderr)
        for line, text in zip(lines, texts):
            self.assertRegex(line, f"^cowshed: PID [0-9]+:? {text}")


class RunTest(Runner):
    def test_workers_share(self):
        program = READING + """
    data = load(100_000)
    def work(_): return read(data)
    if __name__ == "__main__":
        with multiprocessing.get_context("fork").Pool(1) as pool: print(*pool.map(work, [0])[0])
    """
        plain, ours = (self.run_program(program, "--above", "1MiB", plain=plain) for plain in (True, False))
        self.assert_log(plain)
        self.assert_log(ours, FROZE)
        (total, copied), (same, remaining) = (map(int, each.stdout.split()) for each in (plain, ours))
        self.assertEqual(total, same)
        if IN_PLACE:
            self.assertLessEqual(remaining, max(1, copied / 20))

    def test_settles_if_asked_to(self):
        program = READING + """
    import threading
    data = load(100_000)
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    if len(sys.argv) > 1: thread.start()
    if os.fork() == 0:
        print(read(data)[0], "cowshed-settled" in open("/proc/self/maps").read())
        sys.stdout.flush(); os._exit(0)
    os.wait()
    """
        self.write("program.py", program)
        settled = [FROZE, "settled [1-9].* MiB in "]
        not_settled = [FROZE, "settle: other threads may write"]
        for options, environment, argument, log, said in (
                (["--settle"], {}, [], settled, "4999950000 True\n"),
                ([], {"COWSHED_SETTLE": "1"}, [], settled, "4999950000 True\n"),
                ([], {}, [], [FROZE], "4999950000 False\n"),
                (["--settle"], {"COWSHED": "gc"}, [], ["not frozen in place: ", "settled "], "4999950000 True\n"),
                (["--settle"], {"PYTHONWARNINGS": "ignore"}, ["thread"], not_settled, "4999950000 False\n")):
            done = self.run_it([sys.executable, "program.py", *argument], ["--above", "1MiB", *options], **environment)
            self.assert_log(done, *log)
            self.assertEqual(done.stdout, said)
        done = self.run_it([sys.executable, "program.py"], ["--settle"], COWSHED="off")
        self.assertEqual((done.stdout, done.stderr), ("4999950000 False\n", ""))

    def test_preloaded_in_the_standard_forkserver(self):
        self.write("data.py", READING + """
    items, loads = [], []
    def load_all(): items.extend(load(100_000)); loads.append(os.getpid())
    def work(_): return *read(items), len(loads), loads[0] == os.getppid()
    """)
        done = self.run_program("""
            import multiprocessing, data
            if __name__ == "__main__":
                with multiprocessing.get_context("forkserver").Pool(1) as pool: print(*pool.map(data.work, [0])[0])
            """, "--preload", "data:load_all,missing,os:no_function", "--above", "1MiB")
        self.assert_log(done, "cannot preload missing: ModuleNotFoundError", "cannot preload os: AttributeError",
                        FROZE)
        total, copied, loads, is_parent = done.stdout.split()
        self.assertEqual((total, loads, is_parent), ("4999950000", "1", "True"))
        if IN_PLACE:
            self.assertLessEqual(int(copied), 1)

    @unittest.skipUnless(os.path.exists("/usr/lib/python3/dist-packages/prometheus_client"), "needs python3-prometheus-client")
    def test_any_process_reports_the_copies_of_all_workers(self):
        for name in ("prometheus_client", "decorator.py"):
            os.symlink(f"/usr/lib/python3/dist-packages/{name}", os.path.join(self.folder, name))
        program = READING + """
    import subprocess, time
    import prometheus_client
    import cowshed.prometheus
    def gauges():
        lines = prometheus_client.generate_latest().decode().splitlines()
        return dict(line.split() for line in lines if line.startswith("cowshed_"))
    data = load(100_000)
    frozen = cowshed.freeze()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    receiver, sender = multiprocessing.Pipe(False)
    pids = []
    for number in range(3):
        if (pid := os.fork()) == 0:
            if number == 1:
                for item in data: item["v"].append(0.5)
            sender.send(None if number < 2 else gauges())
            time.sleep(9)
            os._exit(0)
        pids.append(pid)
        got = receiver.recv()
    for each in (got, gauges()):
        assert int(float(each.pop("cowshed_frozen_objects"))) == frozen.objects, each
        assert int(float(each.pop("cowshed_frozen_bytes"))) == frozen.bytes, each
        saved = float(each.pop("cowshed_collection_saved_seconds"))
        assert abs(saved - (frozen.pause_before - frozen.pause_after)) < 1e-6 and saved > 0, each
        copied = [float(each.pop(f'cowshed_copied_bytes{{pid="{pid}"}}')) / 2**20 for pid in pids]
        assert not each and copied[0] < 3 and copied[1] > 5 and copied[2] < 3, (each, copied)
    for pid in pids: os.kill(pid, 9)
    other.communicate(b"\\n")
    """
        self.run_program(program, plain=True, PYTHONPATH=f"{PACKAGES}:{self.folder}")

    def test_what_is_small_or_never_forks_stays_as_it_is(self):
        self.write("child.py", "import sys; print(*sorted(sys.modules), sys.path)")
        for command in (["child.py"], ["-c", "import os; os.fork() or os._exit(0); os.wait(); import child"]):
            plain, ours = (self.run_it([sys.executable, *command], options) for options in (None, []))
            self.assertEqual((plain.stdout, plain.stderr), (ours.stdout, ours.stderr))

    def test_off_is_as_without(self):
        look = """
            import collections, gc, sys
            gc.collect(), gc.collect()  # Python 3.14 untracks some tuples in the second
            kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
            print(sorted(kinds.items()), sorted(sys.modules), sys.path, len(sys.meta_path), sorted(sys.path_importer_cache))
            """
        py_compile.compile(os.path.join(cowshed.__path__[0], "run/site/sitecustomize.py"))
        plain = self.run_program(look, plain=True)
        for command, environment in ((["sh", "-c", f"COWSHED=off {sys.executable} program.py"], {}),
                                     ([sys.executable, "program.py"], {"COWSHED": "off"})):
            self.assertEqual(self.run_it(command, **environment).stdout, plain.stdout)

    def test_huge_pages_for_each_malloc_leave_what_the_caller_sets(self):
        look = """
            import ctypes, os
            print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0), *(os.environ.get(name) for name in
                  ("GLIBC_TUNABLES", "MALLOC_CONF", "MIMALLOC_ALLOW_LARGE_OS_PAGES", "PYTHONMALLOC")))
            """
        theirs = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "MALLOC_CONF": "narenas:2"}
        for options, off, glibc, jemalloc, others in (
                (["--no-huge-pages"], 1, "", "", "None None"),
                (["--huge-pages"], 0, "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432:", "thp:always,", "1 malloc")):
            self.assertEqual(self.run_program(look, *options, **theirs).stdout.strip(),
                             f"{off} {glibc}glibc.malloc.hugetlb=0 {jemalloc}narenas:2 {others}")

    def test_equal_pages_may_be_merged_in_all_that_it_starts(self):
        done = self.run_it(["sh", "-c", "cat /proc/self/ksm_stat"], ["--merge"])
        if "takes Linux 6.4" in done.stderr:
            self.skipTest("this kernel has no PR_SET_MEMORY_MERGE")
        runs = pathlib.Path("/sys/kernel/mm/ksm/run").read_text() == "1\n"
        self.assertEqual("KSM does not run" in done.stderr, not runs)
        if "ksm_merge_any" in done.stdout:  # since Linux 6.13
            self.assertIn("ksm_merge_any: yes", done.stdout)

    def test_each_sitecustomize_runs_once_and_in_its_order(self):
        """Also those of tools whose wrappers put a folder first on PYTHONPATH, inside ours and around it."""
        self.write("program.py", """
            import sys
            print(sys.path, getattr(sys.modules.get("sitecustomize"), "__file__", None), sorted(sys.modules))
            """)
        folders = {}
        for name, hand_on in TOOLS.items():
            folders[name] = os.path.join(self.folder, name)
            os.mkdir(folders[name])
            self.write(f"{name}/sitecustomize.py", f"""
                import os, sys
                print("{name} starts")
                here = os.path.dirname(os.path.abspath(__file__))
                {textwrap.indent(textwrap.dedent(hand_on), " " * 16).strip()}
                print("{name} is ready", sys.modules["sitecustomize"].__file__)
                """)
        own = os.path.join(self.folder, "own")
        os.mkdir(own)

        def run_below(outer, inner, plain):
            """`inner` starts below ours, and `outer` around it."""
            set_path = "".join(f"PYTHONPATH={folders[each]}:$PYTHONPATH; " for each in inner)
            done = self.run_it(["sh", "-c", f"{set_path}exec {sys.executable} program.py"], None if plain else (), None,
                               PYTHONPATH=":".join([*(folders[each] for each in outer), own]))
            ours = r'  File ".*/cowshed/run/site/sitecustomize.py", .*\n    .*\n(    [ ~^]*\n)?'
            return done.returncode, done.stdout, re.sub(ours, "", done.stderr)

        orders = [([], []), (["opentelemetry"], []), (["ddtrace"], ["apm"]), ([], ["apm", "ddtrace"])]
        orders += [order for name in ("ddtrace", "newrelic", "apm") for order in (([name], []), ([], [name]))]
        if sys.version_info >= (3, 15):  # no load_module()
            orders = [order for order in orders if "newrelic" not in (*order[0], *order[1])]
        for text in (None, "print('its own', __name__, sys.modules['sitecustomize'].__file__)",
                     "sys.path.insert(0, '/x')", "raise ValueError('its own')", "import nothing_there",
                     "raise SystemExit(3)"):
            if text:
                self.write("own/sitecustomize.py", f"import sys; {text}")
            for outer, inner in orders:
                with self.subTest(own=text, outer=outer, inner=inner):
                    self.assertEqual(run_below(outer, inner, True), run_below(outer, inner, False))

    def test_statuses_pass_through(self):
        for command, status in ((["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -9 $$"], -9), (["/nothing"], 127),
                                (["sh", "-c", "kill -PIPE $$"], -13), (["sh", "-c", "kill -XFSZ $$"], -25),
                                ([self.folder], 126)):
            self.run_it(command, expected=status)
        self.run_it([], expected=2)
        self.run_it(["true"], ["--above", "much"], expected=2)
        self.run_it(["true"], expected=2, COWSHED="on")

    def test_forks_that_make_no_worker(self):
        """They are not frozen for: what follows has its own line if it is."""
        for text in ("if os.fork(): os._exit(0)", "pid = os.fork()\nif pid > 0: sys.exit(0)",
                     "if os.fork() == 0: os.setsid()\nelse: os._exit(0)",
                     "pid = os.fork()\nif not pid: os.execvp('true', ['true'])\nos.wait()",
                     "pty.spawn(['true'])", "subprocess.run(['true'], preexec_fn=os.getpid)"):
            program = f"import os, pty, subprocess, sys\n{text}"
            self.assert_log(self.run_program(program, "--above", "0"))
            inside = "def work():\n" + textwrap.indent(text, "    ") + "\nwork()"
            self.assert_log(self.run_program(f"import os, pty, subprocess, sys\n{inside}", "--above", "0"))
        for text in ("pid = os.fork()\nif pid == 0: os._exit(0)\nos.wait()",
                     "if pid := os.fork(): os.wait()\nelse: os._exit(0)",
                     "if not os.fork():\n    print(end='')\n    os._exit(0)\nos.wait()",
                     # No code of Python's calls this one.
                     "import _thread, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])\n"
                     "_thread.start_new_thread(os.fork, ())\nsignal.sigwait([signal.SIGCHLD])\nos.wait()"):
            self.assert_log(self.run_program(f"import os\n{text}", "--above", "0"), FROZE)

    def assert_each_end(self, program, said):
        for end in ("sys.exit", "cowshed.end_process"):
            done = self.run_program(program.replace("END", end), plain=True, PYTHONPATH=PACKAGES)
            self.assertEqual(done.stdout, said, end)

    def test_a_worker_that_we_end_flushes_what_a_plain_one_does(self):
        """Also what a native library buffers."""
        program = """
    import cowshed, ctypes, os, sys
    c = ctypes.CDLL(None)
    c.fopen.restype, c.fputs.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_void_p)
    cowshed.freeze()
    if os.fork() == 0:
        c.fputs(b"answered", c.fopen(b"native", b"w")); kept = [open("python", "w")]; kept[0].write("answered")
        END(3)
    print(os.waitstatus_to_exitcode(os.wait()[1]), open("native").read(), open("python").read())
    """
        self.assert_each_end(program, "3 answered answered\n")

    def test_a_worker_that_we_end_handles_no_signal_while_it_finalises(self):
        program = """
    import cowshed, os, signal, sys
    class Late:
        def __del__(self): os.kill(os.getpid(), signal.SIGTERM)
    cowshed.freeze()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
        kept = Late()
        END(3)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    """
        self.assert_each_end(program, "-15\n")

    def test_what_signal_handlers_raise_comes_out_of_the_fork(self):
        """Whatever they interrupt.  There is another thread, which may take the signal."""
        self.write("alarm.py", """
            import signal
            def ring(kept=[]):
                if not kept:
                    kept.append(1)
                    signal.raise_signal(signal.SIGALRM)
            """)
        done = self.run_program("""
            import os, signal, threading, time
            raised = []
            def handle(*_): raise (SystemExit, TimeoutError)[len(raised) % 2]
            signal.signal(signal.SIGALRM, handle)
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            kept = []
            for number in range(30):
                kept.append([[each, str(each)] for each in range(10_000)])
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.001 + number * 0.01)
                    if os.fork() == 0: os._exit(0)
                    os.wait()
                    time.sleep(9)
                except (SystemExit, TimeoutError) as error:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    raised.append(error)
            print(len(raised))
            """, "--above", "0", "--every-fork", "--preload", "alarm:ring", PYTHONWARNINGS="ignore")
        self.assertEqual(done.stdout, "30\n")
        for line in done.stderr.splitlines():
            self.assertRegex(line, f"^cowshed: PID [0-9]+: {FROZE}")

    def test_a_fork_looks_as_without(self):
        self.write("program.py", """
            import copy, inspect, os, pickle, posix, threading
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            class Parent: fork = os.fork
            for fork in os.fork, Parent().fork, lambda: os.forkpty()[0]:
                if fork() == 0: os._exit(0)
                os.wait()
            print(os.fork, os.fork.__name__, os.fork.__doc__, inspect.signature(os.forkpty))
            print([copy.copy(each) is pickle.loads(pickle.dumps(each)) is posix.fork for each in (os.fork,)])
            try: os.fork(1)
            except TypeError as error: print(error)
            """)
        plain, ours = (self.run_it([sys.executable, "program.py"], options, COWSHED_LOG="none")
                       for options in (None, ["--above", "0"]))
        warnings = [re.sub(r"pid=\d+", "", each.stderr) for each in (plain, ours)]
        self.assertEqual((plain.stdout, warnings[0]), (ours.stdout, warnings[1]))

    def test_the_line_is_written_while_no_signal_is_blocked(self):
        self.write("signals.py", "import os, signal\ndef send(): os.kill(os.getpid(), signal.SIGTERM)")
        done = self.run_program("import os\nos.fork() or os._exit(0)", "--above", "0", "--preload", "signals:send",
                                expected=-15)
        self.assert_log(done)

    def test_signals_below_two_installations(self):
        self.write("program.py", """
            import os
            os.fork() or os._exit(0)
            print(*[line for line in open("/proc/self/status") if line.startswith("SigBlk")])
            """)
        command = [sys.executable, "program.py"]
        options = ["--above", "0"]
        plain = self.run_it(command, None)
        ours = self.run_it(self.below(options, command), options, packages=self.copy_packages())
        self.assertEqual(plain.stdout, ours.stdout)

    def test_the_line_is_dropped_where_it_would_wait(self):
        self.write("program.py", "import os\nif os.fork() == 0: os._exit(0)\nos.wait(); print('end')")
        os.mkfifo(os.path.join(self.folder, "fifo"))
        log = os.path.join(self.folder, "full_fifo")
        os.mkfifo(log)
        pipe, closed, terminal = os.pipe(), os.pipe(), os.openpty()
        os.close(closed[0])
        sockets = socket.socketpair()
        for each in sockets:
            self.addCleanup(each.close)
        full = [pipe[1], terminal[1], sockets[0].fileno(), os.open(log, os.O_RDWR)]
        for file in full:
            os.set_blocking(file, False)
            for size in 65536, 1:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(file, b"x" * size)
            os.set_blocking(file, True)
        no_space = os.open("/dev/full", os.O_WRONLY)
        for options, environment in self.freezing_and_failing():
            for stderr in *full[:3], closed[1], no_space:
                done = self.run_it([sys.executable, "program.py"], options, stderr=stderr, **environment)
                self.assertEqual(done.stdout, "end\n")
                self.assertTrue(os.get_blocking(stderr))
            for log in "fifo", "full_fifo", "/dev/full", ".", "no/folder":
                done = self.run_it([sys.executable, "program.py"], options, COWSHED_LOG=log, **environment)
                self.assertEqual(done.stdout, "end\n")
                self.assert_log(done)

    def test_the_line_is_dropped_where_a_file_may_not_grow_by_it(self):
        self.write("program.py", """
            import os, resource, signal
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
            if os.fork() == 0: os._exit(0)
            os.wait()
            """)
        for options, environment in self.freezing_and_failing():
            for log in {}, {"COWSHED_LOG": "log"}:
                with open(os.path.join(self.folder, "log"), "w+") as file:
                    self.run_it([sys.executable, "program.py"], options, stderr=file, **environment, **log)
                    self.assertEqual(file.read(), "")

    def test_no_line_in_another_file_that_has_the_descriptor(self):
        """As of a daemon that has closed its standard streams, or that began without them."""
        self.write("program.py", """
            import os, sys
            for descriptor in range(3):
                if len(sys.argv) == 1: os.close(descriptor)
            for name in "in", "out", "data":
                last = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                if last == 2: break
            os.write(2, b"1234")
            if os.fork() == 0: os._exit(0)
            os.wait()
            os.write(2, b"5678")
            os._exit(0)
            """)
        for options, environment in self.freezing_and_failing():
            for command in f"{sys.executable} program.py", f"{sys.executable} program.py begins 2>&-":
                self.run_it(["sh", "-c", command], options, **environment)
                data = "data" if "begins" not in command else "in"
                self.assertEqual(pathlib.Path(self.folder, data).read_text(), "12345678")

    def test_hooks_that_lock_before_a_fork(self):
        """As of logging.  Preloading and finalisers may need the locks."""
        self.write("locks.py", """
            import logging, os, threading
            from concurrent.futures import thread
            os.register_at_fork(before=lambda: print("before"), after_in_parent=lambda: print("after"))
            def use(): thread.ThreadPoolExecutor().submit(int).result()
            """)
        done = self.run_program("""
            import concurrent.futures.thread, os, threading
            lock = threading.Lock()
            os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
            class Final:
                def __del__(self):
                    with lock: print("died")
            final = Final(); final.me = final; del final
            for _ in range(2):
                os.fork() or os._exit(0)
                os.wait()
            """, "--above", "0", "--preload", "locks:use", PYTHONWARNINGS="ignore")
        self.assert_log(done, FROZE, FROZE)
        self.assertEqual(done.stdout, "died\n" + "before\nafter\n" * 2)

    def test_our_failures_are_a_line(self):
        """Here, of a Python for which there is no build."""
        packages = self.copy_packages("*.so")
        program = "import os\nfor _ in range(3):\n    if os.fork() == 0: os._exit(0)\n    os.wait()\nprint('goes on')"
        site = os.path.join(packages, "cowshed/run/site")
        self.write("program.py", program)
        command = [sys.executable, "program.py"]
        done = self.run_it(command, None, PYTHONPATH=site, COWSHED_ABOVE="0")
        self.assert_log(done, "stays as it is: cowshed was not built for this Python")
        self.assertEqual(done.stdout, "goes on\n")
        self.assert_log(self.run_it(command, None, PYTHONPATH=site, COWSHED_ABOVE="0", COWSHED_LOG="none"))
        done = self.run_it(command, ["--above", "0"], COWSHED_LOG="log")
        self.assert_log(done)
        self.assertRegex(pathlib.Path(self.folder, "log").read_text(), FROZE)
        cleared = self.run_program("import os\nos.environ.clear()\n" + program, "--above", "0")
        self.assertEqual(cleared.stdout, "goes on\n")
        self.assertNotIn("Exception", cleared.stderr)


class RunInPlaceTest(Runner):
    def test_a_parent_that_replaces_its_data_grows_by_one_version_of_it(self):
        program = READING + """
    base = load(100_000)
    data = load(30_000)  # some 10 MiB
    if "once" in sys.argv:
        import cowshed
        cowshed.freeze()
    receiver, sender = multiprocessing.Pipe(False)
    sizes, copied = [], []
    for number in range(FORKS):
        if os.fork() == 0:
            if number % 20 == 0: sender.send(read(base)[1])
            os._exit(0)
        if number % 20 == 0:
            copied.append(receiver.recv())
            sizes.append(own("Rss"))
        os.wait()
        data = load(30_000)
    print(max(sizes) - sizes[0], max(copied))
    """
        self.write("program.py", program.replace("FORKS", "1000" if os.environ.get("COWSHED_FULL") else "60"))
        command = [sys.executable, "program.py"]
        plain, ours, once = (self.run_it([*command, *word], options, PYTHONPATH=PACKAGES) for word, options in
                             (([], None), ([], ["--above", "4MiB"]), (["once"], None)))
        self.assert_log(ours, "froze ")
        (grown, unshared), (ours_grown, copied), (_, least) = (map(int, each.stdout.split())
                                                               for each in (plain, ours, once))
        print(f"grown by {ours_grown} MiB, without by {grown}; copied {copied}, once {least}, without {unshared}")
        self.assertLessEqual(ours_grown, grown + 13)  # the version, and what holds it
        self.assertGreaterEqual(unshared - copied, 0.9 * (unshared - least))

    def test_versions_that_become_larger_are_not_kept(self):
        program = READING + """
    if "numpy" in sys.argv:
        import numpy
        def load(count): return numpy.ones(count * 40)
    if "numbers" in sys.argv:
        def load(count): return [[*range(200)] for _ in range(count // 5)]
    data, base = None, own("Rss")
    for number in range(1, 11):
        data = None
        data = load(10_000 * number)
        if os.fork() == 0: os._exit(0)
        os.wait()
    print(own("Rss"), base)
    """
        self.write("program.py", program)
        for data in [], ["numpy"], ["numbers"]:
            (plain, base), (ours, _) = (map(int, self.run_it([sys.executable, "program.py", *data], options).stdout.split())
                                        for options in (None, ["--above", "2MiB"]))
            print(f"holds {ours} MiB, without {plain}")
            self.assertLessEqual(ours, plain + 1.5 * (plain - base))

    def test_a_supervisor_that_forks_for_each_task(self):
        """As Airflow's do.  Page faults count all that a task copies, also at its end."""
        program = READING + """
    data = load(600_000)
    def execute(number):
        print(number, read(data)[0], flush=True)
        return number % 3
    def start(number):
        if pid := os.fork(): return pid
        try:
            status = execute(number)
        except Exception:
            status = 9
        (os._exit if number % 2 else sys.exit)(status)
    faults = []
    for number in range(6):
        _, status, usage = os.wait4(start(number), 0)
        print("status", os.waitstatus_to_exitcode(status), flush=True)
        faults.append(usage.ru_minflt)
    print(*faults, file=sys.stderr)
    """
        plain, ours = (self.run_program(program, plain=plain) for plain in (True, False))
        self.assertEqual(plain.stdout, ours.stdout)
        most, copied = (max(map(int, each.stderr.splitlines()[-1].split())) for each in (plain, ours))
        print(f"a task has {copied} page faults, without cowshed run {most}")
        self.assertLess(copied, most / 20)

    def test_what_is_new_is_frozen_too(self):
        program = READING + """
    kept = []
    def main():
        for number in range(3):
            kept.append(load(60_000))
            garbage = load(1000)
            if os.fork() == 0:
                cowshed = sys.modules["cowshed"]
                print(cowshed.is_frozen(kept[-1]), cowshed.is_frozen(garbage), flush=True)
                os._exit(0)
            os.wait()
    main()
    """
        done = self.run_program(program, "--above", "8MiB")
        self.assertEqual(done.stdout.split(), "True True True False True False".split())
        self.assert_log(done, *["froze "] * 3)
        done = self.run_program(program, "--above", "8MiB", "--every-fork")
        self.assertEqual(done.stdout.split(), ["True"] * 6)


if __name__ == "__main__":
    unittest.main()
