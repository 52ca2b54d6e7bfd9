#!/usr/bin/env python3
"""docs/growth.md: its form, of whatever times; and what it says of times that are known."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

SOURCE = pathlib.Path(__file__).resolve().parents[2]
COMMAND = SOURCE / "bench/suite/estimate.py"
sys.dont_write_bytecode = True
sys.path.append(str(COMMAND.parent))

import estimate  # noqa: E402
import growth  # noqa: E402
import page  # noqa: E402


def rows_of(text):
    lines = text.split("## 1 TiB")[1].splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]


class PageTest(unittest.TestCase):
    def test_has_every_term_and_a_remedy_for_each_that_dominates(self):
        text = (SOURCE / "docs/growth.md").read_text(encoding="utf-8")
        rows = rows_of(text)
        self.assertEqual([row[0] for row in rows], list(estimate.NAMES.values()))
        for column, holding in enumerate(estimate.HOLDINGS, 1):
            self.assertEqual(sum(row[column].startswith("**") for row in rows), 2)
            self.assertEqual(text.count(f"\n* {estimate.TITLES[holding]}, "), 2)

    def test_it_claims_no_single_machine(self):
        text = " ".join((SOURCE / "docs/growth.md").read_text(encoding="utf-8").split())
        self.assertIn("on the machine that performance.md names for that benchmark", text)

    def test_the_command_makes_it_and_its_picture(self):
        with tempfile.TemporaryDirectory(prefix="cowshed-estimate-test-") as folder:
            run = subprocess.run(["/usr/bin/python3", "-B", COMMAND, "--docs", folder],
                                 capture_output=True, text=True, check=False)
            self.assertEqual(run.returncode, 0, run.stderr)
            text = pathlib.Path(folder, "growth.md").read_text(encoding="utf-8")
            self.assertEqual([row[0] for row in rows_of(text)], list(estimate.NAMES.values()))
            xml.parse(pathlib.Path(folder, "images/growth.svg"))

    def test_without_the_figures_it_says_which(self):
        with tempfile.TemporaryDirectory(prefix="cowshed-estimate-test-") as folder:
            results = pathlib.Path(folder, "performance.md")
            results.write_text("# Performance\n", encoding="utf-8")
            run = subprocess.run(["/usr/bin/python3", "-B", COMMAND, "--docs", folder, results],
                                 capture_output=True, text=True, check=False)
            self.assertEqual(run.returncode, 1)
            self.assertRegex(run.stderr, "^estimate.py: fork_latency has 'heap/objects' with .*\n$")
            self.assertFalse(pathlib.Path(folder, "growth.md").exists())


class EstimateTest(unittest.TestCase):
    """Of docs/performance.md, with figures that are known in place of its own."""

    def setUp(self):
        self.reports = page.read([SOURCE / "docs/performance.md"])

    def change(self, benchmark, group, cost_of):
        """cost_of: by the name of the figure."""
        for row in self.reports[benchmark]["figures"]:
            if row["group"] == group and re.fullmatch(r"\d+ [MG]iB", row["name"]):
                row["value"] = cost_of(row["name"])

    @staticmethod
    def gib(name):
        number, unit = name.split(" ")
        return int(number) / (1024 if unit == "MiB" else 1)

    def test_what_grows_in_proportion_is_taken_to_1_tib_and_1000_workers(self):
        self.change("fork_latency", "heap/objects", lambda name: 1e6 * self.gib(name))
        for row in self.reports["fork_latency"]["ratios"]:
            if row["group"] == "heap/objects":
                row["low"], row["high"] = 0.9 * row["measured"], 1.1 * row["measured"]
        forks = estimate.time_terms(estimate.Figures(self.reports))["fork()"]["heap"]
        self.assertAlmostEqual(forks.value / (1024 * 1000), 1, 6)
        self.assertLess(forks.low, forks.value)
        self.assertGreater(forks.high, forks.value)

    def test_what_forked_workers_take_to_end_is_what_a_cycle_has_beyond_its_begin(self):
        for row in self.reports["start_methods"]["figures"]:
            what, _, data = row["group"].rpartition("/")
            seconds = {"begin/heap": 1, "cycle/heap": 3}.get(what)
            if seconds and row["name"] == "fork":
                row["value"] = seconds * 1e6 * self.gib(data)
        ends = estimate.time_terms(estimate.Figures(self.reports))["end of what was forked"]["heap"]
        self.assertAlmostEqual(ends.value / (2 * 1024 * 1000), 1, 6)

    def test_what_grows_most_dominates(self):
        lines = "\n".join(estimate.estimate(estimate.Figures(self.reports)))
        self.assertIn("* frozen arena, start and end: ", lines)
        self.change("fork_latency", "arena/objects", lambda name: 1e6 * self.gib(name))
        lines = "\n".join(estimate.estimate(estimate.Figures(self.reports)))
        self.assertIn("* frozen arena, fork(): ", lines)

    def test_amounts(self):
        self.assertEqual(estimate.duration(3 * 3600), "3 hours")
        self.assertEqual(estimate.duration(0.0015), "1.5 ms")
        self.assertEqual(estimate.size(3 * 2 ** 40), "3 TiB")
        self.assertEqual(estimate.size(0), "0")
        self.assertEqual(growth.with_interval(growth.Interval(1, 0.5, 90), estimate.duration),
                         "1 s [500 ms, 1.5 minutes]")


if __name__ == "__main__":
    unittest.main(verbosity=2)
