"""Tests that a master that freezes again and again grows as one that does not; see generations.py."""

import os
import subprocess
import sys
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
COUNT = os.environ.get("COWSHED_GENERATIONS", "1000")
HUGE_PAGE = 2048 / (0.9 * int(COUNT))  # KiB a generation, when either has one more


def growth(mode):
    done = subprocess.run([sys.executable, os.path.join(FOLDER, "generations.py"), mode, COUNT],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return float(done.stdout)


class GenerationsTest(unittest.TestCase):
    def test_grows_as_without(self):
        plain, frozen = growth("plain"), growth("cowshed")
        print(f"{plain} KiB a generation, frozen {frozen}")
        self.assertLess(frozen, 1.1 * plain + HUGE_PAGE)


if __name__ == "__main__":
    unittest.main()
