#!/usr/bin/env python3
"""What no tiny run can tell of the documentation: that the sizes of the whole plan are in it, its
pictures, and that what is made of docs/performance.md is what it would be made of it now."""

import itertools
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

from matplotlib import image

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SUITE = SOURCE / "bench/suite"
sys.dont_write_bytecode = True
sys.path.append(str(SUITE))

import plan  # noqa: E402
import seal  # noqa: E402

HOLDINGS = ("heap", "huge heap", "arena")
METHODS = ("fork", "forkserver", "spawn", "bare fork", "clone3", "vfork", "posix_spawn", "thread")
DATA = ("16 MiB", "256 MiB", "4 GiB", "12 GiB")


def every(form, *values):
    return [form.format(*each) for each in itertools.product(*values)]


# What rows begin with, of each benchmark whose sizes are in their names.
SIZES = {
    "fork_latency": every("{} | {}", ("arena/array", *every("{}/objects", HOLDINGS)),
                          ("64 MiB", "512 MiB", "4 GiB", "12 GiB")),
    "child_read": ["first read of 4 GiB in a child to a warm one in its parent"],
    "freeze": ["audit of 4 GiB: faster than pagemap"],
    "channel": every("moved | {}", ("64 bytes", "256 MiB")) + [
        "gibibyte mapped | moved", "gibibyte read | moved"],
    "channel_rivals": [
        *every("rate/{} | channel", ("8 B", "64 B", "4 KiB", "64 KiB", "1 MiB", "64 MiB", "1 GiB",
                                     "5 GiB", "64 B, 2 senders", "64 B, 4 senders",
                                     "64 B, 8 senders", "64 B, 4 receivers", "64 B, 4 to 4")),
        *every("round trip/{} | channel, p50", ("8 B", "64 B", "4 KiB", "64 KiB", "1 MiB"))],
    "launch": every("{}/{} | {}", ("fork", "forkserver", "spawn"), ("begin", "cycle"),
                    ("64 MiB", "4 GiB")),
    "start_methods": [
        *every("{}/{}/{} | fork", ("begin", "cycle"), (*HOLDINGS, "python"), DATA),
        *every("{}/{}/{} | {}", ("first answer", "whole job"), HOLDINGS[:2],
               ("16 MiB", "64 MiB", "256 MiB"), METHODS),
        *every("one worker's {}/{}/{} | {}", ("page tables", "memory", "copied pages"), HOLDINGS, DATA,
               METHODS),
        *every("fixed job, {}/{}/{} | {}", ("first answer", "whole job"), HOLDINGS[:2], DATA,
               METHODS),
        *every("{}/{}/{} | {}", ("all begun", "all ended", "page tables", "memory", "copied pages"),
               HOLDINGS, ("1 worker", "8 workers", "64 workers", "256 workers"), METHODS),
        *every("{}/{}/{} | spawn", ("begin", "cycle"), HOLDINGS,
               ("1 thread", "8 threads", "32 threads"))],
    "measuring": every("count/{} pages | cowtop", (1024, 4096, 16384, 65536)),
    "html_page": ["1,000 processes, 1.5 million samples: shown"],
    "sharing": every("{}/{} | arena", ("start", "look-ups", "memory", "copied pages"),
                     ("4 MiB", "16 MiB", "64 MiB")),
}


def svg_texts(path):
    """Letters are drawn as outlines, beside which their text is a comment."""
    return re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8"), re.DOTALL)


def run(script, *arguments):
    return subprocess.run(["/usr/bin/python3", "-B", SUITE / script, *arguments],
                          capture_output=True, text=True, check=False)


class PerformanceTest(unittest.TestCase):
    def setUp(self):
        page = (SOURCE / "docs/performance.md").read_text(encoding="utf-8")
        parts = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)[1:]
        self.sections = dict(zip(parts[::2], parts[1::2]))

    def test_names_a_commit_of_this_history(self):
        page = " ".join((SOURCE / "docs/performance.md").read_text(encoding="utf-8").split())
        commit = re.search(r" at commit (\S+), on .+?, \d+ cores, \d+ GiB, Linux ", page)
        self.assertRegex(commit[1], "^[0-9a-f]{7,40}$", "nothing that is not committed")
        git = ["git", "-c", f"safe.directory={SOURCE}", "-C", SOURCE]
        if subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True,
                          text=True, check=False).stdout == "false\n":
            found = subprocess.run([*git, "merge-base", "--is-ancestor", commit[1], "HEAD"], check=False)
            self.assertEqual(found.returncode, 0, commit[1])

    def test_is_as_it_was_written(self):
        page = (SOURCE / "docs/performance.md").read_text(encoding="utf-8")
        self.assertTrue(seal.is_whole(page), "./tools/bench writes it, and nobody else changes it")

    def test_has_the_sizes_of_the_whole_plan(self):
        self.assertEqual(set(SIZES) - set(plan.benchmarks()), set())
        for benchmark, rows in SIZES.items():
            for row in rows:
                self.assertIn(f"\n| {row} | ", self.sections[benchmark], benchmark)


class PicturesTest(unittest.TestCase):
    def test_each_is_one_with_a_white_ground(self):
        files = list((SOURCE / "docs/images").glob("*.svg"))
        self.assertTrue(files)
        for file in files:
            root = xml.parse(file).getroot()  # of what is not one, this throws
            _, _, width, height = root.get("viewBox").split()
            ground = next(element for element in root.iter() if element.tag.endswith("}path"))
            self.assertEqual(ground.get("d").split(), ["M", "0", height, "L", width, height, "L",
                                                       width, "0", "L", "0", "0", "z"], file)
            self.assertIn("fill: #ffffff", ground.get("style"), file)

    def test_each_is_as_it_was_written(self):
        for file in (SOURCE / "docs/images").glob("*.svg"):
            self.assertTrue(seal.is_whole(file.read_text(encoding="utf-8")), file)
        for file in (SOURCE / "docs/images").glob("*.png"):
            self.assertGreater(image.imread(file).size, 0)  # of what is no whole one, this throws

    def test_each_that_a_page_shows_is_there(self):
        pages = [SOURCE / "README.md", *(SOURCE / "docs").glob("*.md")]
        shown = {page.parent / link for page in pages
                 for link in re.findall(r"!\[[^\]]*\]\(([^):]+)\)", page.read_text(encoding="utf-8"))}
        self.assertTrue(shown)
        self.assertEqual([path for path in shown if not path.exists()], [])


class MadeTest(unittest.TestCase):
    """What is made of docs/performance.md, which is easily forgotten when that changes."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-documentation-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_the_decision_table(self):
        readme = (SOURCE / "README.md").read_text(encoding="utf-8")
        made = self.folder / "README.md"
        made.write_text(readme, encoding="utf-8")
        ran = run("decision.py", "--readme", made)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(made.read_text(encoding="utf-8"), readme,
                         "python3 bench/suite/decision.py writes it")

    def test_growth_and_its_picture(self):
        ran = run("estimate.py", "--docs", self.folder)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        told = "python3 bench/suite/estimate.py writes it"
        self.assertEqual((self.folder / "growth.md").read_text(encoding="utf-8"),
                         (SOURCE / "docs/growth.md").read_text(encoding="utf-8"), told)
        picture = "images/growth.svg"
        self.assertEqual(svg_texts(self.folder / picture), svg_texts(SOURCE / "docs" / picture), told)


class SealTest(unittest.TestCase):
    def test_whatever_is_changed_breaks_it(self):
        text = seal.sealed("| one | missed |\n| two | met |\n")
        self.assertTrue(seal.is_whole(text))
        for broken in (text.replace("missed", "met"), text.replace("| two | met |\n", ""),
                       text.replace("| two | met |\n", 2 * "| two | met |\n"), text + "more\n", text[:-9],
                       "", text.partition("<!--")[0]):
            self.assertFalse(seal.is_whole(broken), broken)


if __name__ == "__main__":
    unittest.main(verbosity=2)
