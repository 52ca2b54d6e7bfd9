"""Tests settle(), and freeze() with settle=True."""

import ctypes
import gc
import os
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import warnings

import cowshed
from children import in_child, run

FULL = os.environ.get("COWSHED_FULL") == "1"


def mapping_of(address):
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, end = (int(each, 16) for each in line.split()[0].split("-"))
            if begin <= address < end:
                return line
    return ""


def is_settled(obj):
    return "cowshed-settled" in mapping_of(id(obj))


def build(count):
    return [(f"key {i}", {"number": i * 1.5, "text": f"text {i}", "more": [i, str(i)] * 40}) for i in range(count)]


def is_whole(data):
    return all(key == f"key {i}" and value == {"number": i * 1.5, "text": f"text {i}", "more": [i, str(i)] * 40}
               for i, (key, value) in enumerate(data))


class CollapseTest(unittest.TestCase):
    def test_the_heap_is_in_huge_pages_with_its_objects(self):
        data = build(40_000)
        places = [id(each) for each in data]
        collapsed = cowshed.collapse_heap(cpu_share=1)
        self.assertTrue(is_whole(data))
        self.assertEqual([id(each) for each in data], places)
        self.assertGreater(collapsed.huge_after, collapsed.huge_before + collapsed.private_bytes // 2)
        self.assertLessEqual(collapsed.huge_after + sum(collapsed.left.values()),
                             collapsed.private_bytes + collapsed.added_bytes + 65536)  # that it takes meanwhile
        self.assertLessEqual(collapsed.added_bytes, collapsed.private_bytes * 0.02)
        self.assertLess(collapsed.page_tables_after, collapsed.page_tables_before)
        self.assertRegex(str(collapsed), r"^\d+\.\d of \d+\.\d MiB in 2 MiB pages, ")


class SettleTest(unittest.TestCase):
    def test_moves_the_objects_and_changes_none(self):
        data = build(20_000)
        places = [id(each) for each in data]
        settled = cowshed.settle(time_fork=True)
        self.assertTrue(is_whole(data))
        self.assertEqual([id(each) for each in data], places)
        self.assertGreater(settled.moved["pymalloc's arenas"], 8 << 20)
        self.assertGreater(settled.moved["malloc's main heap"], 8 << 20)
        self.assertEqual(sum(settled.moved.values()), settled.moved_bytes)
        self.assertLessEqual(settled.copied_bytes, settled.moved_bytes)
        self.assertGreater(sum(map(is_settled, data[::1000])), 18)
        self.assertTrue(0 < settled.longest_pause <= settled.seconds)
        self.assertLess(settled.page_tables_after, settled.page_tables_before)
        self.assertGreater(settled.fork_after, 0)
        self.assertIn("is a stack", settled.left)
        self.assertIn(f"settled {settled.moved_bytes / 2**20:.1f} MiB in ", str(settled))

    def test_random_programs_keep_their_values(self):
        self.assertEqual(run("""
            import gc, random, sys
            sys.path.append(sys.argv[1])
            import cowshed
            from children import in_child
            random = random.Random(int(sys.argv[2]))

            def make():
                kind, n = random.randrange(6), random.randrange(1 << random.randrange(20))
                return n, (lambda: [(str(n), n * 1.5)] * min(n, 9), lambda: bytes([n % 251]) * n,
                           lambda: {i: str(i) for i in range(n % 999)}, lambda: bytearray(n), lambda: "x" * n,
                           lambda: list(range(n % 5000)))[kind]

            class Program:
                def __init__(self): self.held = []
                def check(self):
                    for n, function, value in self.held: assert value == function()
                def run(self, rounds, depth):
                    for _ in range(rounds):
                        what = random.randrange(1000)
                        if what < 500: self.held.append((*(pair := make()), pair[1]()))
                        elif what < 960 and self.held: self.held.pop(random.randrange(len(self.held)))
                        elif what < 965: gc.collect()
                        elif what < 975: cowshed.settle()
                        elif what < 977 and depth < 2: assert in_child(lambda: self.run(rounds // 10, depth + 1)) is None
                        elif what < 980: self.check()
                    self.check()

            Program().run(int(sys.argv[3]), 0)
            print("done")
        """, os.path.dirname(os.path.abspath(__file__)), os.environ.get("COWSHED_SEED", "1"),
            "20000" if FULL else "1500"), "done\n")

    def test_buffers_can_be_left(self):
        buffer = bytearray(b"7" * (8 << 20))
        settled = cowshed.settle(leave=[memoryview(buffer)[4 << 20:5 << 20]])
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.assertNotIn("cowshed-settled", mapping_of(address + (9 << 19)))
        self.assertIn("cowshed-settled", mapping_of(address + (6 << 20)))
        self.assertTrue(1 << 20 <= settled.left["is in leave"] <= (1 << 20) + 8192)
        with self.assertRaises(TypeError):
            cowshed.settle(leave=[5])

    def test_other_threads_are_refused_or_stopped(self):
        counts, over = [[0], [0]], threading.Event()

        def work(count):
            while not over.is_set():
                count[0] += 1
                time.sleep(0)

        threads = [threading.Thread(target=work, args=(count,), name="the-other") for count in counts]
        for thread in threads:
            thread.start()
        try:
            with self.assertRaisesRegex(cowshed.ThreadsRunning, 'end them, or set threads="stop"'):
                cowshed.settle()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                frozen = cowshed.freeze(settle=True)
            self.assertIsNone(frozen.settled)
            self.assertIn("other threads may write", frozen.why_not_settled)
            self.assertIn("cowshed.freeze() cannot settle the heap: settle: other threads may write to memory",
                          str(caught[-1].message))
            self.assertTrue(str(frozen).endswith(frozen.why_not_settled))
            for _ in range(3):
                data = build(2_000)
                self.assertGreater(cowshed.settle(threads="stop", stop_timeout=60).moved_bytes, 1 << 20)
                before = [count[0] for count in counts]
                while any(count[0] == then for count, then in zip(counts, before)):
                    time.sleep(0.001)
                self.assertTrue(is_whole(data))
            self.assertIsNotNone(cowshed.freeze(settle=True, threads="stop").settled)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        for function in (cowshed.settle, cowshed.freeze):
            with self.assertRaisesRegex(ValueError, "threads is 'refuse' or 'stop', not 'ask'"):
                function(threads="ask")


class FreezeTest(unittest.TestCase):
    def test_freezes_and_settles_again_and_again(self):
        held = []
        for _ in range(3):
            held.append(build(20_000))
            frozen = freeze()  # which gives back free pools, also of what is settled
            self.assertGreater(frozen.settled.moved_bytes, 16 << 20)
            self.assertIn("\n  settled ", str(frozen))
            self.assertIs(in_child(lambda: all(map(is_whole, held))), True)
            gc.unfreeze()
            cowshed.settle()
        self.assertIsNone(freeze(settle=False).settled)

    def test_workers_of_multiprocessing(self):
        for start in ("context = multiprocessing.get_context('fork'); print(cowshed.freeze(settle=True).settled is None)",
                      "context = cowshed.get_context(['settle_test'], warm_up='settle_test:load', settle=True); "
                      "print(False)"):
            with tempfile.TemporaryDirectory() as folder:
                with open(f"{folder}/script.py", "w") as script:
                    script.write(textwrap.dedent(f"""
                        import multiprocessing, sys
                        sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
                        import cowshed, settle_test
                        if __name__ == "__main__":
                            settle_test.load()
                            {start}
                            with context.Pool(2) as pool:
                                print(pool.map(settle_test.look, range(2)))
                            process = context.Process(target=settle_test.look, args=(0,))
                            process.start(); process.join()
                            print(process.exitcode)
                    """))
                done = subprocess.run([sys.executable, "-W", "ignore", f"{folder}/script.py"], capture_output=True,
                                      text=True)
                self.assertEqual(done.stdout, "False\n[(True, True), (True, True)]\n0\n", done.stderr)


class InPlaceTest(unittest.TestCase):  # Python 3.12 and later
    def test_copies_are_counted(self):
        data, buffer = build(20_000), bytearray(10 << 20)
        for _ in range(2):
            freeze()

            def child():
                before = cowshed.copied()
                with cowshed.Meter() as meter:
                    whole = is_whole(data)
                read = cowshed.copied() - before
                for at in range(0, len(buffer), 4096):
                    buffer[at] = 1
                return whole, read < 2 << 20, meter.bytes < 1 << 20, (cowshed.copied() - before - read) >> 20

            self.assertEqual(in_child(child), (True, True, True, 10))

    def test_copies_are_counted_where_no_request_scans_page_maps(self):
        said = run("""
            import ctypes, platform, signal, struct, sys
            sys.path.append(sys.argv[1])
            import cowshed
            from children import in_child
            def refuse(number):  # seccomp's filter: load the number, compare it, EPERM, else allow
                code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]
                code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
                program = struct.pack("HxxxxxxP", 4, ctypes.addressof(code))
                libc = ctypes.CDLL(None)
                assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
            buffer = bytearray(10 << 20)
            refuse({"x86_64": 16, "aarch64": 29}[platform.machine()])  # ioctl
            signal.alarm(60)  # else it would read all addresses that there could be
            cowshed.freeze()
            def child():
                for at in range(0, len(buffer), 4096): buffer[at] = 1
                return cowshed.copied() >> 20
            print(in_child(child))
        """, os.path.dirname(__file__))  # fmt: skip
        self.assertEqual(said.splitlines()[-1], "10")

    def test_a_fork_with_gibibytes_takes_at_most_three_times_as_long_as_an_empty_one(self):
        count = 1_800_000 if FULL else 80_000  # 2 GiB
        print(said := run("""
            import os, statistics, sys, time
            sys.path.append(sys.argv[1])
            import cowshed
            from settle_test import build, forks
            empty = forks(101)
            data = build(int(sys.argv[2]))
            with open("/proc/self/statm") as statm: held = int(statm.read().split()[1]) >> 8
            full = forks(5)
            frozen = cowshed.freeze(settle=True)
            after = forks(101)
            assert sum(len(value["text"]) for _, value in data)
            again = forks(101)
            print(f"{held} MiB; fork: empty {empty:.2f} ms, before {full:.2f}, after {after:.2f}, after reading "
                  f"{again:.2f}; moved in {frozen.settled.seconds:.2f} s")
            """, os.path.dirname(os.path.abspath(__file__)), str(count)))
        held, empty, _, after, again, _ = map(float, re.findall(r"[\d.]+", said))
        self.assertGreater(held, 2048 if FULL else 100)
        self.assertLessEqual(max(after, again), 3 * empty)


loaded = None


def load():
    global loaded
    loaded = build(5_000)


def look(_):
    data = loaded
    return is_whole(data), sum(map(is_settled, data[::100])) > 40


def freeze(settle=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on 3.11
        return cowshed.freeze(settle=settle)


def forks(count):
    """The median of a fork, in ms."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(0)
        times.append((time.perf_counter() - begin) * 1000)
        os.waitpid(child, 0)
    return statistics.median(times)


if __name__ == "__main__":
    unittest.main()
