"""The file system that a guest boots into: given programs at the paths they have here, the libraries
and helper programs that they need, busybox, and an init."""

import lzma
import mmap
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from kernels import HOST, VmError, root, run

LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FOLDERS = "dev proc sys tmp var/tmp run root etc usr/bin usr/sbin usr/lib usr/lib64".split()
COVERED = ("dev/", "proc/", "sys/", "var/tmp/")
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
}
# As on any Debian; what else a script may call comes from busybox.
PROGRAMS = ("dash", "sleep", "setpriv")
# In the order in which they are loaded; zram's are those that this kernel has as modules.
MODULES = ("brd", "overlay")
ZRAM_MODULES = ("zsmalloc", "lzo-rle", "lz4_compress", "lz4hc_compress", "zram")


class Initramfs:
    """A cpio archive in the making: every file once, at one place."""

    def __init__(self, arch):
        # Where another CPU's libraries and programs are.
        self.root = Path("/") if arch == HOST else root(arch)
        self.entries = {}  # path without the leading slash -> (mode, bytes or Path)
        self.entries["."] = (stat.S_IFDIR | 0o755, b"")
        for name in FOLDERS:
            self.add_folder(name)
        for name, target in LINKS.items():
            self.entries[name] = (stat.S_IFLNK | 0o777, target.encode())
        for name, text in TEXTS.items():
            self.add_file(name, text.encode())

    def add_folder(self, name):
        for place in [*reversed(Path(name).parents), Path(name)]:
            if place != Path("."):
                # Everybody may write to these, as on a real machine.
                mode = 0o1777 if str(place).endswith("tmp") else 0o755
                self.entries.setdefault(str(place), (stat.S_IFDIR | mode, b""))

    def add_file(self, name, content, mode=0o644):
        self.add_folder(str(Path(name).parent))
        self.entries[name] = (stat.S_IFREG | mode, content)

    def add(self, path):
        """A file or a folder of this machine; a program with all that it needs."""
        path = Path(path).absolute()
        if path.is_dir():
            for inner in sorted(path.rglob("*")):
                if inner.is_file():
                    self.add(inner)
            return
        name = str(path.parent.resolve() / path.name).lstrip("/")
        if path.is_relative_to(self.root):
            name = str(path.parent.resolve().relative_to(self.root) / path.name)
            if name.split("/")[0] in LINKS:
                name = f"usr/{name}"
        if name.startswith(COVERED):
            raise VmError(f"{path} cannot be carried along: the guest mounts something there")
        if name in self.entries:
            return
        self.add_file(name, path, stat.S_IMODE(path.stat().st_mode))
        with open(path, "rb") as file:
            is_elf = file.read(4) == b"\x7fELF"
        if is_elf:
            libraries = libraries_by_ldd if self.root == Path("/") else self.libraries
            for needed in [*libraries(path), *programs_named_in(path)]:
                self.add(needed)

    def program(self, name):
        """Of the guest's system; None: not there."""
        if self.root == Path("/"):
            return shutil.which(name)
        places = (self.root / folder / name for folder in ("usr/bin", "bin", "sbin"))
        return next((place for place in places if place.exists()), None)

    def libraries(self, program):
        """What the dynamic linker of another CPU would load for it, one level deep."""
        listed = run(["readelf", "--wide", "--dynamic", "--program-headers", program])
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]|interpreter: /lib/(.+)\]", listed):
            found = [*self.root.glob(f"lib/**/{''.join(name)}"), *self.root.glob(f"usr/lib/**/{''.join(name)}")]
            if not found:
                raise VmError(f"{program} needs {''.join(name)}, which no package of {self.root} has")
            yield found[0]

    def add_busybox(self):
        busybox = shutil.which("busybox")  # which lists its names, whatever the guest's CPU
        if not busybox:
            raise VmError("busybox is missing: apt-get install busybox-static")
        self.add(self.program("busybox"))
        for applet in run([busybox, "--list-full"]).split():
            name = Path(applet).name
            folder = "usr/sbin" if "sbin" in applet else "usr/bin"
            self.entries.setdefault(f"{folder}/{name}", (stat.S_IFLNK | 0o777, b"/bin/busybox"))

    def add_system(self, kernel, init):
        self.add_file("init", init, 0o755)
        for name in PROGRAMS:
            found = self.program(name)
            if not found:
                raise VmError(f"the program {name} is missing here, and tests want it in the guest")
            self.add(found)
        self.entries["usr/bin/sh"] = (stat.S_IFLNK | 0o777, b"dash")
        self.add_busybox()
        for module in MODULES:
            (found,) = kernel.modules.rglob(f"{module}.ko*")
            self.add_module(found, module)
        for number, module in enumerate(ZRAM_MODULES):
            for found in kernel.modules.rglob(f"{module}.ko*"):
                self.add_module(found, f"zram{number}")

    def add_module(self, path, name):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        self.add_file(f"usr/lib/modules/{name}.ko", content)

    def write(self, to):
        with open(to, "wb") as archive:
            for number, (name, (mode, content)) in enumerate(self.entries.items(), 1):
                if isinstance(content, Path):
                    content = content.read_bytes()
                write_entry(archive, number, name, mode, content)
            write_entry(archive, 0, "TRAILER!!!", 0, b"")


def write_entry(archive, number, name, mode, content):
    """One file in cpio's "newc" format, see cpio(5)."""
    encoded = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    for part in (header + encoded, content):
        archive.write(part)
        archive.write(b"\0" * (-len(part) % 4))


def libraries_by_ldd(program):
    """What the dynamic linker would load for it."""
    # For a static program, ldd says so and fails.
    listed = subprocess.run(["ldd", program], text=True, check=False, capture_output=True).stdout
    missing = re.search(r"(\S+) => not found", listed)
    if missing:
        raise VmError(f"{program} needs {missing[1]}, which is not on this machine")
    return re.findall(r"(/\S+) \(0x", listed)


def programs_named_in(program):
    """Tests are compiled with the paths of the programs of the same build that they run."""
    top = next((top for top in program.parents if (top / "CMakeCache.txt").exists()), None)
    if top is None:
        return []
    named = re.compile(re.escape(os.fsencode(top)) + rb"(?:/[\w.+-]+)+\0")
    with open(program, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = {Path(os.fsdecode(match[0][:-1])) for match in named.finditer(text)}
    return sorted(path for path in found if path.is_file() and os.access(path, os.X_OK))
