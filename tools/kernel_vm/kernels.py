"""Debian's cloud kernels, fetched with apt and unpacked in a folder; nothing gets installed.

apt keeps its lists and packages in that folder too, so the machine's own apt is as it was.  A kernel
that is there is used; remove the folder to get the newest one.
"""

import fcntl
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SERIES = ("6.1", "6.12")


class VmError(Exception):
    """Why a virtual machine did not do what it was asked to, in one line."""


@dataclass(frozen=True)
class Kernel:
    release: str
    image: Path
    modules: Path  # the folder lib/modules/RELEASE


def run(command, **options):
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command], text=True, check=False, capture_output=True, **options
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise VmError(f"{command[0]} failed: {''.join(last) or done.returncode}")
    return done.stdout


class PrivateApt:
    """The machine's apt sources, with lists and packages of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.sources = folder / "sources.list"
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        configured = Path("/etc/apt/sources.list")
        self.configured = configured.read_text(encoding="utf-8") if configured.exists() else ""
        self.sources.write_text(self.configured, encoding="utf-8")

    def call(self, program, *arguments):
        options = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::SourceList": self.sources,
            "Acquire::Languages": "none",
            "APT::Update::Post-Invoke-Success": "",
            "APT::Sandbox::User": "root",
        }
        settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return run([program, "-q", *settings, *arguments], cwd=self.folder)

    def update(self):
        try:
            self.call("apt-get", "update")
        except VmError:
            pass  # one source that does not answer is no reason to stop: the package decides

    def add_backports(self):
        """The backports of the release that is configured, from where that one comes."""
        where = self.call(
            "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(RELEASE)",
            "Identifier: Packages", "Label: Debian",
        )  # fmt: skip
        for line in where.splitlines():
            uri, codename, release = line.split()
            if codename == release:
                self.sources.write_text(
                    f"{self.configured}\ndeb {uri} {codename}-backports main\n", encoding="utf-8"
                )
                self.update()
                return

    def newest(self, pattern):
        found = self.call("apt-cache", "search", "--names-only", pattern).splitlines()
        names = [line.split()[0] for line in found]
        return max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default=None)


def unpacked(folder):
    images = sorted((folder / "boot").glob("vmlinuz-*"))
    if not images:
        return None
    release = images[-1].name.removeprefix("vmlinuz-")
    return Kernel(release, images[-1], folder / "lib/modules" / release)


def fetch(series, folder):
    apt = PrivateApt(folder.parent / "apt")
    pattern = rf"^linux-image-{re.escape(series)}\.[0-9].*-cloud-amd64$"
    apt.update()
    package = apt.newest(pattern)
    if package is None:
        apt.add_backports()
        package = apt.newest(pattern)
    if package is None:
        raise VmError(f"apt knows no cloud kernel {series}, neither here nor in the backports")
    print(f"vm: fetching {package}", flush=True)
    apt.call("apt-get", "download", package)
    (archive,) = apt.folder.glob(f"{package}_*.deb")
    # Complete or not there at all.
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(["dpkg-deb", "-x", archive, partial])
    archive.unlink()
    partial.rename(folder)


def kernel(series, folder):
    """The kernel of that series (one of SERIES), from the network if it is not in `folder` yet."""
    place = folder / series
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time fetches
        if not unpacked(place):
            fetch(series, place)
    found = unpacked(place)
    if not found:
        raise VmError(f"the package of kernel {series} holds no /boot/vmlinuz-*")
    return found
