#!/usr/bin/env python3
"""That tests/skips.py fails for what is skipped and not listed: SOURCE=... python3 skips_test.py"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(os.environ["SOURCE"]) / "tests/skips.py"
LIST = "# a comment\n\nasan Arena\\..* the sanitizer needs more\n* Swap no swap here\n"


def case(name, status="run", output=""):
    skipped = "<skipped/>" if status == "notrun" else ""
    return f'<testcase name="{name}" status="{status}">{skipped}<system-out>{output}</system-out></testcase>'


class SkipsTest(unittest.TestCase):
    def judge(self, *cases, preset="asan", skips=LIST):
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            (place / "skips").write_text(skips, encoding="utf-8")
            (place / "results.xml").write_text(f"<testsuite>{''.join(cases)}</testsuite>", encoding="utf-8")
            return subprocess.run([sys.executable, SCRIPT, place / "skips", preset, place / "results.xml"],
                                  capture_output=True, text=True, check=False)  # fmt: skip

    def test_a_listed_skip_is_printed_and_passes(self):
        done = self.judge(case("Arena.Runs"), case("Arena.Grows", "notrun", "a.cc:7: Skipped\nthe sanitizer needs more space\n"))
        self.assertEqual((done.returncode, done.stdout),
                         (0, "skipped: Arena.Grows: the sanitizer needs more space\n"))  # fmt: skip

    def test_an_unlisted_skip_fails(self):
        for cases, preset in (
            ([case("Forks", "notrun", "a.cc:7: Skipped\nbecause\n")], "asan"),
            ([case("Arena.Grows", "notrun", "another reason")], "asan"),
            ([case("Arena.Grows", "notrun", "the sanitizer needs more")], "release"),
            ([case("My.Arena.Grows", "notrun", "the sanitizer needs more")], "asan"),
        ):
            done = self.judge(case("Runs"), *cases, preset=preset)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("skipped, and not in ", done.stdout)

    def test_what_was_not_run_fails(self):
        for status in ("disabled", "fail"):
            self.assertNotEqual(self.judge(case("Swap", status, "no swap here")).returncode, 0)

    def test_no_test_at_all_fails(self):
        self.assertNotEqual(self.judge().returncode, 0)

    def test_a_list_without_reasons_fails(self):
        self.assertNotEqual(self.judge(case("Runs"), skips="* .*\n").returncode, 0)


if __name__ == "__main__":
    unittest.main()
