#!/usr/bin/env python3
"""What `./tools/bench --against` says of two builds whose benchmarks do as this test tells them."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import jsonschema

SOURCE = pathlib.Path(__file__).resolve().parents[2]
AGAINST = SOURCE / "bench/suite/against.py"
sys.dont_write_bytecode = True
sys.path.append(str(AGAINST.parent))

import against  # noqa: E402
import page  # noqa: E402
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
report = {"settings": [], "figures": rows, "goals": []}
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(report))
"""
# Says the rows of each of its runs in turn, and fails where there is none for it; always the same
# settings, and some more from one run on.  Of a row with a bound it makes a goal.
SEQUENCE = """#!/usr/bin/python3 -S
import json, pathlib, sys
count = pathlib.Path(__file__ + ".count")
runs = int(count.read_text()) if count.exists() else 0
count.write_text(str(runs + 1))
rows = %r
which = rows[min(runs, len(rows) - 1)]
if which is None:
    sys.exit("the answer is wrong")
goals = [dict(zip(("what", "unit", "measured", "bound"), row[1:])) for row in which if len(row) == 5]
rows = [dict(zip(("group", "name", "unit", "value"), row)) for row in which if len(row) == 4]
settings, since, later = %r
report = {"settings": [{"name": name, "text": text}
                       for name, text in settings + (later if runs >= since else ())],
          "figures": rows, "goals": goals}
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(report))
"""
COPIES = ("copied pages/1 MiB", "arena", "")
ADDED = ("copy", "cowtop adds", "ns")
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

    def sequence(self, build, benchmark, *runs, settings=(), since=0, later=()):
        """Of each run: [(group, name, unit, value)], of a goal its bound, too; or None where it
        fails; the last one stays."""
        self.program(build, SEQUENCE % (runs, (settings, since, later)), benchmark)

    def added(self, build, *runs):
        """What the benchmark says that cowtop adds to a copy in each of its runs, by turns; and
        where there are many mappings, always the same."""
        always = ("many mappings", "cowtop adds", "ns", 600)
        self.sequence(build, "measuring", *[[(*ADDED, ns), always] for ns in runs * 6 * ROUNDS])
        self.doctor(build)

    def doctor(self, build):
        doctor = self.folder / build / "tools/cowtop"
        doctor.parent.mkdir(exist_ok=True)
        doctor.write_text("#!/bin/sh\n"
                          """echo '{"backends": [{"backend": "tracepoint", "works": true}]}'\n""",
                          encoding="utf-8")
        doctor.chmod(0o755)

    def start(self, only="deref"):
        return subprocess.Popen(["/usr/bin/python3", "-B", AGAINST, self.folder / "this",
                                 self.folder / "other", self.out, "--against", "abc", "--rounds",
                                 str(ROUNDS), *(("--only", only) if only else ())],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def compare(self, only="deref"):
        with self.start(only) as process:
            output, _ = process.communicate()
        return process.returncode, output

    def answer(self):
        answer = json.loads((self.out / "against.json").read_text(encoding="utf-8"))
        jsonschema.validate(answer, json.loads(
            (SOURCE / "docs/schemas/cowshed.bench-against-1.json").read_text(encoding="utf-8")))
        return answer

    def verdicts(self):
        return [(row["name"], row["verdict"]) for row in self.answer()["figures"]]

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
        self.assertEqual(self.runs("this"), 10 * ROUNDS)

    def test_what_was_not_slow_in_every_batch_is_noise(self):
        for batches, runs in ((2, 6), (6, 10)):
            (self.folder / "this/bench/deref.count").unlink(missing_ok=True)
            self.costs("this", 10, spike=13, spikes=batches * ROUNDS)
            self.costs("other", 10)
            code, output = self.compare()
            self.assertEqual(code, 0, output)
            self.assertEqual(self.verdicts(), [("*ref", "same")])
            self.assertEqual(self.runs("this"), runs * ROUNDS)

    def test_the_last_look_is_when_all_else_was_measured(self):
        for build, cost in (("this", 12), ("other", 10)):
            self.sequence(build, "sharing", [("start/4 MiB", "arena", "ms", cost)])
            self.sequence(build, "fork_latency", [("arena/objects", "empty", "us", cost)])
        code, output = self.compare(only=None)
        self.assertEqual(code, 1, output)
        self.assertRegex(output, r"(?s)\] sharing.*\[once more\] fork_latency.*\[once more\] sharing")

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
        self.sequence("other", "deref", [("independent", "raw pointer", "ns", 1)])
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn(r"other/bench/deref has none of \*ref, try_get\(\)", output)

    def test_a_count_reached_in_a_fixed_time_is_no_cost(self):
        for build, count in (("this", 9), ("other", 3)):
            self.sequence(build, "sharing", [
                ("look-ups an entry, long use/4 MiB", "arena", "", count),
                ("start/4 MiB", "arena", "ms", 1)])
        code, output = self.compare("sharing")
        self.assertEqual(code, 0, output)
        self.assertEqual([row["group"] for row in self.answer()["figures"]], ["start/4 MiB"])

    def test_python_of_the_same_name_is_left_out(self):
        for build, time_us in (("this", 9), ("other", 3)):
            self.sequence(build, "start_methods", [
                *((f"begin/python/{size}", name, "us", time_us) for size in ("4 MiB", "8 MiB")
                  for name in ("fork", "spawn", "forkserver")),
                ("begin/huge heap/4 MiB", "fork", "us", 1)])
        code, output = self.compare("start_methods")
        self.assertEqual(code, 0, output)
        self.assertEqual({row["group"] for row in self.answer()["figures"]},
                         {"begin/huge heap/4 MiB"})

    def test_a_count_that_was_0_and_is_not_is_a_failure(self):
        self.sequence("this", "sharing", [(*COPIES, 200000)])
        self.sequence("other", "sharing", [(*COPIES, 0)])
        code, output = self.compare("sharing")
        self.assertEqual(code, 1, output)
        self.assertIn("slower than abc: sharing, copied pages/1 MiB: arena", output)
        self.assertIn("0 to 200000 | slower |", output)
        figure, = self.answer()["figures"]
        self.assertEqual((figure["ratio"], figure["this"], figure["other"]), (None, 200000, 0))

    def test_a_count_that_stays_0_or_becomes_0_is_none(self):
        for count, verdict in ((0, "same"), (200000, "faster")):
            self.sequence("this", "sharing", [(*COPIES, 0)])
            self.sequence("other", "sharing", [(*COPIES, count)])
            code, output = self.compare("sharing")
            self.assertEqual(code, 0, output)
            self.assertEqual(self.verdicts(), [("arena", verdict)])

    def test_of_a_count_any_growth_is_a_failure(self):
        self.sequence("this", "sharing", [(*COPIES, 1010)])
        self.sequence("other", "sharing", [(*COPIES, 1000)])
        self.assertEqual(self.compare("sharing")[0], 1)

    def test_a_count_that_is_0_at_times_keeps_its_pairs(self):
        some, none = [(*COPIES, 7)], [(*COPIES, 0)]
        for build in ("this", "other"):
            self.sequence(build, "sharing", some, none, some, none, some, none, some, none, some)
        code, output = self.compare("sharing")
        self.assertEqual(code, 0, output)
        self.assertIn(f"1 [1, 1], {2 * ROUNDS} pairs", output)

    def test_of_what_is_added_twice_as_much_is_slower(self):
        self.added("this", 590, 610)
        self.added("other", 310, 290)
        code, output = self.compare("measuring")
        self.assertEqual(code, 1, output)
        self.assertIn("slower than abc: measuring, copy: cowtop adds", output)

    def test_of_what_is_added_noise_below_0_is_no_verdict(self):
        rarely_above = (-9, -8, -7, -6, -5, -4, -3, 60)
        for this, other, verdict in (((-40, 60), (60, -40), "undecided"),
                                     ((-9, -1), (-1, -300), "undecided"),
                                     (rarely_above, rarely_above, "undecided"),
                                     ((300, -900, 310), (290, 300, 3000), "same"),
                                     ((-9, -8), (300, 310), "faster")):
            with self.subTest(this=this, other=other):
                self.setUp()
                self.added("this", *this)
                self.added("other", *other)
                code, output = self.compare("measuring")
                self.assertEqual(code, 0, output)
                self.assertEqual([(row["group"], row["verdict"]) for row in self.answer()["figures"]],
                                 [("copy", verdict), ("many mappings", "same")])

    def test_settings_that_differ_are_a_doubt(self):
        row = [("independent", "*ref", "ns", 1)]
        self.sequence("this", "deref", row, settings=(("arena", "4 GiB"), ("heap", "malloc")))
        self.sequence("other", "deref", row, settings=(("arena", "2 GiB"), ("heap", "malloc"),
                                                       ("huge heap", "malloc")))
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        doubt, = self.answer()["doubts"]
        self.assertRegex(doubt, "^deref: .* and abc may not have measured the same thing, for these "
                                "settings differ: arena; huge heap$")
        self.assertEqual(self.verdicts(), [("*ref", "same")])

    def test_settings_that_differ_only_in_the_second_look_are_a_doubt(self):
        for build, ns in (("this", 20), ("other", 10)):
            self.sequence(build, "deref", [("independent", "*ref", "ns", ns)], since=2 * ROUNDS,
                          later=(("arena", build),))
        self.assertEqual(self.compare()[0], 1)
        doubt, = self.answer()["doubts"]
        self.assertRegex(doubt, "settings differ: arena$")

    def test_of_a_goal_its_bound_says_what_is_worse(self):
        for bound, verdict, code in (("at_most", "slower", 1), ("at_least", "faster", 0)):
            for build, share in (("this", 20), ("other", 10)):
                self.sequence(build, "own_cost", [
                    ("goal", "idle: memory of cowtop", "%", share, bound),
                    ("record/1", "memory", "MiB", 1)])
                self.doctor(build)
            self.assertEqual(self.compare("own_cost")[0], code)
            self.assertEqual([row["verdict"] for row in self.answer()["figures"]], [verdict, "same"])

    def test_what_only_one_has_is_a_doubt(self):
        both, alone = ("independent", "*ref", "ns", 1), ("independent", "get()", "ns", 1)
        self.sequence("this", "deref", [both, alone])
        self.sequence("other", "deref", [both])
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        doubt, = self.answer()["doubts"]
        self.assertRegex(doubt, r"^deref, independent: get\(\) \(ns\) was not compared: .* has it in 8 of "
                                r"8 runs, abc has it in 0 of 8 runs$")
        self.assertIn(f"doubt: {doubt}", output)
        self.assertEqual(self.verdicts(), [("*ref", "same")])

    def test_what_might_be_much_slower_is_undecided(self):
        self.sequence("this", "deref", *([("independent", "*ref", "ns", cost)]
                                         for cost in (16, 8, 16, 8, 16, 8, 16, 8)))
        self.sequence("other", "deref", [("independent", "*ref", "ns", 10)])
        code, output = self.compare()
        self.assertEqual(code, 0, output)
        self.assertEqual(self.verdicts(), [("*ref", "undecided")])
        self.assertIn("undecided against abc: deref, independent: *ref", output)

    def test_a_failure_keeps_what_the_others_measured(self):
        for build in ("this", "other"):
            self.costs(build, 10)
            self.sequence(build, "freeze", [("freeze/array", "freeze", "ms/GiB", 1)])
        self.sequence("other", "fill", None)
        self.sequence("this", "fill", None)
        code, output = self.compare(only=None)
        self.assertEqual(code, 1, output)
        self.assertEqual(self.verdicts(), [("freeze", "same"), ("*ref", "same")])
        doubts = "\n".join(self.answer()["doubts"])
        self.assertIn("this/bench/fill failed: the answer is wrong", doubts)
        self.assertRegex(doubts, "measuring .* was skipped: .*/tools/cowtop is missing")
        self.assertEqual(self.answer()["not_compared"], plan.NOT_COMPARED)
        for told in (output, (self.out / "against.md").read_text(encoding="utf-8")):
            self.assertRegex(told, r"(?m)^not compared: what rivals take \(")

    def test_a_failure_of_the_second_look_keeps_the_first(self):
        slow = [("independent", "*ref", "ns", 20), ("independent", "get()", "ns", 10)]
        self.sequence("this", "deref", *[slow] * 2 * ROUNDS, None)
        self.sequence("other", "deref", [(group, name, unit, 10) for group, name, unit, _ in slow])
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertEqual(self.verdicts(), [("*ref", "undecided"), ("get()", "same")])
        self.assertIn("when what seemed slower was measured again", output)

    def test_a_benchmark_that_the_other_lacks_is_skipped(self):
        self.costs("this", 10)
        (self.folder / "other").mkdir()
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("abc has no such benchmark", output)
        self.assertIn("Nothing was compared", output)

    def test_what_cannot_be_written_is_told_and_the_table_is_there(self):
        self.costs("this", 10)
        self.costs("other", 10)
        self.out.mkdir()
        (self.out / "against.md.part").mkdir()
        code, output = self.compare()
        self.assertEqual(code, 1, output)
        self.assertIn("| deref, independent: *ref | ", output)
        self.assertIn(f"bench: {self.out}/against.md cannot be written: Is a directory\n", output)
        self.assertEqual(self.verdicts(), [("*ref", "same")])

    def test_replaces_what_an_earlier_run_of_the_suite_wrote(self):
        self.costs("this", 10)
        self.costs("other", 10)
        self.out.mkdir()
        for name in ("README.md", "deref.json", "deref.goals-1.svg", "mine"):
            (self.out / name).touch()
        (self.out / "run.json").write_text(
            '{"schema": "cowshed.bench-run/1", "files": ["deref.json", "deref.goals-1.svg"]}',
            encoding="utf-8")
        self.assertEqual(self.compare()[0], 0)
        self.assertEqual(sorted(path.name for path in self.out.iterdir()),
                         ["against.json", "against.md", "mine"])

    def test_interrupted_it_says_so(self):
        started = self.folder / "started"
        self.program("this", f"#!/bin/sh\necho $$ >{started}\nexec sleep 1000\n")
        self.costs("other", 10)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            started.unlink(missing_ok=True)
            with self.start() as process:
                while not started.exists() or not started.read_text(encoding="ascii").strip():
                    time.sleep(0.01)
                process.send_signal(number)
                output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, output)
            self.assertIn("Interrupted", output)
            self.assertFalse(pathlib.Path("/proc", started.read_text(encoding="ascii").strip()).exists())


class ReadAnewTest(unittest.TestCase):
    def test_programs_of_both_are_dropped_and_read_whole(self):
        size = 3 * against.CHUNK + 1
        with tempfile.TemporaryDirectory() as folder:
            builds = [pathlib.Path(folder) / name for name in ("ours", "theirs")]
            programs = [build / name for build in builds
                        for name in ("bench/deref", "tools/cowtop", "tests/tools/demo_test")]
            others = [build / name for build in builds for name in ("bench/notes", "share/program")]
            for path in programs + others:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * size)
                path.chmod(0o644 if path.name == "notes" else 0o755)
            seen = []

            def name_of(number):
                return pathlib.Path(os.readlink(f"/proc/self/fd/{number}"))

            with mock.patch.object(os, "fsync", lambda number: seen.append(("synced", name_of(number)))), \
                 mock.patch.object(os, "posix_fadvise",
                                   lambda number, begin, length, advice:
                                   seen.append((begin, length, advice, name_of(number)))):
                before = bytes_read()
                against.read_anew(builds)
                self.assertGreaterEqual(bytes_read() - before, size * len(programs))
            self.assertCountEqual(seen[::2], [("synced", path) for path in programs])
            self.assertEqual(seen[1::2], [(0, 0, os.POSIX_FADV_DONTNEED, path)
                                          for _, path in seen[::2]])


def bytes_read():
    fields = dict(line.split(": ") for line in
                  pathlib.Path("/proc/self/io").read_text(encoding="utf-8").splitlines())
    return int(fields["rchar"])


class PlanTest(unittest.TestCase):
    def test_each_benchmark_is_compared_or_said_not_to_be(self):
        compared = {part.benchmark for part in plan.AGAINST}
        for name in plan.benchmarks():
            self.assertTrue(name in compared or any(name in what for what in plan.NOT_COMPARED), name)

    def test_each_part_has_figures_that_the_documentation_has(self):
        reports = page.read([SOURCE / "docs/performance.md"])
        for part in plan.AGAINST:
            for ours in part.ours:
                one = dataclasses.replace(part, ours=(ours,))
                report = reports[part.benchmark]
                goals = [{"unit": "", "bound": "", **goal} for goal in report["goals"]]
                self.assertTrue(any(against.is_ours(one, row)
                                    for row in against.rows_of({**report, "goals": goals})), one)


if __name__ == "__main__":
    unittest.main(verbosity=2)
