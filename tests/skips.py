#!/usr/bin/env python3
"""skips.py LIST PRESET RESULTS: prints the tests that ctest skipped (RESULTS: its --output-junit),
with their reasons.  Fails where one is not in LIST, and where a test did not run at all.

LIST has a line for each reason: the preset (or *), a regular expression that the test's whole name
matches, and the rest of the line, which the test's output has in it.  # begins a comment."""

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass


@dataclass(frozen=True)
class Skip:
    preset: str
    test: re.Pattern
    reason: str

    def allows(self, preset, name, output):
        return self.preset in ("*", preset) and self.test.fullmatch(name) is not None and self.reason in output


def read_list(path):
    skips = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split(maxsplit=2)
            if len(words) != 3:
                sys.exit(f"{path}:{number}: not a preset, a test and a reason")
            skips.append(Skip(words[0], re.compile(words[1]), words[2].strip()))
    return skips


def reason_of(output):
    """The line after googletest's "FILE:LINE: Skipped", or what else was said last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for number, line in enumerate(lines[:-1]):
        if line.endswith(": Skipped"):
            return lines[number + 1]
    return lines[-1] if lines else "no reason"


def main(path, preset, results):
    skips = read_list(path)
    bad = failed = 0
    cases = list(ET.parse(results).getroot().iter("testcase"))
    if not cases:
        sys.exit(f"{results}: there are no tests in it")
    for case in cases:
        if case.get("status") == "run":
            continue
        if case.get("status") == "fail":  # ctest says which
            failed = 1
            continue
        name, output = case.get("name"), case.findtext("system-out") or ""
        skipped = case.find("skipped") is not None and case.get("status") == "notrun"
        if not skipped:
            print(f"not run: {name}: {case.get('status')}")
            bad += 1
        elif any(skip.allows(preset, name, output) for skip in skips):
            print(f"skipped: {name}: {reason_of(output)}")
        else:
            print(f"skipped, and not in {path}: {name}: {reason_of(output)}")
            bad += 1
    if bad:
        sys.exit(f"error: {bad} tests did not run for a reason that {path} does not have")
    sys.exit(failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
