#!/usr/bin/env python3
"""Runs the commands of docs/tutorial.md, one after the other, and compares what they say with what
it says they do: COWTOP=.../cowtop DOCS=FOLDER python3 tutorial_test.py

As nobody, but for what follows `sudo`.  Numbers, bars and blanks may differ; lines of "..." stand for any."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile

DOCS = pathlib.Path(os.environ["DOCS"])
COWTOP = pathlib.Path(os.environ["COWTOP"])
PORT = "8000"
NUMBER = r"(?:[-+~]?\d[\d.,]*|[#.]{10})"  # or the bar of a row
USER = pwd.getpwnam("nobody")
# As sudo's: the command as root, with the names of who asked for it.
SUDO = f"""#!/bin/sh
exec env SUDO_USER={USER.pw_name} SUDO_UID={USER.pw_uid} SUDO_GID={USER.pw_gid} "$@"
"""


def commands():
    """Each with the lines that follow it, of all console blocks."""
    text = (DOCS / "tutorial.md").read_text()
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


def pattern(line):
    """Of what `line` may be in another run."""
    parts = re.split(f"({NUMBER})", line.strip())
    fixed = [r"\s*".join(re.escape(word) for word in re.split(r"\s+", part)) for part in parts[::2]]
    return re.compile(r"\s*" + (r"\s*" + NUMBER + r"\s*").join(fixed) + r"\s*$")


def missing(said, lines):
    """The first of the lines that is not in what was said, or not where it should be."""
    rest = iter(said)
    for line in lines:
        if not line == "..." and not any(pattern(line).match(each) for each in rest):
            return line
    return None


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def main():
    if os.geteuid() != 0 or shutil.which("gunicorn") is None:
        print("Skipped: takes root and gunicorn")
        sys.exit(77)
    done = 0
    with tempfile.TemporaryDirectory(prefix="tutorial-test-") as folder, \
         tempfile.TemporaryDirectory(prefix="tutorial-test-programs-") as programs:
        os.chmod(programs, 0o755)
        shutil.copy(COWTOP, programs)  # nobody may not come where it was built
        sudo = pathlib.Path(programs) / "sudo"
        sudo.write_text(SUDO)
        sudo.chmod(0o755)
        shutil.copytree(DOCS / "examples/tutorial", folder, dirs_exist_ok=True)
        port = free_port()
        for file in pathlib.Path(folder).glob("*.sh"):
            file.write_text(file.read_text().replace(PORT, port))
        for each in [folder, *map(str, pathlib.Path(folder).iterdir())]:
            os.chown(each, USER.pw_uid, USER.pw_gid)
        environment = {**os.environ, "USER": USER.pw_name,
                       "PATH": f"{programs}:{os.environ['PATH']}"}
        for command, lines in commands():
            who = {} if "sudo " in command else {"user": USER.pw_uid, "group": USER.pw_gid,
                                                 "extra_groups": []}
            run = subprocess.run(["bash", "-c", command], cwd=folder, text=True, env=environment,
                                 timeout=200, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **who)
            lacks = missing(run.stdout.splitlines(), lines)
            if lacks is not None:
                sys.exit(f"{command}\nlacks: {lacks}\nin:\n{run.stdout}")
            done += 1
    print(f"{done} commands did what the tutorial says")
    sys.exit(0 if done > 5 else "too few commands were found")


main()
