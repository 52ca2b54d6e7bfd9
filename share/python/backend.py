"""Builds the package: what pip calls (PEP 517), ./tools/wheels, and, with arguments, CMake's install.

It needs Python, CMake, a compiler, and the development packages of tl-expected and fmt; nothing of pip's."""

import base64
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = (ROOT / "VERSION").read_text().strip()
NAME = f"{PROJECT['name']}-{VERSION}"
DIST_INFO = f"{NAME}.dist-info"
DATA = f"{NAME}.data/data/share/"
LICENSES = ("LICENSE", "cmake/copyright")
# What the package is built of.
SOURCES = ("CMakeLists.txt", "VERSION", "pyproject.toml", *LICENSES, "base", "cmake", "cow/CMakeLists.txt", "cow/*.h",
           "cow/arenas", "cow/meter", "cow/proc", "include", "probes/*.h", "share")


def metadata():
    lines = ["Metadata-Version: 2.1", f"Name: {PROJECT['name']}", f"Version: {VERSION}",
             f"Summary: {PROJECT['description']}", f"License: {PROJECT['license']['text']}",
             f"Requires-Python: {PROJECT['requires-python']}",
             *(f"Classifier: {each}" for each in PROJECT["classifiers"])]
    return "\n".join(lines) + "\n"


def binaries_of(module):
    return module, module.parent / "libcowshed_undo.so", module.parent / "stub"


def contents(module):
    """(name, bytes) of each file that is installed; with manual pages where help2man is."""
    package = ROOT / "share/python/cowshed"
    for path in sorted(each for each in package.rglob("*") if each.suffix in (".py", ".pyi", ".typed")):
        yield str(path.relative_to(package.parent)), path.read_bytes()
    for binary in binaries_of(module):
        yield f"cowshed/{binary.name}", binary.read_bytes()
    groups = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    entries = "\n".join(f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in each.items())
                        for group, each in groups.items())
    yield f"{DIST_INFO}/METADATA", metadata().encode()
    yield f"{DIST_INFO}/entry_points.txt", entries.encode()
    for file in LICENSES:
        yield f"{DIST_INFO}/licenses/{pathlib.Path(file).name}", (ROOT / file).read_bytes()
    for page in sorted((module.parents[2] / "man").glob("*.1")):
        yield f"{DATA}man/man1/{page.name}", page.read_bytes()
    yield f"{DATA}bash-completion/completions/cowshed", (ROOT / "share/python/completions/cowshed").read_bytes()


def tag(module):
    """What the module runs on, such as cp313-cp313-manylinux_2_34_x86_64."""
    abi = re.search(r"\.cpython-(\w+)-", module.name)[1]
    needs = subprocess.run(["readelf", "--wide", "--version-info", *binaries_of(module)], check=True, capture_output=True,
                           text=True).stdout
    glibc = max(int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", needs))
    return f"cp{sys.version_info[0]}{sys.version_info[1]}-cp{abi}-manylinux_2_{glibc}_{os.uname().machine}"


def build_module(folder):
    if not shutil.which("cmake"):
        sys.exit("cowshed: building takes CMake, a C++ compiler and more: docs/how-to/share-python-objects.md")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *generator, "-D", "CMAKE_BUILD_TYPE=Release",
                    "-D", "CMAKE_UNITY_BUILD=ON", "-D", "COWSHED_BUILD_PYTHON=ON", "-D", f"COWSHED_PYTHONS={sys.executable}",
                    *(f"-DCOWSHED_BUILD_{part}=OFF" for part in ("COW", "TOOLS", "BENCH", "TESTS"))], check=True)
    subprocess.run(["cmake", "--build", folder, "--target", "cowshed_python", "--parallel", str(os.cpu_count() or 1)],
                   check=True)
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    found = list(pathlib.Path(folder, "python/cowshed").glob(f"_cowshed.cpython-{version}*.so"))
    if len(found) != 1:
        sys.exit(f"cowshed: nothing was built for {sys.executable}: are its headers installed (Python.h)?")
    return found[0]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """With the setting build-dir, that folder is kept, and another Python's build in it takes less time."""
    folder = (config_settings or {}).get("build-dir")
    with tempfile.TemporaryDirectory() as temporary:
        module = build_module(folder or temporary)
        return write_wheel(wheel_directory, NAME, tag(module), contents(module))


def write_wheel(directory, name, its_tag, contents):
    """Of these files, whose dist-info lacks WHEEL and RECORD; the same bytes each time."""
    info = f"{name}.dist-info"
    python, abi, platforms = its_tag.split("-")
    tags = "".join(f"Tag: {python}-{abi}-{platform}\n" for platform in platforms.split("."))
    files = [*contents, (f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: cowshed\nRoot-Is-Purelib: false\n{tags}".encode())]
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for file, data in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    wheel = f"{name}-{its_tag}.whl"
    with zipfile.ZipFile(pathlib.Path(directory, wheel), "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files:
            entry = zipfile.ZipInfo(file)  # of 1980, whenever it is built
            entry.compress_type = zipfile.ZIP_DEFLATED
            # A regular file's, or pip takes it for no program.
            entry.external_attr = (0o100755 if file.endswith((".so", "/stub")) or "/scripts/" in file else 0o100644) << 16
            archive.writestr(entry, data)
    return wheel


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, DIST_INFO)
    folder.mkdir()
    (folder / "METADATA").write_text(metadata())
    return DIST_INFO


def build_sdist(sdist_directory, config_settings=None):
    sdist = f"{NAME}.tar.gz"

    def add(path, name=None):
        def plain(entry):
            if "__pycache__" in entry.name:
                return None
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            return entry

        archive.add(path, f"{NAME}/{name or path.relative_to(ROOT)}", filter=plain)

    with tempfile.TemporaryDirectory() as temporary, \
         tarfile.open(pathlib.Path(sdist_directory, sdist), "w:gz") as archive:
        for pattern in SOURCES:
            for path in sorted(ROOT.glob(pattern)):
                add(path)
        info = pathlib.Path(temporary, "PKG-INFO")
        info.write_text(metadata())
        add(info, "PKG-INFO")
        subprocess.run([ROOT / "cmake/private_jemalloc", "--archive", temporary], check=True)
        for jemalloc in pathlib.Path(temporary).glob("jemalloc*"):
            add(jemalloc, f"cmake/{jemalloc.name}")
    return sdist


def install(module, prefix):
    """As Debian's packages are: no RECORD, and a program for /usr/bin/python3."""
    for name, data in [*contents(module), (f"{DIST_INFO}/INSTALLER", b"debian\n")]:
        path = pathlib.Path(prefix, "lib/python3/dist-packages", name)
        if name.startswith(DATA):
            path = pathlib.Path(prefix, "share", name.removeprefix(DATA))
        if path.suffix == ".1":
            path, data = path.with_name(path.name + ".gz"), gzip.compress(data, mtime=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name.endswith("/stub") else 0o644)
    for name, where in PROJECT["scripts"].items():
        program = pathlib.Path(prefix, "bin", name)
        program.parent.mkdir(parents=True, exist_ok=True)
        where, function = where.split(":")
        program.write_text(f"#!/usr/bin/python3\nimport sys\n\nfrom {where} import {function}\n\nsys.exit({function}())\n")
        program.chmod(0o755)


if __name__ == "__main__":
    install(pathlib.Path(sys.argv[1]), sys.argv[2])
