"""Tests `cowshed run` with programs that spawn their workers: they come from a forkserver, and notice nothing."""

import re
import textwrap
import unittest

import run_test

# How a worker tells that it is a fork of a server: the kernel knows another parent.
FORKED = """
    import multiprocessing as mp, os, signal, sys, time
    def server():
        with open("/proc/self/stat") as file: return int(file.read().split()[3])
    def is_forked(): return server() != mp.parent_process().pid
"""
ASK = FORKED + """
    IMPORT
    def ask(target=is_forked):
        with mp.get_context("spawn").Pool(1) as pool: return pool.apply(target)
"""


class SpawnTest(run_test.Runner):
    def run_main(self, text, *options, imports="", expected=0, **environment):
        main = "    if __name__ == '__main__':\n" + "\n".join("        " + line for line in textwrap.dedent(text).strip().splitlines())
        return self.run_program(ASK.replace("IMPORT", imports) + main, *options, "--above", "0", expected=expected,
                                **environment)

    def test_workers_are_as_spawned(self):
        program = FORKED + """
    import atexit, random, threading
    sys.path.insert(0, "/inserted")
    os.environ["SET"] = "by the import"
    if "seed" in sys.argv: random.seed(42)
    atexit.register(lambda: mp.parent_process() and os.write(1, f"atexit {mp.current_process().name}\\n".encode()))
    count = 0
    def look(results):
        global count
        count += 1
        self = mp.current_process()
        results.put((count, self.name, self.daemon, bytes(self.authkey), __name__, sys.modules["__main__"].__file__,
                     sys.argv, sys.path, os.getcwd(), 
                     {key: os.environ[key] for key in os.environ if key != "PYTHONPATH" and "COWSHED_" not in key}, os.getppid(), mp.parent_process().pid,
                     mp.get_start_method(), threading.active_count(), mp.active_children(), os.getpgrp(),
                     [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
                     signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    def draw(results): results.put((random.random(), is_forked()))
    def nest(results):
        worker = mp.Process(target=draw, args=(results,)); worker.start(); worker.join()
    class Tee:
        def __init__(self, file): self.file = file
        def write(self, text): self.file.write(text)
        def flush(self): pass
    def end(how):
        global file
        file = open(how, "w"); file.write("data"); atexit.register(print, "at exit", how)
        sys.stdout = Tee(sys.stdout)
        if how == "text": sys.exit("some text")
        if how == "error": raise ValueError(how)
        if how == "thread": threading.Thread(target=lambda: (time.sleep(0.1), print("thread", flush=True))).start()
        if how == "signal": os.kill(os.getpid(), signal.SIGSEGV)
        if how == "sleep": time.sleep(99)
        os._exit(7) if how == "_exit" else sys.exit(3)
    def begin(value): global begun; begun = value
    def use(number): return begun, number
    if __name__ == "__main__":
        mp.set_start_method("spawn")
        os.environ["LATE"] = "set"
        results = mp.SimpleQueue()
        worker = mp.Process(target=look, args=(results,), name="fred", daemon=True); worker.start()
        got = results.get(); worker.join()
        print(*[each in (os.getpid(), mp.current_process().authkey) or each for each in got])
        draws = []
        for target in (draw, draw, nest):
            worker = mp.Process(target=target, args=(results,)); worker.start(); draws.append(results.get()); worker.join()
        print("draws differ", len({each for each, _ in draws}), "random state is fresh", draws[0][0] != random.random())
        print(*[each for _, each in draws], file=sys.stderr)
        for how in ("exit", "text", "error", "thread", "signal", "_exit", "terminate", "kill"):
            worker = mp.Process(target=end, args=("sleep" if how in ("terminate", "kill") else how,), name=how)
            worker.start()
            getattr(worker, how, int)()
            mp.connection.wait([worker.sentinel]); worker.join()
            print(how, worker.exitcode, worker.is_alive(), flush=True)
            if how in ("exit", "text", "error", "thread"): print(os.path.getsize(how))
        pipes = [mp.Pipe() for _ in range(130)]
        worker = mp.Process(target=len, args=(pipes,)); worker.start(); worker.join(); print(worker.exitcode)
        with mp.Pool(2, begin, ("begun",)) as pool:
            print(pool.map(use, range(3)))
            pool.close(); pool.join()
        with mp.Manager() as manager: print(manager.list([1]))
        try: mp.Process(target=lambda: 0).start()
        except Exception as error: print(type(error).__name__)
        mp.log_to_stderr(20)
        worker = mp.Process(target=int); worker.start(); worker.join()
    """
        self.write("program.py", program)
        for argument in "", "seed":
            command = [run_test.sys.executable, "program.py", argument]
            plain = self.run_it(command, None, COWSHED_LOG="none")
            ours = self.run_it(command, ["--above", "0"], COWSHED_LOG="none")
            self.assertIn("False False False\n", plain.stderr)
            self.assertIn("True True True\n", ours.stderr)
            lines = [(sorted(re.sub(r"Process-\d+|pid=\d+|SpawnPoolWorker-\d+", "", each.stdout).splitlines()),
                      each.stderr.count("INFO"), each.stderr.count("ValueError: error\n"), each.stderr.count("some text"))
                     for each in (plain, ours)]
            self.assertEqual(*lines)

    def test_workers_share_what_the_main_module_loads(self):
        program = run_test.READING + """
    data = load(200_000)
    def work(_): read(data); return own()
    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(4) as pool: print(max(pool.map(work, range(4), chunksize=1)))
    """
        plain, ours = (int(self.run_program(program, COWSHED=how).stdout) for how in ("off", "in-place"))
        print(f"a spawned worker has {ours} MiB of its own, without cowshed run {plain}")
        self.assertLess(ours, plain / 10 if run_test.IN_PLACE else plain)

    def test_what_an_import_does_for_its_own_process_takes_a_real_spawn(self):
        for imports, why in (
                ("print('loads', flush=True)", "prints"), ("os.write(1, b'loads')", "prints"),
                ("file = open('program.py')", "keeps .*/program.py open"),
                ("open('data', 'a').write('x')", "writes .*/data"), ("os.getpid()", "asks for the PID"),
                ("import threading; thread = threading.get_native_id()", "asks for the PID"),
                ("name = mp.current_process().name", "asks for the name or key of its process"),
                ("token = os.getrandom(1)", "draws random numbers"), ("import uuid; name = uuid.uuid1()", "draws random numbers"),
                ("import ssl; token = ssl.RAND_bytes(1)", "draws random numbers"),
                ("import uuid; name = uuid.uuid4()", "draws random numbers"),
                ("import random; port = random.random()", "draws random numbers"),
                ("import random; generator = random.Random()", "draws random numbers"),
                ("import mmap; memory = mmap.mmap(-1, 4096)", "maps shared memory"),
                ("import threading; threading.Thread(target=time.sleep, args=(1,)).start()", "starts threads"),
                ("os.system('echo')", r"calls os.system\(\)"), ("signal.alarm(99)", "sets a timer")):
            with self.subTest(imports):
                text = "print(ask()); os.path.exists('data') and print(open('data').read(), os.remove('data'))"
                plain, ours = (self.run_main(text, imports=imports, COWSHED=how) for how in ("off", "in-place"))
                self.assertEqual(plain.stdout, ours.stdout)
                self.assertIn("False", ours.stdout)
                self.assertRegex(ours.stderr, f"spawns workers that share nothing: its import {why}\n")

    def test_an_import_that_only_reads_is_done_once(self):
        done = self.run_main("print(ask())", imports="""
    import asyncio, ctypes.util, logging.config, platform, random, ssl, tempfile, unittest.mock
    ctypes.util.find_library("c"), platform.processor(), os.makedirs(".", exist_ok=True), random.seed(5), random.random()
    with open(__file__) as file: text = file.read()""")
        self.assertEqual(done.stdout, "True\n", done.stderr)

    def test_a_worker_starts_from_what_its_parent_is_now(self):
        self.write("data", "old")
        done = self.run_main("""
            def look(): print(ask(), *ask(see), end="; ")
            def add_filter():  # to those of seccomp: it allows everything
                import ctypes, struct
                prctl, code = ctypes.CDLL(None).prctl, struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
                prctl(38, 1, 0, 0, 0); assert prctl(22, 2, struct.pack("HP", 1, ctypes.cast(code, ctypes.c_void_p).value)) == 0
            add_filter()
            look()
            add_filter()
            look()
            os.environ["SET"] = "now"
            look()
            with open("data", "w") as file: file.write("new data")
            look()
            signal.signal(signal.SIGCHLD, lambda *_: None)
            look()
            """, imports="""
    with open("data") as file: DATA = file.read()
    def see(): return os.environ.get("SET"), DATA""")
        self.assertEqual(done.stdout, "True None old; False None old; False now old; True now new data; False now new data; ")
        self.assertRegex(done.stderr, "(?s): signals or rights\n.*share nothing: changed since the last start: environment\n.*SIGCHLD has a handler")

    def test_a_server_that_is_killed_is_replaced(self):
        done = self.run_main("""
            print(ask())
            os.kill(ask(server), signal.SIGKILL)
            ask()  # by a real spawn, if the server still seemed to be there
            print(ask())
            """)
        self.assertEqual(done.stdout, "True\nTrue\n")

    def test_signals_to_the_group_and_the_end_of_the_parent(self):
        done = self.run_main("""
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, lambda *_: None)
            workers = [mp.get_context("spawn").Process(target=time.sleep, args=(99,)) for _ in range(2)]
            for worker in workers: worker.start()
            os.killpg(0, signal.SIGTERM)
            for worker in workers: worker.join()
            print([worker.exitcode for worker in workers], flush=True)
            mp.get_context("spawn").Process(target=outlive).start()
            time.sleep(0.5)
            os._exit(0)
            """, imports="""
    def outlive():
        before = os.getppid(), server()
        while server() == before[1]: time.sleep(0.01)
        print(before[0] == mp.parent_process().pid, os.getppid() == server(), flush=True)""")
        self.assertEqual(done.stdout, "[-15, -15]\nTrue True\n")

    def test_preloading_the_main_module_loads_nothing_twice(self):
        self.write("program.py", """
            import builtins, multiprocessing, sys
            builtins.loads = getattr(builtins, "loads", 0) + 1
            called = 0
            def call(): global called; called += 1
            def look(_): return builtins.loads, called
            if __name__ == "__main__":
                with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool: print(*pool.map(look, [0])[0])
            """)
        for method in "fork", "spawn":
            done = self.run_it([run_test.sys.executable, "program.py", method], ["--preload", "program:call", "--above", "0"])
            self.assertEqual((method, done.stdout), (method, "1 1\n"))


if __name__ == "__main__":
    unittest.main()
