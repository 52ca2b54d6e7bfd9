"""Tests the contexts whose forkserver loads the data: what it loads, and how it is renewed."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

import cowshed

# Of a program whose data is the text of the file "data", loaded by the forkserver.
PROGRAM = """
    import os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore")
    import cowshed
    from multiprocessing import resource_tracker
    DATA = None
    def load():
        global DATA
        with open("data") as file: DATA = file.read()
        if DATA == "broken": raise ValueError("the file\\nis broken")
        if DATA == "deadly": os.kill(os.getpid(), signal.SIGKILL)
    def answer(results): results.put((DATA, os.getppid()))
    def answer_and_wait(results, event, code): answer(results); event.wait(); sys.exit(code)
    def write(data):
        with open("data", "w") as file: file.write(data)
    def ask():  # a new worker
        worker = context.Process(target=answer, args=(results,)); worker.start()
        got = results.get(); worker.join()
        assert worker.exitcode == 0, worker.exitcode
        return got
    def children():
        with open(f"/proc/self/task/{os.getpid()}/children") as file: return set(map(int, file.read().split()))
    def ends(pid):  # fails by the test's time limit
        while os.path.exists(f"/proc/{pid}"):
            context._running()  # which reaps it
            time.sleep(0.01)
    if __name__ == "__main__":
        write("1")
        context = cowshed.get_context(warm_up="program:load")
        results = context.SimpleQueue()
"""


class ContextTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_program(self, text, *arguments, name="program.py", command=("program.py",), expected=0):
        pathlib.Path(self.folder, name).write_text(text)
        done = subprocess.run([sys.executable, *command, *arguments], cwd=self.folder, capture_output=True, text=True,
                              timeout=60, env={**os.environ, "PYTHONPATH": os.path.dirname(cowshed.__path__[0])})
        self.assertEqual(done.returncode, expected, done.stdout + done.stderr)
        return done

    def renew(self, text):
        text = textwrap.dedent(PROGRAM) + textwrap.indent(textwrap.dedent(text), "    ")
        return self.run_program(text).stdout.splitlines()


class LoadTest(ContextTest):
    TEXT = textwrap.dedent("""
        import json, os, sys, warnings
        warnings.simplefilter("ignore")
        import cowshed
        data = [str(i) for i in range(1000)]
        loaded_by, seen = os.getpid(), None
        def warm_up():
            global seen
            print("once")
            seen = sys.argv[1:]
        def work(results):
            there = sys.modules["__main__"]
            results.put({"loaded there": loaded_by == os.getppid(), "seen": seen, "argv": sys.argv[1:],
                         "one module": there is sys.modules["__mp_main__"] and there.seen is seen
                                       and sys.modules.get("program", there) is there, "frozen": cowshed.is_frozen(data)})
        if __name__ == "__main__":
            name = sys.argv.pop(1)
            context = cowshed.get_context([name], warm_up=f"{name}:warm_up")
            results = context.SimpleQueue()
            worker = context.Process(target=work, args=(results,))
            worker.start(); print(json.dumps(results.get())); worker.join()
    """)

    def test_the_main_module_is_loaded_once_with_the_arguments(self):
        for name, *command in (("__main__", "program.py"), ("program", "program.py"), ("__mp_main__", "program.py"),
                               ("program", "-m", "program")):
            with self.subTest(name=name, command=command):
                once, answer = self.run_program(self.TEXT, name, "-x", "é", command=command).stdout.splitlines()
                self.assertEqual(once, "once")
                self.assertEqual(json.loads(answer), {
                    "loaded there": True, "seen": ["-x", "é"], "argv": ["-x", "é"], "one module": True,
                    "frozen": sys.version_info >= (3, 12)})

    def test_a_module_of_a_package_is_its_attribute(self):
        os.mkdir(os.path.join(self.folder, "package"))
        text = self.TEXT.replace("    global seen\n", "    global seen\n    import package.program\n"
                                 "    assert vars(package.program) is globals()\n")
        done = self.run_program(text, "package.program", name="package/program.py", command=("-m", "package.program"))
        self.assertTrue(json.loads(done.stdout.splitlines()[1])["one module"])

    def test_more_arguments_than_a_command_line_takes_in_one(self):
        done = self.run_program(self.TEXT, "__main__", *["x" * 100] * 10_000)
        self.assertEqual(len(json.loads(done.stdout.splitlines()[1])["seen"]), 10_000)

    def test_a_failure_is_an_error_of_the_first_start(self):
        for what, words in (("['broken']", "ModuleNotFoundError: No module named 'no_such_module'"),
                            ("['json'], warm_up='json:no_such'", "has no attribute 'no_such'"),
                            ("['json'], warm_up='sys:exit'", "SystemExit"),
                            ("['textless']", "Textless: its text fails, too")):
            for name, text in (("broken", "import no_such_module"),
                               ("textless", "class Textless(Exception): __str__ = None\nraise Textless")):
                pathlib.Path(self.folder, f"{name}.py").write_text(text)
            done = self.run_program(textwrap.dedent(f"""
                import cowshed
                if __name__ == "__main__":
                    cowshed.get_context({what}).Process(target=print).start()
            """), expected=1)
            self.assertIn("cowshed.errors.LoadFailed: cowshed.get_context(): the forkserver cannot load the data: ",
                          done.stderr)
            self.assertIn(words, done.stderr)

    def test_names_of_modules_are_asked_for(self):
        for preload in ("json", [5]):
            with self.assertRaisesRegex(TypeError, "preload takes"):
                cowshed.get_context(preload)
        with self.assertRaisesRegex(ValueError, "module:function"):
            cowshed.get_context([], warm_up="json")
        with self.assertRaisesRegex(ModuleNotFoundError, "no_such"):
            cowshed.get_context(["no_such"])


class RenewTest(ContextTest):
    def test_new_workers_have_the_new_data_and_the_old_forkserver_ends_with_its_last(self):
        self.renew("""
            event = context.Event()
            old = [context.Process(target=answer_and_wait, args=(results, event, code)) for code in (0, 3, 4)]
            for worker in old: worker.start()
            (data, first), *_ = [results.get() for _ in old]
            assert data == "1" and ask() == ("1", first)
            write("2")
            assert ask() == ("1", first)
            context.renew()
            data, second = ask()
            assert data == "2" and second != first
            assert {first, second} <= children()
            event.set()
            for worker in old: worker.join()
            assert [worker.exitcode for worker in old] == [0, 3, 4]
            ends(first)
            assert ask() == ("2", second)
        """)

    def test_a_failure_leaves_the_old_data(self):
        self.renew("""
            _, first = ask()
            for data, words in (("broken", "ValueError: the file is broken"), ("deadly", "was killed while")):
                write(data)
                try: context.renew()
                except cowshed.LoadFailed as error: assert words in str(error), error
                else: assert False
                assert ask() == ("1", first)
            write("2")
            context.renew()
            assert ask()[0] == "2"
            ends(first)
        """)

    def test_a_killed_forkserver_is_replaced(self):
        self.renew("""
            for renews in (False, True):
                _, killed = ask()
                write(f"after {killed}")
                os.kill(killed, signal.SIGKILL)
                if renews: context.renew()
                else:
                    while context._server.is_alive(): time.sleep(0.01)
                assert ask()[0] == f"after {killed}"
                ends(killed)
        """)

    def test_while_threads_start_workers(self):
        self.renew("""
            failures, seen, stop = [], set(), False
            def start():
                results, last = context.SimpleQueue(), 0
                try:
                    while not stop:
                        worker = context.Process(target=answer, args=(results,)); worker.start()
                        data, _ = results.get(); worker.join()  # CPython may lose its exit code to another thread
                        assert int(data) >= last, (data, last)
                        last = int(data); seen.add(last)
                except BaseException as error:
                    failures.append(error)
                    raise
            threads = [threading.Thread(target=start) for _ in range(3)]
            for thread in threads: thread.start()
            for version in range(2, 5):
                write(str(version))
                context.renew()
                while version not in seen and not failures: time.sleep(0.01)
            stop = True
            for thread in threads: thread.join()
            assert not failures
            tracker = resource_tracker._resource_tracker._pid
            for pid in children() - {ask()[1], tracker}:
                ends(pid)
        """)

    def test_a_forked_child_keeps_no_forkserver_and_has_its_own(self):
        self.renew("""
            _, first = ask()
            read, write_end = os.pipe()
            if (child := os.fork()) == 0:
                os.close(write_end)
                os.read(read, 1)
                results = context.SimpleQueue()
                os._exit(0 if ask()[0] == "2" else 1)
            os.close(read)
            write("2")
            context.renew()
            ends(first)
            os.close(write_end)
            assert os.waitpid(child, 0)[1] == 0
        """)


if __name__ == "__main__":
    unittest.main()
