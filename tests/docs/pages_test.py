#!/usr/bin/env python3
"""Reads README and docs: every link leads to a file and a heading, every option that they name is one
that a test uses, figures, plots and an example's difference are those of their sources, no page is over 250
lines, sentences are short, remedies and limits are those of `cowtop help`, which also explains each section of the
report:
COWTOP=.../cowtop ROOT=FOLDER python3 -B pages_test.py"""

import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(os.environ["ROOT"])
sys.path.insert(0, str(ROOT / "bench"))
import page as benchmarks
import tables
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OF_OTHER_PROGRAMS = {"--benchmark", "--cap-add", "--csv", "--disable-thp", "--dist", "--field-selector", "--image", "--lazy-apps", "--max-old-space-size", "--max-requests",
                     "--max-requests-jitter",
                     "--memory-limit", "--no-install-recommends", "--now", "--overlay-ports", "--preload-app", "--preset",
                     "--profile", "--seccomp-profile-root", "--selftest", "--strip-components",
                     "--system-site-packages", "--test-dir", "--value", "--workers"}
BY_HAND = {"--kernel", "--only", "--repeat"}  # of tools/kernel_vm/run, ./tools/bench and ./tools/check


def headings(page):
    """The anchors of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sentences(text):
    """Of its paragraphs and lists."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n\s*(?:[*-]|\d+\.) ", text):
        if not block.lstrip().startswith(("#", "|")):
            yield from filter(None, re.split(r"(?<=[.!?])\s+", " ".join(block.split())))


class PagesTest(unittest.TestCase):
    def test_links(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = page.parent / path if path else page
                with self.subTest(page=page.name, target=target):
                    self.assertTrue(file.exists())
                    if anchor:
                        self.assertIn(anchor, headings(file))

    def test_options_are_tested(self):
        used = set()
        for file in (ROOT / "tests").rglob("*.*"):
            if file.is_file() and file.name != pathlib.Path(__file__).name:
                used |= set(OPTION.findall(file.read_text(errors="replace")))
        for page in PAGES:
            if page.name == "CHANGELOG.md":
                continue
            named = {option for code in CODE.findall(page.read_text()) for option in OPTION.findall(code)}
            with self.subTest(page=page.name):
                self.assertEqual(named - used - OF_OTHER_PROGRAMS - BY_HAND, set())

    def test_examples_are_shown_as_they_are(self):
        for page, name in (("README.md", "ten_lines.cc"), ("docs/how-to/share-objects.md", "table.cc")):
            with self.subTest(page=page):
                self.assertIn((ROOT / "docs/examples" / name).read_text(), (ROOT / page).read_text())

    def test_the_example_shows_its_difference(self):
        diff = subprocess.run(["diff", "-u", "--label", "before.cc", "--label", "after.cc", "before.cc", "after.cc"],
                              cwd=ROOT / "docs/examples/http_server", capture_output=True, text=True)
        self.assertEqual(diff.returncode, 1, diff.stderr)
        self.assertIn("```diff\n" + diff.stdout + "```\n",
                      (ROOT / "docs/examples/http_server/README.md").read_text())

    def test_the_page_of_the_benchmarks_and_its_plots_are_made_from_their_figures(self):
        kept = ROOT / "docs/explanation"
        made, _ = benchmarks.make(benchmarks.read_figures(kept))
        for name in ("performance.md", "start.svg", "channel.svg"):
            with self.subTest(file=name):
                self.assertEqual(made[name], (kept / name).read_text())

    def test_readme_has_the_figures_of_the_benchmarks(self):
        def rows(page, heading):
            section = page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
            return [line for line in section.splitlines() if line.startswith("| ")]

        results = rows(ROOT / "README.md", "Results")
        self.assertEqual(results, rows(ROOT / "docs/explanation/performance.md", "In short"))
        after, before = re.search(r"\*\*(\d+ MiB) instead of (\d+ MiB)\*\*", (ROOT / "README.md").read_text()).groups()
        self.assertIn(f"| {before} | {after} |", results[1])

    def test_guides_have_the_figures_of_the_benchmarks(self):
        page = (ROOT / "docs/explanation/performance.md").read_text()
        for name in ("start-method", "channel"):
            guide = (ROOT / f"docs/how-to/choose-a-{name}.md").read_text().split("\n## What holds\n")[0]
            figures = re.findall(r"\b[\d.,]+ (?:ns|µs|ms|MiB)\b", guide)
            self.assertGreater(len(figures), 3)
            for figure in figures:
                with self.subTest(guide=name, figure=figure):
                    self.assertRegex(page, rf"(?<![\d.]){re.escape(figure)}")

    def test_pages_have_the_remedies_and_limits_of_help(self):
        for name, made in tables.pages().items():
            with self.subTest(page=name):
                self.assertEqual((ROOT / name).read_text(), made, "tests/docs/tables.py --write")

    def test_each_error_code_is_explained(self):
        codes = (ROOT / "base/error.h").read_text().split("enum class ErrorCode")[1].split("};")[0]
        page = (ROOT / "docs/reference/errors.md").read_text()
        self.assertEqual(sorted(re.findall(r"(?m)^  (\w+),", codes)), sorted(re.findall(r"(?m)^\| `(\w+)`", page)))

    def test_where_do_i_put_names_files_that_are_there_and_what_fails(self):
        for row in re.findall(r"(?m)^\| (?!place|---)(.*) \|$", (ROOT / "docs/where-do-i-put.md").read_text()):
            place, _, fails = row.split(" | ")
            with self.subTest(row=row):
                self.assertNotIn(fails.strip(), ("", "-"))
                for path in re.findall(r"`([a-z_]+/[\w./-]+)`", place):
                    self.assertTrue("NAME" in path or "KIND" in path or (ROOT / path).exists(), path)

    def test_each_cause_has_a_rule_and_a_test(self):
        causes, _ = self.causes()
        self.assertEqual({cause for _, cause in causes}, {each["cause"] for each in tables.HELP["causes"]})
        for folder in ("cow/causes", "tests/cow/causes"):
            text = "".join(file.read_text() for file in (ROOT / folder).glob("*.cc"))
            for constant, cause in causes:
                with self.subTest(cause=cause, folder=folder):
                    self.assertRegex(text, rf'\b{constant}\b|"{cause}"')

    def causes(self):
        """The constants and names of the causes of copies, and of new memory."""
        copies, new = (ROOT / "cow/cause_names.h").read_text().split("\n// Of new memory.\n")
        return [re.findall(r' (k\w+) = "(.+?)";', text) for text in (copies, new)]

    def test_help_and_the_page_explain_the_causes_of_new_memory(self):
        section = (ROOT / "docs/how-to/memory-grows-after-fork.md").read_text().split("\n## 4. ")[1].split("\n## ")[0]
        _, causes = self.causes()
        self.assertGreater(len(causes), 5)
        words = {each["word"] for each in tables.HELP["words"]}
        for _, cause in causes:
            with self.subTest(cause=cause):
                self.assertRegex(section, rf"(?m)^\| {cause}\b")
                self.assertIn(cause, words)

    def test_no_other_file_judges(self):
        limit = re.compile(r"\bk(Least(Bytes|Shared?|Part|New)|Part\w*|Worth\w*|Little\w*|Hundredth|Same)\b =|"
                           r"(bytes|copied|shared|peak\w*)\s*[*/] \d+\b(?! << 20)")
        found = [f"{file.name}: {line.strip()}" for file in sorted((ROOT / "tools/cowtop").rglob("*.[hc]*"))
                 if file.name != "judgement.h" for line in file.read_text().splitlines() if limit.search(line)]
        self.assertEqual(found, [])

    def test_help_and_its_page_explain_the_sections_of_the_report(self):
        page = (ROOT / "docs/reference/cowtop.md").read_text()
        source = (ROOT / "tools/cowtop/report/text_report.cc").read_text()
        for word in set(re.findall(r'"([A-Z][A-Z ]+)"', source)) - {"MORE"}:
            with self.subTest(word=word):
                subprocess.run([os.environ["COWTOP"], "help", word], capture_output=True, check=True)
                self.assertIn(f"\n| {word} | ", page)

    def test_pages_name_this_version(self):
        version = (ROOT / "VERSION").read_text().strip()
        named = re.compile(r"(?:\b(?:cowtop|cowshed)[-_:]|/download/v|\bVersion |\"version\": \")(\d+\.\d+\.\d+)")
        for page in [*PAGES, ROOT / "packaging/vcpkg/cowshed/vcpkg.json"]:
            if page.name != "CHANGELOG.md":
                with self.subTest(page=page.name):
                    self.assertLessEqual(set(named.findall(page.read_text())), {version})

    def test_pages_are_short(self):
        for page in PAGES:
            text = page.read_text()
            lengths = [len(sentence.split()) for sentence in sentences(text)]
            with self.subTest(page=page.name):
                self.assertLessEqual(sum(lengths) / len(lengths), 20)
                if page.name != "CHANGELOG.md":
                    self.assertLessEqual(text.count("\n"), 250)


unittest.main()
