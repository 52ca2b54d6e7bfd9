#!/usr/bin/env python3
"""README.md's table of what to choose: its form, of whatever times; and what it chooses of times
that are known."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
COMMAND = SOURCE / "bench/suite/decision.py"
sys.dont_write_bytecode = True
sys.path.append(str(COMMAND.parent))

import decision  # noqa: E402
import page  # noqa: E402


def rows_of(text):
    between = text.split(decision.BEGIN)[1].split(decision.END)[0]
    return [line.strip("| ").split(" | ") for line in between.splitlines()[2:]]


class ReadmeTest(unittest.TestCase):
    def setUp(self):
        self.rows = rows_of((SOURCE / "README.md").read_text(encoding="utf-8"))

    def test_has_every_situation_in_turn(self):
        self.assertEqual([row[0] for row in self.rows],
                         [situation.have for situation in decision.SITUATIONS],
                         "python3 bench/suite/decision.py writes them")

    def test_each_row_chooses_by_a_figure_and_names_the_others(self):
        for situation, (_, chosen, measured, others) in zip(decision.SITUATIONS, self.rows):
            chosen = chosen.split(" or ")
            self.assertLessEqual(set(chosen), {choice.text for choice in situation.choices})
            self.assertRegex(measured, rf"^{re.escape(situation.measure)}: ~?[\d.e+]+( .+)?$")
            for choice in situation.choices:
                self.assertEqual(f"{choice.text}: " in others, choice.text != chosen[0], others)

    def test_the_documentation_has_every_figure(self):
        reports = page.read([SOURCE / "docs/performance.md"])
        for situation in decision.SITUATIONS:
            for choice in situation.choices:
                situation.figure_of(choice, reports)


class ChoiceTest(unittest.TestCase):
    def test_those_that_none_beats_clearly_the_simplest_first(self):
        self.assertEqual(decision.choose({"simple": 12, "clever": 10}), ["simple", "clever"])
        self.assertEqual(decision.choose({"simple": 13, "clever": 10, "cleverer": 9.5}),
                         ["clever", "cleverer"])

    def test_amounts_are_told_in_the_unit_that_fits(self):
        row = {"group": "g", "value": 272895, "unit": "us"}
        self.assertEqual(decision.amount(row, set()), "273 ms")
        self.assertEqual(decision.amount(row, {"g"}), "~273 ms")
        self.assertEqual(decision.amount({**row, "value": 1004, "unit": "MiB"}, set()), "1004 MiB")
        self.assertEqual(decision.amount({**row, "value": 2, "unit": ""}, set()), "2")


class CommandTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-decision-test-")
        self.addCleanup(folder.cleanup)
        self.readme = pathlib.Path(folder.name) / "README.md"

    def run_command(self, *results):
        return subprocess.run(["/usr/bin/python3", "-B", COMMAND, "--readme", self.readme, *results],
                              capture_output=True, text=True, check=False)

    def test_writes_between_the_marks_alone_and_twice_the_same(self):
        self.readme.write_text(f"before\n{decision.BEGIN}old\n{decision.END}between\n"
                               f"{decision.BEGIN_FORK}old\n{decision.END}after\n", encoding="utf-8")
        self.assertEqual(self.run_command().returncode, 0)
        text = self.readme.read_text(encoding="utf-8")
        self.assertTrue(text.startswith(f"before\n{decision.BEGIN}| you have |"))
        self.assertIn(f" |\n{decision.END}between\n{decision.BEGIN_FORK}```\n", text)
        self.assertTrue(text.endswith(f"]\n```\n{decision.END}after\n"))
        self.assertNotIn("old", text)
        self.assertEqual(len(rows_of(text)), len(decision.SITUATIONS))
        self.run_command()
        self.assertEqual(self.readme.read_text(encoding="utf-8"), text)

    def test_without_marks_or_figures_it_says_so_and_writes_nothing(self):
        self.readme.write_text("no marks\n", encoding="utf-8")
        run = self.run_command()
        self.assertEqual((run.returncode, run.stderr),
                         (1, "decision.py: the marks of the table are missing\n"))
        results = self.readme.with_name("performance.md")
        results.write_text("# Performance\n", encoding="utf-8")
        self.readme.write_text(decision.BEGIN + decision.END, encoding="utf-8")
        run = self.run_command(results)
        self.assertEqual(run.returncode, 1)
        self.assertIn("fork_latency has no figure '12 GiB' in group 'arena/objects'", run.stderr)
        self.assertEqual(self.readme.read_text(encoding="utf-8"), decision.BEGIN + decision.END)


if __name__ == "__main__":
    unittest.main(verbosity=2)
