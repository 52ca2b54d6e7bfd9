"""The folder that a run writes to: each file whole or not at all, and what cannot be written is told
and is no reason to lose the rest."""
import glob
import json
import os
import pathlib
import sys

SCHEMA = "cowshed.bench-run/1"
AGAINST_SCHEMA = "cowshed.bench-against/1"


class Folder:
    def __init__(self, path):
        """Is made, without what an earlier run left there.  Exits where that cannot be done."""
        self.path = path
        self.files = []  # names of what was written
        self.problems = []  # one line each
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._remove_earlier()
        except OSError as error:
            sys.exit(f"bench: {error.filename or path}: {error.strerror}")

    def _remove_earlier(self):
        names = []
        for name, schema, beside in (
                ("run.json", SCHEMA, ["README.md", "performance.md", "results.csv"]),
                ("against.json", AGAINST_SCHEMA, ["against.md"])):
            index = self.path / name
            if not index.exists():
                continue
            try:
                known = json.loads(index.read_text(encoding="utf-8"))
            except ValueError:
                known = None
            if not isinstance(known, dict) or known.get("schema") != schema:
                sys.exit(f"bench: {index} is not of this command, nor is what else is there")
            names += [*known.get("files", ()), *beside, name]
        for name in names:
            if pathlib.PurePath(name).name == name:  # nothing outside, whatever it says
                (self.path / name).unlink(missing_ok=True)
                (self.path / f"{name}.part").unlink(missing_ok=True)
                if name.endswith(".json"):
                    self.remove_plots(name.removesuffix(".json"))

    def remove_plots(self, benchmark):
        for kind in ("goals", "figures", "growth"):
            for path in self.path.glob(f"{glob.escape(benchmark)}.{kind}-*.svg"):
                path.unlink()

    def has_problem(self, text):
        if text in self.problems:
            return
        self.problems.append(text)
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def attempt(self, what, work):
        """What `work` gives, or None where it fails, which is a problem then."""
        try:
            return work()
        except Exception as error:  # whatever it is, the rest must be written
            why = error.strerror if isinstance(error, OSError) and error.strerror else \
                f"{type(error).__name__}: {error}"
            self.has_problem(f"{what}: {why}")
        return None

    def save(self, name, make):
        """What `make` gives, as text."""
        self.attempt(f"{self.path / name} cannot be written", lambda: self._save(name, make()))

    def _save(self, name, text):
        beside = self.path / f"{name}.part"
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.path / name)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self.has(name)

    def has(self, name):
        """It was written.  It belongs to who asked for it."""
        if name not in self.files:
            self.files.append(name)
        if "SUDO_UID" in os.environ:
            for path in (self.path, self.path / name):
                os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
