"""Tests with a limit of copies, run by pytest."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TESTS = '''
import multiprocessing, os, signal
import pytest, cowshed
fork = multiprocessing.get_context("fork")
data = [str(i) * 3 for i in range(300_000)]
def total(_): return sum(map(len, data)) and sum(len(text) for text in data)
def in_a_child(work):
    if (pid := os.fork()) == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
def in_a_pool():
    with fork.Pool(2) as pool: pool.map(total, range(2))

@pytest.mark.limit_copies("8 MiB")
def test_over_in_a_pool(): in_a_pool()
@pytest.mark.limit_copies("8MiB")
def test_over_in_a_child(): in_a_child(lambda: total(0))
@pytest.mark.limit_copies("8 MiB")
def test_over_if_killed(): in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
@pytest.mark.limit_copies("eight")
def test_over_bad_limit(): pass
@pytest.mark.limit_copies(1 << 30)
def test_within(): in_a_pool(); in_a_child(lambda: in_a_child(lambda: total(0)))
def test_without_a_limit(): in_a_pool()
@pytest.mark.limit_copies("8 MiB")
def test_frozen(tmp_path):
    cowshed.freeze()
    in_a_pool()
    in_a_child(lambda: total(0))
'''


class PytestPluginTest(unittest.TestCase):
    def test_what_forked_processes_copy_is_limited(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "test_limits.py").write_text(TESTS)
            done = subprocess.run([sys.executable, "-m", "pytest", "-p", "cowshed.pytest_plugin", "--strict-markers", "-v",
                                   "test_limits.py"], cwd=folder, capture_output=True, text=True)
        outcomes = re.findall(r"::test_(\w+) (PASSED|FAILED)", done.stdout.partition("FAILURES")[0])
        self.assertEqual({name for name, outcome in outcomes if outcome == "FAILED"},
                         {"over_in_a_pool", "over_in_a_child", "over_if_killed", "over_bad_limit"}, done.stdout)
        self.assertEqual(len(outcomes), 7)
        for said in (r"more than 8\.0 MiB \(limit_copies\):\n(\d+ MiB copied by PID .*\n){2}", "PID [0-9]+ was killed",
                     "'eight' is not a size such as"):
            self.assertRegex(done.stdout, said)


if __name__ == "__main__":
    unittest.main()
