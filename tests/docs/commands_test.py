#!/usr/bin/env python3
"""Runs the commands of README's and docs' console blocks, page by page, and compares what they say with
what the page says they do: COWTOP=.../cowtop ROOT=FOLDER PACKAGE=FOLDER python3 commands_test.py [PAGE...]
PACKAGE has the Python package cowshed.

As nobody, but for what follows `sudo` and for pages whose commands name files of the repository.  Numbers,
ranges, bars and blanks may differ; lines of "..." stand for any."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(os.environ["ROOT"])
COWTOP = pathlib.Path(os.environ["COWTOP"])
FIGURE = r"\d[\d.,]*"
NUMBER = rf"(?:[-+~]?(?:0x[0-9a-f]+|{FIGURE})(?:±[\d.]+| to {FIGURE})?|[#.]{{5,10}})"  # or the bar of a row
USER = pwd.getpwnam("nobody")
PROGRAMS = {  # in the PATH, before the system's
    # The command as root, with the names of who asked for it.
    "sudo": f"""#!/bin/sh
exec env SUDO_USER={USER.pw_name} SUDO_UID={USER.pw_uid} SUDO_GID={USER.pw_gid} "$@"
""",
    "cowshed": """#!/bin/sh
exec /usr/bin/python3 -m cowshed "$@"
""",
    "flamegraph.pl": """#!/bin/sh
! grep -vE '^.+ [0-9]+$' || exit 1  # what it would not read
""",
}


class Page:
    """How the commands of a page are run: `before` as nobody, then each command, which SIGINT ends once
    `meanwhile` is done."""

    def __init__(self, name, of_root=False, before="", meanwhile=""):
        self.path = ROOT / name
        self.of_root = of_root
        self.before = before
        self.meanwhile = meanwhile

    def commands(self):
        """Each with the lines that follow it."""
        text = self.path.read_text()
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *lines = part.splitlines()
                yield command, lines


ATTACHED = "sleep 2"  # cowtop has its probes by then
PAGES = [
    Page("README.md", of_root=True),
    Page("docs/tutorial.md"),
    Page("docs/how-to/ci-budget.md", of_root=True),
    Page("docs/how-to/containers.md"),
    Page("docs/how-to/fleet.md",
         meanwhile="until curl -sf http://127.0.0.1:9417/metrics | grep cowshed_; do sleep 0.2; done"),
    Page("docs/how-to/memory-grows-after-fork.md",
         before="gunicorn --preload --workers 2 --bind 127.0.0.1:8000 app & ./visit.py http://127.0.0.1:8000",
         meanwhile=f"{ATTACHED}; ./visit.py http://127.0.0.1:8000"),
    Page("docs/how-to/record-and-compare.md"),
    Page("docs/how-to/redis.md",
         before="""redis-server --port 6379 --save '' --rdb-key-save-delay -30 --enable-debug-command yes >redis.log &
until redis-cli ping; do sleep 0.1; done; redis-cli debug populate 1000000 key 200""",
         meanwhile=f"""{ATTACHED}; redis-cli bgsave
for key in $(seq 0 100 999999); do echo "SET key:$key new"; done | redis-cli >/dev/null
until redis-cli info persistence | grep rdb_bgsave_in_progress:0; do sleep 0.1; done"""),
    Page("docs/how-to/see-what-is-pickled.md", of_root=True),
    Page("docs/reference/json-and-metrics.md"),
]
PORTS = ("6379", "8000", "9417")  # of the pages; the test takes free ones


def pattern(line):
    """Of what `line` may be in another run."""
    parts = re.split(f"({NUMBER})", line.strip())
    fixed = [r"\s*".join(re.escape(word) for word in re.split(r"\s+", part)) for part in parts[::2]]
    text = r"\s*" + (r"\s*" + NUMBER + r"\s*").join(fixed) + r"\s*$"
    # How well the peak is known is by chance.
    return re.compile(text.replace(r"held\s*up\s*to", r"held\s*(?:up|[\d.]+)\s*to").replace(r"\(PSS\)", r"\(PSS.*\)"))


def missing(said, lines):
    """The first of the lines that is not in what was said, or not where it should be."""
    rest = iter(said)
    for line in lines:
        if not line == "..." and not any(pattern(line).match(each) for each in rest):
            return line
    return None


def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(PORTS, ports))


class Runner:
    """Runs commands in a copy of the tutorial's folder, on ports of its own."""

    def __init__(self, folder, programs):
        self.folder = folder
        self.ports = free_ports()
        os.chmod(programs, 0o755)
        shutil.copy(COWTOP, programs)  # nobody may not come where it was built
        for name, text in PROGRAMS.items():
            path = pathlib.Path(programs, name)
            path.write_text(text)
            path.chmod(0o755)
        shutil.copytree(ROOT / "docs/examples/tutorial", folder, dirs_exist_ok=True)
        for file in pathlib.Path(folder).glob("*.sh"):
            file.write_text(self.with_ports(file.read_text()))
        for each in [folder, *map(str, pathlib.Path(folder).iterdir())]:
            os.chown(each, USER.pw_uid, USER.pw_gid)
        shutil.copytree(os.environ["PACKAGE"], pathlib.Path(programs, "python"))
        self.environment = {**os.environ, "USER": USER.pw_name, "PYTHONPATH": f"{programs}/python",
                            "PATH": f"{programs}:{os.environ['PATH']}",
                            "REDISCLI_PORT": self.ports["6379"]}

    def with_ports(self, text):
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return text.replace("redis-cli", f"redis-cli -p {self.ports['6379']}")

    def start(self, command, of_root, output=subprocess.DEVNULL, cwd=None):
        who = {} if of_root else {"user": USER.pw_uid, "group": USER.pw_gid, "extra_groups": []}
        return subprocess.Popen(["bash", "-c", self.with_ports(command)], cwd=cwd or self.folder,
                                text=True, env=self.environment, stdout=output, stdin=subprocess.DEVNULL,
                                stderr=subprocess.STDOUT, start_new_session=True, **who)

    def run(self, page, command):
        """What it says."""
        said = tempfile.TemporaryFile("w+")
        began = self.start(command, page.of_root or "sudo " in command, said,
                           ROOT if page.of_root else None)
        if page.meanwhile:
            self.start(page.meanwhile, False).wait(100)
            os.killpg(began.pid, signal.SIGINT)
        began.wait(200)
        said.seek(0)
        return said.read()

    def run_all(self, page):
        """How many commands there were."""
        before = self.start(page.before, False) if page.before else None
        count = 0
        try:
            if before:
                time.sleep(0.5)
                before.wait(100)
            for command, lines in page.commands():
                output = self.run(page, command)
                lacks = missing(output.splitlines(), lines)
                if lacks is not None:
                    sys.exit(f"{page.path}: {command}\nlacks: {lacks}\nin:\n{output}")
                count += 1
        finally:
            if before:
                os.killpg(before.pid, signal.SIGKILL)
        return count


def main():
    wanted = sys.argv[1:]
    lacking = [name for name in ("gunicorn", "redis-server", "jq", "curl") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        print("Skipped: takes root, gunicorn, redis-server, jq and curl")
        sys.exit(77)
    for page in PAGES:
        if wanted and page.path.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="docs-test-") as folder, \
             tempfile.TemporaryDirectory(prefix="docs-test-programs-") as programs:
            count = Runner(folder, programs).run_all(page)
        if count == 0:
            sys.exit(f"{page.path} has no console block")
        print(f"{page.path}: {count} commands did what the page says")
    tested = {page.path for page in PAGES}
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        if path not in tested and "```console" in path.read_text():
            sys.exit(f"{path} has a console block and is not in PAGES")


main()
