"""Runs the steps of .github/workflows/release.yml, with programs of this test for apt-get, gh and tools/release."""

import os
import pathlib
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(os.environ["SOURCE"])
FILES = ("SHA256SUMS", "cowtop-1.2.3.tar.gz", "release-notes.md")
RELEASE = "".join(f"mkdir -p build/release-files && touch build/release-files/{name}\n" for name in FILES)


class WorkflowTest(unittest.TestCase):
    def setUp(self):
        [self.job] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"].values()
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "VERSION").write_text("1.2.3\n")
        for name, text in (("bin/apt-get", ""), ("bin/gh", 'printf "%s\\n" "$@" >published\n'), ("tools/release", RELEASE)):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("#!/bin/sh\n" + text)
            path.chmod(0o755)

    def run_steps(self, tag):
        """What was published."""
        environment = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "GITHUB_REF_NAME": tag, "GITHUB_REPOSITORY": "some/body"}
        for step in self.job["steps"]:
            if "run" in step:
                subprocess.run(["sh", "-e", "-c", step["run"]], check=True, cwd=self.folder, env=environment)
        return (self.folder / "published").read_text().split()

    def test_publishes_the_files_and_notes(self):
        published = self.run_steps("v1.2.3")
        self.assertEqual(published[:3], ["release", "create", "v1.2.3"])
        self.assertEqual(published[published.index("--notes-file") + 1], "build/release-files/release-notes.md")
        self.assertEqual(published[-len(FILES):], [f"build/release-files/{name}" for name in FILES])

    def test_refuses_the_tag_of_another_version(self):
        with self.assertRaises(subprocess.CalledProcessError):
            self.run_steps("v1.2.4")

    def test_runs_where_the_tool_runs_and_takes_what_it_writes(self):
        self.assertEqual(self.job["container"], "debian:12")
        for text in ('"$debian" = 12', "files=$PWD/build/release-files ", '>"$files/release-notes.md"'):
            self.assertIn(text, (ROOT / "tools/release").read_text())


if __name__ == "__main__":
    unittest.main()
