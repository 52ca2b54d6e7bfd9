#!/usr/bin/env python3
"""The suite over benchmarks that do as this test tells them: BENCHMARKS="those of bench/" suite_test.py"""

import csv
import json
import math
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import jsonschema

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SUITE = SOURCE / "bench/suite"
sys.dont_write_bytecode = True
sys.path.append(str(SUITE))

import plan  # noqa: E402
import page  # noqa: E402
import publish  # noqa: E402
import results  # noqa: E402

# One that writes a report, and one that does not.
REPORT = {"schema": "cowshed.bench/1", "benchmark": "measuring", "question": "whether it works",
          "machine": {"processor": "one", "cores": 2, "memory_bytes": 1, "kernel": "6", "glibc": "2",
                      "thp": "a", "shmem_thp": "b"},
          "settings": [{"name": "rival", "text": "its call"}],
          "figures": [{"group": "copy", "name": "none", "value": 2, "unit": "ns"}], "ratios": [],
          "controls": [{"group": "copy", "measured": 1.2, "low": 1.1, "high": 1.3, "pairs": 9,
                        "void": True}],
          "goals": [{"what": "copy: fast", "bound": "at_most", "limit": 1, "unit": "",
                     "measured": 2, "low": 2, "high": 2, "verdict": "missed"}]}
WRITES = """#!/usr/bin/python3
import json, sys
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(%r))
""" % REPORT
# Each of its runs has a setting of its own, and one that all have.
DIFFERS = WRITES.replace("'text': 'its call'}", "'text': 'its call'}, "
                         "{'name': 'what', 'text': ' '.join(sys.argv[1:-2])}")
FAILS = "#!/bin/sh\necho 'measuring: the answer is wrong'\nexit 1\n"
# The second of the plan's runs waits for ever, which it tells; with a process of its own.
WAITS = """#!/bin/sh
case "$*" in
  *copy*) exec %s "$@" ;;
esac
sh -c 'echo $$ >%s; exec sleep 1000'
"""


class OfFakes(unittest.TestCase):
    """Runs the suite over programs that do as a test tells them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-suite-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"
        self.doctor(works=True)

    def program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def doctor(self, works):
        backends = json.dumps({"backends": [{"backend": "tracepoint", "works": works}]})
        self.program("tools/cowtop", f"#!/bin/sh\necho '{backends}'\n")

    def start(self, *arguments, prepare=None):
        return subprocess.Popen(["/usr/bin/python3", "-B", SUITE, self.folder, self.out,
                                 "--only", "measuring", *arguments], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, preexec_fn=prepare)

    def run_suite(self, *arguments, prepare=None):
        with self.start(*arguments, prepare=prepare) as process:
            output, _ = process.communicate()
        return process.returncode, output

    def start_and_wait_for_the_second(self):
        writes = self.program("writes", WRITES)
        started = self.folder / "started"
        self.program("bench/measuring", WAITS % (writes, started))
        process = self.start("--size", "full")
        for line in process.stdout:
            if line.startswith("[2/"):
                break
        while not started.exists() or not started.read_text(encoding="ascii").strip():
            time.sleep(0.01)
        return process, int(started.read_text(encoding="ascii"))

    def table(self):
        with open(self.out / "results.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def index(self):
        index = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        jsonschema.validate(index, json.loads(
            (SOURCE / "docs/schemas/cowshed.bench-run-1.json").read_text(encoding="utf-8")))
        return index

    def summary(self):
        return (self.out / "README.md").read_text(encoding="utf-8")


class SuiteTest(OfFakes):
    def test_a_missed_goal_is_told_and_no_failure(self):
        self.program("bench/measuring", WRITES)
        code, output = self.run_suite("--size", "full")
        self.assertEqual(code, 0, output)
        self.assertIn("missed: measuring, copy: fast", output)
        self.assertIn("* missed: measuring, copy: fast: docs/missed_goals.md does not say why",
                      self.summary())
        self.assertIn("missed", (self.out / "results.csv").read_text(encoding="utf-8"))

    def test_several_runs_of_one_benchmark_keep_the_settings_of_all(self):
        self.program("bench/measuring", DIFFERS)
        self.run_suite("--size", "full")
        own = [" ".join(part.arguments) for part in plan.PLAN["full"] if part.benchmark == "measuring"]
        page = (self.out / "performance.md").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r"^\* (.*)$", page.partition("\n## ")[2], re.MULTILINE),
                         ["rival: its call", *(f"what: {arguments}" for arguments in own)])
        self.assertGreater(len(own), 1)
        # By hand, of each run's own report.
        paths = []
        for arguments in own[:2]:
            paths.append(self.folder / f"{len(paths)}.json")
            settings = [{"name": "what", "text": arguments}]
            paths[-1].write_text(json.dumps({**REPORT, "settings": settings}), encoding="utf-8")
        made = subprocess.run([SOURCE / "bench/performance_page", "abc", *paths], check=True,
                              capture_output=True, text=True).stdout
        self.assertEqual(re.findall(r"^\* (.*)$", made, re.MULTILINE),
                         [f"what: {arguments}" for arguments in own[:2]])

    def test_noise_is_a_doubt(self):
        self.program("bench/measuring", WRITES)
        self.run_suite("--size", "full")
        self.assertIn("measuring, copy: void, the same against itself came out at 1.2", self.summary())

    def test_a_wrong_answer_is_a_failure_and_the_rest_is_written(self):
        self.program("bench/measuring", FAILS)
        code, output = self.run_suite("--size", "full")
        self.assertEqual(code, 1, output)
        self.assertIn("FAILED", output)
        self.assertIn('measuring --pairs 4 --only "no faults" failed with exit code 1: '
                      "measuring: the answer is wrong", self.summary())
        self.assertEqual([run["exit_code"] for run in self.index()["runs"]], [1] * 5)

    def test_what_the_machine_cannot_do_is_skipped_with_the_reason(self):
        self.doctor(works=False)
        self.program("bench/measuring", FAILS)
        code, output = self.run_suite("--size", "tiny")
        self.assertEqual(code, 0, output)
        self.assertIn("skipped: cowtop's exact backend does not work here", output)
        self.assertIn("measuring --quick was skipped: cowtop's exact backend", self.summary())

    def test_interrupted_it_writes_what_was_measured(self):
        process, its_own = self.start_and_wait_for_the_second()
        with process:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, output)
        self.assertTrue(self.index()["interrupted"])
        self.assertIn("Interrupted", self.summary())
        self.assertIn("copy: fast", (self.out / "results.csv").read_text(encoding="utf-8"))
        left = pathlib.Path(f"/proc/{its_own}/cmdline")
        self.assertFalse(left.exists() and left.read_bytes(), "the benchmark's own process is left")

    def test_killed_it_leaves_what_was_measured(self):
        process, its_own = self.start_and_wait_for_the_second()
        with process:
            process.kill()
            os.kill(its_own, signal.SIGKILL)
        self.assertFalse(self.index()["finished"])
        self.assertEqual(json.loads((self.out / "measuring.json").read_text(encoding="utf-8")), REPORT)
        self.program("bench/measuring", FAILS)
        self.run_suite("--size", "tiny")
        self.assertTrue(self.index()["finished"])
        self.assertFalse((self.out / "measuring.json").exists(), "of the run before")

    def test_what_cannot_be_written_is_told_and_the_rest_is_there(self):
        self.program("bench/measuring", WRITES)
        code, output = self.run_suite("--size", "tiny", prepare=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (2500, 2500)))
        self.assertEqual(code, 1, output)
        self.assertIn(f"bench: {self.out}/measuring.*.svg cannot be written: File too large\n", output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(list(self.out.glob("*.svg")), [])
        self.assertEqual(json.loads((self.out / "measuring.json").read_text(encoding="utf-8")), REPORT)
        self.assertIn("measuring.*.svg cannot be written: File too large", self.summary())
        self.assertTrue(self.table())

    def test_a_folder_that_cannot_be_made_is_named(self):
        (self.folder / "file").touch()
        self.out = self.folder / "file/out"
        code, output = self.run_suite("--size", "tiny")
        self.assertEqual(code, 1)
        self.assertRegex(output, r"^bench: .*file/out: Not a directory\n$")

    def test_a_report_that_is_odd_does_not_hinder_the_rest(self):
        self.program("bench/measuring", WRITES.replace("json.dumps(", """json.dumps(
            {**REPORT, 'figures': None} if 'copy' in sys.argv else """.replace("REPORT", repr(REPORT))))
        code, output = self.run_suite("--size", "full")
        self.assertEqual(code, 1, output)
        self.assertEqual([run["exit_code"] for run in self.index()["runs"]], [1, 0, 0, 0, 0])
        self.assertIn('measuring --pairs 6 --only copy failed with exit code 1: its report cannot be '
                      "read: None is not of type 'array'", self.summary())
        self.assertEqual({row["value"] for row in self.table()}, {"2", "1.2"})

    def test_the_csv_says_what_is_void_or_tiny(self):
        self.program("bench/measuring", WRITES)
        self.run_suite("--size", "full")
        self.assertEqual({(row["kind"], row["verdict"]) for row in self.table()},
                         {("goal", "missed"), ("figure", "void"), ("control", "void")})
        self.run_suite("--size", "tiny")
        self.assertEqual({row["verdict"] for row in self.table()}, {"tiny sizes"})

    def test_replaces_what_an_earlier_run_wrote_and_nothing_else(self):
        self.program("bench/measuring", WRITES)
        self.run_suite("--size", "tiny")
        (self.out / "mine").touch()
        self.program("bench/measuring", FAILS)
        self.run_suite("--size", "tiny")
        self.assertEqual(sorted(path.name for path in self.out.iterdir()),
                         ["README.md", "mine", "results.csv", "run.json"])

    def test_what_goes_wrong_unforeseen_is_that_part_s_failure(self):
        for program in (None, WRITES.replace("json.dumps(", "'{' + json.dumps("),
                        "#!/bin/sh\nprintf '\\377'\nexit 1\n"):
            if program:
                self.program("bench/measuring", program)
            code, output = self.run_suite("--size", "tiny")
            self.assertEqual(code, 1, output)
            self.assertEqual([run["exit_code"] for run in self.index()["runs"]], [1])

    def test_an_index_of_something_else_is_left_alone(self):
        self.out.mkdir()
        (self.out / "run.json").write_text('{"files": ["../mine"]}', encoding="utf-8")
        (self.folder / "mine").touch()
        code, output = self.run_suite("--size", "tiny")
        self.assertEqual(code, 1)
        self.assertIn("is not of this command", output)
        (self.out / "run.json").write_text(
            '{"schema": "cowshed.bench-run/1", "files": ["../mine"]}', encoding="utf-8")
        self.program("bench/measuring", WRITES)
        self.assertEqual(self.run_suite("--size", "tiny")[0], 0)
        self.assertTrue((self.folder / "mine").exists())

    def test_a_comparison_of_something_else_is_left_alone(self):
        self.out.mkdir()
        for text in ("{}", "[]", "no JSON"):
            (self.out / "against.json").write_text(text, encoding="utf-8")
            (self.out / "against.md").write_text("mine", encoding="utf-8")
            code, output = self.run_suite("--size", "tiny")
            self.assertEqual(code, 1)
            self.assertIn("against.json is not of this command", output)
            self.assertTrue((self.out / "against.md").exists())

    def test_goes_on_when_nobody_reads_what_it_says(self):
        self.program("bench/measuring", WRITES)
        process = self.start("--size", "full")
        process.stdout.close()
        self.assertEqual(process.wait(60), 0)
        self.assertTrue(self.index()["finished"])
        self.assertTrue(self.table())


class DocsTest(OfFakes):
    """What a run leaves in README.md and docs/ of the project."""

    def setUp(self):
        super().setUp()
        self.root = self.folder / "root"
        (self.root / "docs/images").mkdir(parents=True)
        for name in ("README.md", "docs/performance.md"):
            (self.root / name).write_bytes((SOURCE / name).read_bytes())

    def assert_untouched(self):
        for name in ("README.md", "docs/performance.md"):
            self.assertEqual((self.root / name).read_bytes(), (SOURCE / name).read_bytes())
        self.assertFalse((self.root / "docs/growth.md").exists())

    def test_a_run_that_failed_in_part_leaves_them(self):
        self.program("bench/measuring", FAILS)
        code, output = self.run_suite("--docs", self.root)
        self.assertEqual(code, 1)
        self.assertIn("bench: README.md and docs/ are left as they were: the run is not whole\n", output)
        self.assert_untouched()

    def test_a_run_without_what_the_tables_are_of_leaves_them(self):
        self.program("bench/measuring", WRITES)
        code, output = self.run_suite("--docs", self.root)
        self.assertEqual(code, 1)
        self.assertIn("bench: README.md and docs/ are left as they were: LookupError: fork_latency ", output)
        self.assert_untouched()

    def test_a_whole_run_is_in_all_of_them(self):
        # What is there is of a whole run.
        publish.publish(SOURCE / "docs/performance.md", self.root)
        for name in ("README.md", "docs/performance.md", "docs/growth.md"):
            self.assertEqual((self.root / name).read_bytes(), (SOURCE / name).read_bytes(), name)
        self.assertTrue((self.root / "docs/images/growth.svg").exists())


class PageTest(unittest.TestCase):
    @staticmethod
    def page_of(report):
        with tempfile.TemporaryDirectory(prefix="cowshed-page-test-") as folder:
            path = pathlib.Path(folder, "measuring.json")
            path.write_text(json.dumps(report), encoding="utf-8")
            return subprocess.run([SOURCE / "bench/performance_page", "abc", path], check=True,
                                  capture_output=True, text=True).stdout

    def test_a_control_of_more_pairs_than_what_it_stands_for_is_not_its_count(self):
        ratio = {"group": "copy", "name": "one to none", "measured": 2, "low": 1, "high": 3, "pairs": 2}
        self.assertIn("whether it works. Pairs: 2.\n", self.page_of({**REPORT, "ratios": [ratio]}))

    def test_only_a_ratio_has_no_bound(self):
        made = self.page_of({
            **REPORT, "figures": [{"group": "copy", "name": "none", "value": 1000, "unit": ""}],
            "ratios": [{"group": "copy", "name": "one to none", "measured": 1000, "low": 7,
                        "high": 1000, "pairs": 9}]})
        self.assertIn("\n| copy | none | 1000 |\n", made)
        self.assertIn("\n| copy | one to none | inf [7, inf] |\n", made)

    def test_pairs_are_of_a_group_its_folder_or_all(self):
        self.assertEqual(page.pairs_in("x. Pairs: 4."), {"": 4})
        self.assertEqual(page.pairs_in("x. Pairs: 1 (rate/5 GiB), 4 (rate; copy, 2 CPUs)."),
                         {"rate/5 GiB": 1, "rate": 4, "copy, 2 CPUs": 4})
        self.assertEqual(page.pairs_in("x."), {})

    def test_the_documentation_has_as_many_as_were_measured(self):
        reports = page.read([SOURCE / "docs/performance.md"])
        for report in reports.values():
            for row in report["controls"]:
                self.assertGreater(row["pairs"], 0, row)


class ListsTest(unittest.TestCase):
    """What is said of the benchmarks in several places."""

    def setUp(self):
        self.benchmarks = sorted(os.environ["BENCHMARKS"].split())

    def test_every_size_has_every_benchmark(self):
        for parts in plan.PLAN.values():
            self.assertEqual(sorted({part.benchmark for part in parts}), self.benchmarks)

    def test_the_command_knows_every_benchmark(self):
        command = (SOURCE / "tools/bench").read_text(encoding="utf-8")
        listed = re.search('^benchmarks="(.*)"$', command, re.MULTILINE)[1].split()
        self.assertEqual(sorted(listed), self.benchmarks)

    def test_the_readme_names_every_benchmark(self):
        readme = (SOURCE / "README.md").read_text(encoding="utf-8")
        paragraph = next(text for text in readme.split("\n\n") if "beside it measure the rest" in text)
        named = set(re.findall(r"`(\w+)`", paragraph)) | {"fork_latency"}
        self.assertEqual(sorted(named), self.benchmarks)

    def test_the_documentation_has_every_benchmark(self):
        page = (SOURCE / "docs/performance.md").read_text(encoding="utf-8")
        self.assertEqual(sorted(re.findall(r"^## (\w+)$", page, re.MULTILINE)), self.benchmarks)


class HeadroomTest(unittest.TestCase):
    """Of made-up memory cgroups."""

    def headroom(self, membership, files):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="ascii")
            own = folder / "own"
            own.write_text(membership, encoding="ascii")
            with mock.patch.object(plan, "CGROUPS", folder), mock.patch.object(plan, "OWN_CGROUPS", own):
                return plan.cgroup_headroom()

    def test_of_the_second_version_the_least_of_all_above(self):
        stat = "anon 1\ninactive_file 30\nactive_file 20\n"
        self.assertEqual(self.headroom("0::/a/b\n", {
            "a/b/memory.max": "max\n", "a/b/memory.current": "400\n", "a/b/memory.stat": stat,
            "a/memory.max": "1000\n", "a/memory.current": "600\n", "a/memory.stat": stat}), 450)

    def test_of_the_first_version(self):
        self.assertEqual(self.headroom("7:pids:/\n4:cpu,memory:/a\n0::/\n", {
            "memory/a/memory.limit_in_bytes": "1000\n", "memory/a/memory.usage_in_bytes": "600\n",
            "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20\n"}),
            450)

    def test_without_a_limit_or_a_controller(self):
        self.assertEqual(self.headroom("0::/a\n", {}), math.inf)


class HelpTest(unittest.TestCase):
    """./tools/bench, as far as it goes before it installs and builds anything."""

    @staticmethod
    def command(*arguments):
        return subprocess.run([SOURCE / "tools/bench", *arguments], capture_output=True, text=True,
                              check=False, timeout=60)

    def test_says_how_much_memory_the_whole_plan_takes(self):
        said = re.search(r"up to (\d+) GiB of memory", self.command("--help").stdout)[1]
        self.assertEqual(int(said), max(part.gib for part in plan.PLAN["full"]))

    def test_compares_each_with_another_commit(self):
        self.assertEqual({part.benchmark for part in plan.AGAINST}, set(plan.benchmarks()))
        for name in plan.benchmarks():
            # The name passes, but there is no such commit, so that nothing is built.
            run = self.command("--against", "no-such-commit", "--only", name, "--out", "/nowhere")
            self.assertEqual(run.returncode, 2, run.stderr)

    def test_a_value_that_is_missing_is_no_option(self):
        for arguments in (("--out", "--quick"), ("--out", "-x"), ("--only",), ("--against", "")):
            run = self.command(*arguments)
            self.assertEqual((run.returncode, run.stderr),
                             (2, f"bench: {arguments[0]} needs a value, which begins with no '-' "
                                 "(see --help)\n"))

    def test_called_by_a_link_it_is_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            link = pathlib.Path(folder) / "bench"
            link.symlink_to(SOURCE / "tools/bench")
            run = subprocess.run([link, "--against", "no-such-commit"], capture_output=True, text=True,
                                 check=False, timeout=60, env={**os.environ, "CDPATH": "/usr"})
            self.assertEqual((run.returncode, run.stdout), (2, ""), run.stderr)
            self.assertIn("there is no commit 'no-such-commit'", run.stderr)

    def test_says_its_version(self):
        self.assertRegex(self.command("--version").stdout, r"^Cowshed's benchmarks, \S.*\n$")

    def test_the_documentation_is_of_a_whole_run(self):
        for others in (("--quick",), ("--only", "deref"), ("--against", "HEAD")):
            run = self.command("--docs", *others)
            self.assertEqual((run.returncode, run.stderr),
                             (2, "bench: --docs is of a whole run, without --quick, --only and --against "
                                 "(see --help)\n"))

    def test_two_names_are_refused_instead_of_the_first_forgotten(self):
        run = self.command("--only", "deref", "--only", "fill", "--out", "/nowhere")
        self.assertEqual((run.returncode, run.stderr), (2, "bench: --only takes one name (see --help)\n"))


class MissedGoalsTest(unittest.TestCase):
    """docs/missed_goals.md says of every goal that docs/performance.md has as missed why it is."""

    def setUp(self):
        page = (SOURCE / "docs/performance.md").read_text(encoding="utf-8")
        sections = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)[1:]
        self.verdicts = {(name, cells[0]): cells[3]
                         for name, text in zip(sections[::2], sections[1::2])
                         for cells in (line.strip("| ").split(" | ") for line in text.splitlines())
                         if len(cells) == 4 and cells[3] in ("met", "undecided", "missed", "void")}
        self.analyses = results.analyses(SOURCE)

    def test_each_is_analysed(self):
        missed = {goal for goal, verdict in self.verdicts.items() if verdict == "missed"}
        missed |= self.voids_beyond_their_limit()
        self.assertTrue(missed)
        self.assertEqual(missed - set(self.analyses), set())
        for goal in missed:
            self.assertGreater(len(self.analyses[goal].split()), 20, goal)

    @staticmethod
    def voids_beyond_their_limit():
        """With their whole interval: noise alone may not be why."""
        found = set()
        for name, report in page.read([SOURCE / "docs/performance.md"]).items():
            for row in report["goals"]:
                bound, limit = re.match(r"(at \w+) ([\d.e+-]+)", row["limit"]).groups()
                beyond = (row["low"] > float(limit) if bound == "at most" else
                          row["high"] < float(limit))
                if row["verdict"] == "void" and beyond:
                    found.add((name, row["what"]))
        return found

    def test_what_is_analysed_is_a_goal(self):
        self.assertEqual(set(self.analyses) - set(self.verdicts), set())


if __name__ == "__main__":
    unittest.main(verbosity=2)
