#!/usr/bin/env python3
"""That tools/kernel_vm/kernels.py finds Debian's kernels: SOURCE=... python3 kernels_test.py"""

import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(os.environ["SOURCE"]) / "tools/kernel_vm"))

import kernels  # noqa: E402
from kernels import VmError  # noqa: E402

# Package, version, suite, and what it depends on in the same version.
PACKAGES = [
    ("linux-image-cloud-amd64", "7.3~rc7-1", "experimental", ["linux-image-7.3-cloud-amd64"]),
    ("linux-image-6.12.9-cloud-amd64", "6.12.9-1", "", []),
    ("linux-image-6.12.10-cloud-amd64", "6.12.10-1", "", []),
]
for release, version in [("7.1.13", "7.1.13-1"), ("7.3", "7.3~rc7-1"), ("7.3.4", "7.3.4-1")]:
    parts = {part: f"linux-{part}-{release}-cloud-amd64" for part in ("image", "base", "binary", "modules")}
    PACKAGES.append((parts.pop("image"), version, "", parts.values()))
    PACKAGES += [(name, version, "", []) for name in parts.values() if name != "linux-modules-7.1.13-cloud-amd64"]
POOL = "modules-7.1.13"  # of which the lists know nothing


def shown(wanted):
    name, _, version = wanted.partition("=")
    name, _, suite = name.partition("/")
    for package, its_version, its_suite, depends in PACKAGES:
        if suite in ("", its_suite) and version in ("", its_version) and re.search(f"^{name}$", package):
            parts = ", ".join(["kmod", *(f"{part} (= {its_version})" for part in depends)])
            yield f"Package: {package}\nVersion: {its_version}\nDepends: {parts}\n"


class FakeApt(kernels.PrivateApt):
    def call(self, program, *arguments):
        if arguments[0] == "indextargets":
            return "http://debian.example/debian/\n"
        if program == "apt-cache":
            found = "\n".join(shown(arguments[1]))
            if not found:
                raise VmError("apt-cache failed: E: No packages found")
            return found
        if arguments[0] == "download":
            if POOL in arguments[1]:
                raise VmError("apt-get failed: E: not found")
            (self.folder / f"{arguments[1].replace('=', '_')}.deb").touch()
        if arguments[0] == "download-file":
            if "/pool/main/l/linux/linux-modules-7.1.13-cloud-amd64_7.1.13-1_amd64.deb" not in arguments[1]:
                raise VmError("apt-helper failed: E: Download Failed")
            arguments[2].touch()
        return ""


def unpack(command, **_):
    """Instead of dpkg-deb -x: the kernel of a package is where that version has it."""
    _program, _option, archive, folder = command
    part, release = re.match(r"linux-(\w+)-([\d.]*)", archive.name).groups()
    modules = folder / f"usr/lib/modules/{release}"
    modules.mkdir(parents=True, exist_ok=True)  # RELEASE is empty for a metapackage
    (modules / f"{part}.unpacked").touch()
    if part == "binary" and release.startswith("7.3"):
        (modules / "vmlinuz").touch()
    elif part == "binary" or release.startswith("6"):
        (folder / "boot").mkdir()
        (folder / f"boot/vmlinuz-{release}").touch()


class KernelsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(kernels, "FOLDER", self.folder))
        self.enterContext(mock.patch.object(kernels, "PrivateApt", FakeApt))
        self.enterContext(mock.patch.object(kernels, "run", unpack))
        self.said = self.enterContext(contextlib.redirect_stderr(io.StringIO()))
        kernels.apt_of.cache_clear()

    def parts(self, kernel):
        return sorted(path.name for path in kernel.modules.rglob("*.unpacked"))

    def test_a_series_is_its_newest_version(self):
        self.assertEqual(kernels.kernel("6.12").release, "6.12.10")
        self.assertEqual(kernels.kernel("7.3").release, "7.3.4")

    def test_a_suite_is_what_its_metapackage_depends_on(self):
        found = kernels.kernel("experimental")
        self.assertEqual(found.release, "7.3")
        self.assertIn("modules.unpacked", self.parts(found))
        self.assertNotIn("base.unpacked", self.parts(found))

    def test_the_kernel_is_in_boot_or_beside_its_modules(self):
        self.assertEqual(kernels.kernel("7.1").image, self.folder / "7.1/boot/vmlinuz-7.1.13")
        self.assertEqual(kernels.kernel("7.3").image, self.folder / "7.3/usr/lib/modules/7.3.4/vmlinuz")

    def test_modules_that_the_lists_dropped_come_from_the_pool(self):
        self.assertIn("modules.unpacked", self.parts(kernels.kernel("7.1")))

    def test_a_kernel_that_is_unpacked_is_not_fetched(self):
        kernels.kernel("6.12")
        with mock.patch.object(kernels, "fetch", side_effect=AssertionError):
            kernels.kernel("6.12")

    def test_a_kernel_that_apt_does_not_have_is_named_with_the_reason(self):
        with mock.patch.object(kernels, "KERNELS", ("9.9", "6.12", "testing")):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                kernels.main()
        lines = said.getvalue().splitlines()
        self.assertRegex(lines[0], r"^9\.9 - apt has no package .*9\\\.9")
        self.assertEqual(lines[1], "6.12 6.12.10")
        self.assertRegex(lines[2], r"^testing - apt has no package linux-image-cloud-amd64/testing$")


if __name__ == "__main__":
    unittest.main()
