"""Tests how much workers copy that read frozen data, of what they copy without: by cowtop, and by smaps.

COWTOP, READINGS_MIB (300) and READINGS_WORKERS (8) may be set."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import unittest

COWTOP = os.environ["COWTOP"]
FOLDER = os.path.dirname(os.path.abspath(__file__))


class Copies:
    def __init__(self, mode, method, *kinds):
        environment = {"READINGS_MIB": "300", **os.environ,
                       "PYTHONPATH": os.pathsep.join((FOLDER, os.environ["PYTHONPATH"]))}
        with tempfile.NamedTemporaryFile() as report:
            done = subprocess.run([COWTOP, "--json", "--no-sites", "-o", report.name, "--", sys.executable, "-c",
                                   f"import readings; readings.main(*{(mode, method, *kinds)!r})"],
                                  env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise AssertionError(done.stderr)
            processes = json.load(report)["processes"]
        self.private = [int(line) / 1024 for line in done.stdout.splitlines()]
        workers = sorted((process["copied_pages"] / 256 for process in processes
                          if process["role"] == "child" and not process["execs"]), reverse=True)
        self.copied = workers[:len(self.private)]  # the forkserver's own parts copy less

    def __str__(self):
        return (f"copied {statistics.median(self.copied):.2f} MiB (at most {max(self.copied):.2f}), "
                f"private {statistics.median(self.private):.2f} MiB (at most {max(self.private):.2f})")


class ReadingsTest(unittest.TestCase):
    def compare(self, method, *kinds, share=0.01):
        plain, frozen = Copies("plain", method, *kinds), Copies("cowshed", method, *kinds)
        print(f"{method} {' '.join(kinds)}: plain {plain}; cowshed {frozen}")
        self.assertLess(max(frozen.copied), share * min(plain.copied))
        self.assertLess(max(frozen.private), 3 * share * min(plain.private))  # with the worker's own memory

    def test_fork(self):
        self.compare("fork")

    @unittest.skipUnless(importlib.util.find_spec("pandas"), "pandas is not installed")
    def test_frames(self):
        self.compare("fork", "frames", share=0.05)

    def test_forkserver(self):
        self.compare("forkserver")


if __name__ == "__main__":
    unittest.main()
