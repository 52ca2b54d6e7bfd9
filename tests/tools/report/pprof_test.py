#!/usr/bin/env python3
"""That Go's pprof reads what cowtop report --pprof writes, and sums to what the JSON says:
COWTOP=.../cowtop python3 tests/tools/report/pprof_test.py"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

COWTOP = os.environ["COWTOP"]
PAGE = 4096

# Two children read the objects of their parent, and allocate 8 MiB.
SUBJECT = """
import os, time
data = [str(i) for i in range(100_000)]
def total():
    return sum(len(each) for each in data)
def load():
    return [bytes(4096) for _ in range(2048)]
for _ in range(2):
    if os.fork() == 0:
        total()
        kept = load()
        time.sleep(1)
        os._exit(0)
for _ in range(2): os.wait()
"""


def output(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


class PprofTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="cowtop-pprof-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        program = cls.folder / "shop.py"
        program.write_text(SUBJECT)
        recording = cls.folder / "recording"
        output(COWTOP, "record", "-o", recording, "--", "/usr/bin/python3", program)
        cls.profile = cls.folder / "profile.pb.gz"
        output(COWTOP, "report", recording, "--pprof", cls.profile)
        cls.report = json.loads(output(COWTOP, "report", "--json", recording))

    def setUp(self):
        if not self.report["exact"]:
            self.skipTest("no samples without the exact backend")

    def pprof(self, *options):
        return output("go", "tool", "pprof", *options, self.profile, stderr=subprocess.DEVNULL)

    def sum_of(self, field):
        return sum(each[field] or 0 for each in self.report["processes"])

    def raw_samples(self):
        """(values, labels) of each."""
        text = self.pprof("-raw")
        found = []
        for line in text.split("\nSamples:\n")[1].split("\nLocations\n")[0].splitlines()[1:]:
            if values := re.match(r" +(\d+) +(\d+) +(\d+) +(\d+): ", line):
                found.append((tuple(map(int, values.groups())), {}))
            else:
                found[-1][1].update(re.findall(r"(\w+):\[([^]]*)\]", line))
        return found

    def test_raw_sums_to_the_report(self):
        samples = self.raw_samples()
        copied, copied_pages, fresh, fresh_pages = map(sum, zip(*(values for values, _ in samples)))
        self.assertGreater(copied, 2 * 4 << 20)
        self.assertEqual(copied, self.sum_of("copied_bytes"))
        self.assertEqual(copied_pages, self.sum_of("copied_pages"))
        self.assertGreater(fresh, 2 * 8 << 20)
        self.assertEqual(fresh, self.sum_of("new_bytes"))
        self.assertEqual(fresh_pages * PAGE, fresh)
        by_process = {}
        for values, labels in samples:
            if values[0]:
                pid = int(labels["pid"])
                by_process[pid] = by_process.get(pid, 0) + values[0]
        self.assertEqual(by_process, {each["pid"]: each["copied_bytes"] for each in self.report["processes"]
                                      if each["copied_bytes"]})
        of = {name: sum(values[0] for values, labels in samples if labels.get(name) == value)
              for name, value in (("cause", "reference count"), ("object", "str"), ("process", "python3"))}
        self.assertGreater(of["cause"], copied / 2)
        self.assertGreater(of["object"], copied / 2)
        self.assertEqual(of["process"], copied)

    def test_top_sums_to_the_report(self):
        for index, field in (("copied", "copied_bytes"), ("new", "new_bytes")):
            text = self.pprof("-top", "-unit=b", f"-sample_index={index}", "-nodefraction=0")
            total = int(re.search(r"Total samples = (\d+)B", text)[1])
            self.assertEqual(total, self.sum_of(field))
            self.assertEqual(sum(map(int, re.findall(r"^ *(\d+)B? ", text, re.MULTILINE))), total)

    def test_has_the_lines_of_python_beside_native_functions(self):
        top = self.pprof("-top", "-cum", "-lines", "-nodefraction=0")
        self.assertRegex(top, rf"total {self.folder}/shop.py:5\n")
        self.assertRegex(self.pprof("-traces"), r"\n +\d\S* +\S+\n +total\n", "called by a line of Python")


if __name__ == "__main__":
    sys.exit(unittest.main())
