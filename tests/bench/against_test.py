#!/usr/bin/env python3
"""What `./tools/bench --against` says of two builds whose benchmarks do as this test tells them."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
AGAINST = SOURCE / "bench/suite/against.py"
sys.dont_write_bytecode = True
sys.path.append(str(AGAINST.parent))

import plan  # noqa: E402

# Says COST, with noise, and counts its runs; before run FROM it says SPIKE.
PROGRAM = """#!/usr/bin/python3 -S
import json, pathlib, random, sys
count = pathlib.Path(__file__ + ".count")
runs = int(count.read_text()) if count.exists() else 0
count.write_text(str(runs + 1))
cost = %r if runs < %r else %r
rows = [{"group": "independent", "name": "*ref", "value": cost * random.uniform(0.97, 1.03), "unit": %r},
        {"group": "independent", "name": "raw pointer", "value": runs + 1, "unit": "ns"}]
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps({"figures": rows}))
"""
ROUNDS = 4


class AgainstTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-against-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"

    def program(self, build, text, benchmark="deref"):
        path = self.folder / build / "bench" / benchmark
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def costs(self, build, cost, unit="ns", spike=None, spikes=0):
        self.program(build, PROGRAM % (spike, spikes, cost, unit))

    def start(self, *arguments):
        return subprocess.Popen(["/usr/bin/python3", "-B", AGAINST, self.folder / "this",
                                 self.folder / "other", self.out, "--against", "abc", "--only",
                                 "deref", "--rounds", str(ROUNDS), *arguments],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def compare(self):
        with self.start() as process:
            output, _ = process.communicate()
        return process.returncode, output

    def verdicts(self):
        answer = json.loads((self.out / "against.json").read_text(encoding="utf-8"))
        return [(row["name"], row["verdict"]) for row in answer["figures"]]

    def runs(self, build):
        return int((self.folder / build / "bench/deref.count").read_text(encoding="ascii"))

    def test_the_same_is_no_regression_and_rivals_are_left_out(self):
        self.costs("this", 10)
        self.costs("other", 10)
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        self.assertEqual(self.verdicts(), [("*ref", "same")])
        self.assertEqual((self.runs("this"), self.runs("other")), (2 * ROUNDS, 2 * ROUNDS))

    def test_a_regression_is_measured_again_and_fails(self):
        self.costs("this", 12)
        self.costs("other", 10)
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("slower than abc: deref, independent: *ref", output)
        self.assertIn("| slower |", (self.out / "against.md").read_text(encoding="utf-8"))
        self.assertEqual(self.runs("this"), 6 * ROUNDS)

    def test_what_was_slow_in_one_batch_alone_is_noise(self):
        self.costs("this", 10, spike=13, spikes=2 * ROUNDS)
        self.costs("other", 10)
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        self.assertEqual(self.verdicts(), [("*ref", "same")])
        self.assertEqual(self.runs("this"), 6 * ROUNDS)

    def test_faster_is_said_and_no_failure(self):
        self.costs("this", 8)
        self.costs("other", 10)
        self.assertEqual(self.compare()[0], 0)
        self.assertEqual(self.verdicts(), [("*ref", "faster")])

    def test_of_a_rate_less_is_slower(self):
        self.costs("this", 8, unit="million/s")
        self.costs("other", 10, unit="million/s")
        self.assertEqual(self.compare()[0], 1)
        self.assertEqual(self.verdicts(), [("*ref", "slower")])

    def test_a_benchmark_that_fails_is_named(self):
        self.costs("this", 10)
        self.program("other", "#!/bin/sh\necho 'deref: the answer is wrong'\nexit 1\n")
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("other/bench/deref failed: deref: the answer is wrong", output)
        self.assertNotIn("Traceback", output)

    def test_a_benchmark_without_its_figures_is_named(self):
        self.costs("this", 10)
        self.costs("other", 0)
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("other/bench/deref has none of *ref, try_get()", output)

    def test_a_benchmark_that_the_other_lacks_is_skipped(self):
        self.costs("this", 10)
        (self.folder / "other").mkdir()
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("abc has no such benchmark", output)
        self.assertIn("Nothing was compared", output)

    def test_interrupted_it_says_so(self):
        started = self.folder / "started"
        self.program("this", f"#!/bin/sh\ntouch {started}\nexec sleep 1000\n")
        self.costs("other", 10)
        with self.start() as process:
            while not started.exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, output)
        self.assertIn("Interrupted", output)


class PlanTest(unittest.TestCase):
    def test_each_part_has_figures_that_the_documentation_has(self):
        page = (SOURCE / "docs/performance.md").read_text(encoding="utf-8")
        for part in plan.AGAINST:
            section = page.split(f"\n## {part.benchmark}\n")[1].split("\n## ")[0]
            for name in part.ours:
                self.assertIn(f"| {name} |", section, part.benchmark)


if __name__ == "__main__":
    unittest.main(verbosity=2)
