#!/usr/bin/env python3
"""Benchmarks say so when a rival answers wrongly or is not what it should be, and tell no time:
wrong_answer_test.py BUILD"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv[1])
RIGHT = "return total & WORD"
WRONG = "return total + 1 & WORD"


class WrongAnswerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-wrong-answer-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_here(self, *command):
        return subprocess.run([self.folder / command[0], "--quick", *command[1:]], text=True,
                              capture_output=True, check=False)

    def run_with(self, python):
        shutil.copy(BUILD / "bench/sharing", self.folder)
        rival = self.folder / "sharing_python"
        rival.write_text(python, encoding="utf-8")
        rival.chmod(0o755)
        return self.run_here("sharing", "--only", "1 MiB")

    def test_sharing(self):
        python = (BUILD / "bench/sharing_python").read_text(encoding="utf-8")
        self.assertEqual(python.count(RIGHT), 1)
        right = self.run_with(python)
        self.assertEqual(right.returncode, 0, right.stderr)
        wrong = self.run_with(python.replace(RIGHT, WRONG))
        self.assertEqual(wrong.returncode, 1, wrong.stdout)
        self.assertIn("Python, forked: worker 0 has answered wrongly in pass 0", wrong.stderr)
        self.assertEqual(wrong.stdout, "")

    def test_allocators(self):
        for name in ("allocators", "fill", "fill_scope", "fill_jemalloc"):
            shutil.copy(BUILD / "bench" / name, self.folder)
        shutil.copy(BUILD / "bench/fill", self.folder / "fill_mimalloc")  # with glibc's malloc
        wrong = self.run_here("allocators", "--only", "churn/small")
        self.assertEqual(wrong.returncode, 1, wrong.stdout)
        self.assertRegex(wrong.stderr, "mimalloc: malloc is provided by .*libc")
        self.assertEqual(wrong.stdout, "")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
