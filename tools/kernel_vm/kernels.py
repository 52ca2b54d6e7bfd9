#!/usr/bin/env python3
"""Debian's cloud kernels, fetched with apt and unpacked in a folder; nothing gets installed.

apt keeps its lists and packages in that folder too, so the machine's own apt is as it was.  A kernel
that is there is used; remove the folder to get the newest one.

As a program, kernels.py [arm64] fetches all KERNELS and prints one line for each: "NAME RELEASE", or
"NAME - REASON" for a kernel that is not available.  kernels.py --root arm64 unpacks the packages of
tools/packages/arm64 in the same way, for cross compilers and guests, and prints the folder.
"""

import contextlib
import fcntl
import functools
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOST = "amd64"
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/vm"
# A kernel's name is MAJOR.MINOR, for the newest of that series, or one of these, for a suite's newest.
SUITES = {"backports": "trixie-backports", "testing": "testing", "experimental": "experimental"}
KERNELS = ("6.1", "6.12", "7.1", *SUITES)  # what --kernel all means, and what the matrix tests
SEARCHED = ("bookworm", "trixie", *SUITES.values())
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class VmError(Exception):
    """Why a virtual machine did not do what it was asked to, in one line."""


@dataclass(frozen=True)
class Kernel:
    release: str
    image: Path
    modules: Path  # a folder that holds its modules, at any depth


def run(command, **options):
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command], text=True, check=False, capture_output=True, **options
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        reason = re.sub(r"\w+://[^/\s]+", "", "".join(last)) or done.returncode  # without a server's name
        raise VmError(f"{command[0]} failed: {reason}")
    return done.stdout


class PrivateApt:
    """apt with Debian's suites, from where this machine's packages come, and lists of its own."""

    def __init__(self, folder, arch):
        self.folder = folder
        self.arch = arch
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.options = {
            "Dir::State": folder / "state",
            "Dir::State::status": "/var/lib/dpkg/status" if arch == HOST else "/dev/null",
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "Dir::Cache": folder / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # an image for containers switches it off
            "Acquire::Languages": "none",
            "APT::Get::List-Cleanup": "false",  # keeps the lists from one set of sources to the other
            "APT::Update::Post-Invoke-Success": "",
            "APT::Update::Error-Mode": "any",
            "APT::Sandbox::User": "root",
        }
        self.trouble = self.update()  # only a list names its suite
        self.uri = self.debian()
        sources = folder / "sources.list"
        lines = [f"deb [signed-by={KEYRING}] {self.uri} {suite} main\n" for suite in SEARCHED]
        sources.write_text("".join(lines), encoding="utf-8")
        self.options |= {"Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null"}
        self.trouble = self.update()

    def call(self, program, *arguments):
        settings = [part for name, value in self.options.items() for part in ("-o", f"{name}={value}")]
        return run([program, "-q", *settings, *arguments], cwd=self.folder)

    def update(self):
        """Why some list is missing, if one is.  The other lists are there."""
        try:
            self.call("apt-get", "update")
        except VmError as error:
            return f" ({error})"
        return ""

    def debian(self):
        """The URI of Debian in the sources that are configured."""
        found = self.call(
            "apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", "Label: Debian"
        )  # fmt: skip
        if not found:
            raise VmError(f"apt has no source of Debian here{self.trouble}")
        return found.split()[0].rstrip("/")

    def parts(self, wanted):
        """NAME=VERSION of the newest package that matches, and of the kernel's parts that it depends on."""
        try:
            shown = self.call("apt-cache", "show", wanted)
        except VmError:
            shown = ""
        found = [
            dict(re.findall(r"^(Package|Version|Depends): (.*)", text, re.M))
            for text in shown.strip().split("\n\n")
            if text
        ]
        if not found and "=" in wanted:
            return [wanted]  # see download()
        if not found:
            raise VmError(f"apt has no package {wanted}{self.trouble}")
        newest = max(found, key=lambda package: in_order(package["Version"]))
        parts = [f"{newest['Package']}={newest['Version']}"]
        depends = newest.get("Depends", "")
        for name, version in re.findall(r"(linux-(?:image|binary|modules)-\d\S*) \(= (\S+)\)", depends):
            parts += self.parts(f"{name}={version}")
        return parts

    def download(self, part):
        """The package NAME=VERSION, in the folder.

        The lists drop the modules of a suite's older kernels.  The pool keeps them, and nobody vouches
        for them but the guest's kernel, which checks their signatures.
        """
        try:
            self.call("apt-get", "download", part)
        except VmError as error:
            file = f"{part.replace('=', '_')}_{self.arch}.deb"
            where = f"{self.uri}/pool/main/l/linux/{file.replace('+', '%2b')}"
            try:
                self.call("/usr/lib/apt/apt-helper", "download-file", where, self.folder / file)
            except VmError:
                raise VmError(f"neither apt's lists nor the pool have {part} ({error})") from None


def in_order(version):
    """A key that sorts versions as dpkg does, for those of kernels: 7.3~rc7 is before 7.3."""
    return [-1 if part == "~" else int(part) for part in re.findall(r"~|\d+", version)] + [0]


@functools.cache
def apt_of(arch):
    return PrivateApt(FOLDER / ("apt" if arch == HOST else f"apt-{arch}"), arch)


def packages(name, arch):
    """What apt calls the kernel of that name."""
    if name in SUITES:
        return f"linux-image-cloud-{arch}/{SUITES[name]}"
    return rf"^linux-image-{re.escape(name)}(\.[0-9].*)?-cloud-{arch}$"


def unpacked(folder):
    """The kernel in that folder: up to 7.1 it is in /boot, since 7.2 beside its modules."""
    for image in (*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")):
        release = image.name.removeprefix("vmlinuz-") if "-" in image.name else image.parent.name
        return Kernel(release, image, folder)
    return None


def fetch(name, folder, arch):
    apt = apt_of(arch)
    parts = apt.parts(packages(name, arch))
    print(f"vm: fetching {' '.join(parts)}", file=sys.stderr, flush=True)
    for archive in apt.folder.glob("*.deb"):
        archive.unlink()
    for part in parts:
        apt.download(part)
    unpack(apt.folder, folder)


def unpack(archives, folder):
    """Complete or not there at all."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for archive in archives.glob("*.deb"):
        run(["dpkg-deb", "-x", archive, partial])
        archive.unlink()
    partial.rename(folder)


@contextlib.contextmanager
def alone():
    """One at a time fetches."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kernel(name, arch=HOST):
    """The kernel of that name, from the network if it is not unpacked yet."""
    place = FOLDER / (name if arch == HOST else f"{arch}-{name}")
    with alone():
        if not unpacked(place):
            fetch(name, place, arch)
    found = unpacked(place)
    if not found:
        raise VmError(f"the packages of kernel {name} hold no vmlinuz")
    return found


def root(arch):
    """The folder with the packages of tools/packages/ARCH and those that they need."""
    listed = ROOT / "tools/packages" / arch
    place = FOLDER / f"{arch}-root"
    with alone():
        if not place.is_dir() or place.stat().st_mtime < listed.stat().st_mtime:
            shutil.rmtree(place, ignore_errors=True)
            apt = apt_of(arch)
            wanted = [line for line in listed.read_text().split("\n") if line and line[0] != "#"]
            apt.call("apt-get", "--yes", "--no-install-recommends", "--download-only", "-o",
                     "APT::Default-Release=bookworm", "install", *wanted)  # fmt: skip
            unpack(apt.folder / "cache/archives", place)
            place.touch()
    return place


def main():
    if sys.argv[1:2] == ["--root"]:
        print(root(sys.argv[2]))
        return
    arch = sys.argv[1] if sys.argv[1:] else HOST
    for name in KERNELS:
        try:
            print(name, kernel(name, arch).release, flush=True)
        except VmError as error:
            print(name, "-", error, flush=True)


if __name__ == "__main__":
    main()
