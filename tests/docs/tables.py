#!/usr/bin/env python3
"""What of docs/ is made from `cowtop help --json`: COWTOP=.../cowtop ROOT=FOLDER tables.py prints
it, and with --write writes it into its pages."""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ["ROOT"])
HELP = json.loads(subprocess.run([os.environ["COWTOP"], "help", "--json"], capture_output=True, check=True).stdout)
CODE = re.compile(r"\b[A-Z_]+=(?:gc cowshed run|\S*\w)|\b(?:\w+(?:::|\.))*\w+\(0?\)|\b[A-Za-z]\w*\.[A-Za-z]\w*(?:=\d+)?|"
                  r"\b\w+!|\b\w*[a-z]_\w+|\bcowshed run\b(?: --\w+)?|\b[A-Z][a-z]+[A-Z]\w+")


def table(head, rows):
    lines = [f"| {left} | {right} |" for left, right in (head, *rows)]
    return [lines[0], "|---|---|", *lines[1:]]


def code(text):
    return CODE.sub(r"`\g<0>`", text)


CURES = {code(each["cure"]): code(each["tried_where"]) for each in HELP["remedies"] if each["cure"]}
BLOCKS = (  # each of a page, known by its first two lines
    ("docs/how-to/memory-grows-after-fork.md",
     table(("WHY", "TRY"), ((each["cause"], code("; ".join(each["try"]))) for each in HELP["causes"]))),
    ("docs/how-to/memory-grows.md",
     table(("server or library", "TRY"), ((each["cause"], code(each["text"]))
                                          for each in HELP["remedies"] if each["is_of_program"]))),
    ("docs/reference/cowtop.md", table(("remedy", "tried where"), CURES.items())),
    ("docs/reference/cowtop.md", ["cowtop judges by these limits:", "",
                                  *("* " + " ".join(HELP["judgements"][i:i + 2]) for i in range(0, len(HELP["judgements"]), 2))]),
)


def pages():
    """The names of their pages, with what each should be."""
    made = {}
    for name, lines in BLOCKS:
        text = made.get(name) or (ROOT / name).read_text()
        before, after = text.split("\n".join(lines[:2]) + "\n")
        made[name] = before + "\n".join([*lines, re.sub(r"\A(?:[|*] .*\n)*", "", after)])
    return made


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for page, text in pages().items():
            (ROOT / page).write_text(text)
    else:
        print("\n\n".join("\n".join(lines) for _, lines in BLOCKS))
