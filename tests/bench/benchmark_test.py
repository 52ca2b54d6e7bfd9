#!/usr/bin/env python3
"""Runs one benchmark in a tiny size by the suite, and looks at all that is written, and at what
docs/performance.md has of it: benchmark_test.py BUILD NAME"""

import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77
BUILD, NAME = sys.argv[1:3]


def rows_of(report):
    """What each row of the tables begins with."""
    rows = [(row["what"],) for row in report["goals"]]
    rows += [(row["group"], row["name"]) for kind in ("figures", "ratios") for row in report[kind]]
    return rows + [(row["group"], "the same against itself") for row in report["controls"]]


def without_sizes(row):
    """They differ between a tiny run and a full one."""
    return tuple(re.sub(r"[\d.]+ (KiB|MiB|GiB|workers?|threads?|pages)\b", "SIZE", cell).replace(": **void**", "")
                 for cell in row)


def section_of(page, name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"),
                        re.MULTILINE | re.DOTALL)
    return section[1] if section else ""


def settings_of(names):
    """Without those that tell of the machine that ran it, and of the sizes that were too large for
    it."""
    return {without_sizes((name,)) for name in names
            if not name.endswith((", not possible", ", as granted"))}


def rows_of_page(page, name):
    rows = []
    columns = None
    for line in section_of(page, name).splitlines():
        cells = tuple(line.strip("| ").split(" | "))
        if cells[0] in ("goal", "group"):
            columns = 1 if cells[0] == "goal" else 2
        elif line.startswith("| "):
            rows.append(cells[:columns])
    return rows


class BenchmarkTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-bench-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.out = pathlib.Path(folder.name)
        run = subprocess.run(["/usr/bin/python3", "-B", SOURCE / "bench/suite", BUILD, cls.out,
                              "--size", "tiny", "--only", NAME], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.STDOUT, check=False)
        print(run.stdout)
        cls.index = json.loads((cls.out / "run.json").read_text(encoding="utf-8"))
        if cls.index["skipped"]:
            print("skipped:", cls.index["skipped"][0]["why"])
            sys.exit(SKIPPED)
        if run.returncode != 0:
            sys.exit(run.returncode)
        cls.report = json.loads((cls.out / f"{NAME}.json").read_text(encoding="utf-8"))

    def test_names_all_its_files(self):
        self.assertEqual(sorted(path.name for path in self.out.iterdir()), self.index["files"])

    def test_csv_has_every_row(self):
        with open(self.out / "results.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        measured = [row for row in rows if row["kind"] != "exponent"]
        told = [(row["name"],) if row["kind"] == "goal" else (row["group"], row["name"])
                for row in measured]
        self.assertCountEqual(told, rows_of(self.report))
        for row in measured:
            self.assertEqual(row["benchmark"], NAME)
            float(row["value"])
            if row["kind"] != "figure":
                self.assertLessEqual(float(row["low"]), float(row["value"]), row)
                self.assertGreaterEqual(float(row["high"]), float(row["value"]), row)

    def test_tables_have_every_row(self):
        told = [without_sizes(row) for row in rows_of_page(self.out / "performance.md", NAME)]
        self.assertCountEqual(told, [without_sizes(row) for row in rows_of(self.report)])

    def test_documentation_has_these_rows_and_no_others(self):
        written = {without_sizes(row) for row in rows_of_page(SOURCE / "docs/performance.md", NAME)}
        self.assertEqual(written, {without_sizes(row) for row in rows_of(self.report)})

    def test_documentation_has_these_settings_and_no_others(self):
        section = section_of(SOURCE / "docs/performance.md", NAME)
        self.assertEqual(settings_of(re.findall(r"^\* (.+?): ", section, re.MULTILINE)),
                         settings_of(row["name"] for row in self.report["settings"]))

    def test_summary_has_the_machine_the_doubts_and_the_plots(self):
        summary = (self.out / "README.md").read_text(encoding="utf-8")
        for fact in ("processor", "cores", "memory", "kernel", "THP", "load at the start"):
            self.assertRegex(summary, rf"\* {fact}: \S")
        self.assertIn("In tiny sizes", summary)
        for file in self.out.glob("*.svg"):
            self.assertIn(f"]({file.name})", summary)

    def test_plots_show_every_goal_and_figure(self):
        drawn = ""
        marks = 0
        for file in self.out.glob("*.svg"):
            text = file.read_text(encoding="utf-8")
            root = xml.fromstring(text)  # of what is not one, this throws
            ground = next(element for element in root.iter() if element.tag.endswith("}path"))
            self.assertIn("fill: #ffffff", ground.get("style"), "on a dark page it is unreadable")
            marks += sum(element.tag.endswith("}use") for element in root.iter())
            drawn += text
        # Letters are drawn as outlines, beside which their text is a comment.
        texts = "\n".join(re.findall("<!-- (.*?) -->", drawn, re.DOTALL)).replace("- -", "--")
        for row in self.report["goals"]:
            self.assertIn(row["what"], texts)
        for row in self.report["figures"]:
            self.assertIn(row["group"], texts)
            self.assertIn(row["name"], texts)
        self.assertGreater(marks, len(self.report["goals"]) + len(self.report["figures"]))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
