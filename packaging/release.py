"""release.py BUILD PROGRAM FILES: ./tools/release calls it when BUILD has made the static cowtop and installed it below
PROGRAM.  Adds the licences of what is linked in to PROGRAM, and writes to FILES its wheel and its list of parts (SPDX)."""

import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from urllib.parse import quote

import backend

# By Debian's source package: what its file copyright calls the licence of the part that is linked in, and SPDX.
LICENCES = {
    "boost": ("BSL-1.0", "BSL-1.0"),
    "bzip2": ("BSD-variant", "bzip2-1.0.6"),
    "capstone": ("BSD-3-clause", "BSD-3-Clause"),
    "cli11": ("BSD-3-clause", "BSD-3-Clause"),
    "elfutils": ("LGPL-3+ or GPL-2+", "LGPL-3.0-or-later OR GPL-2.0-or-later"),
    "fmtlib": ("Expat with embedded exception", "MIT"),
    "gcc": ("GCC Runtime Library Exception", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "glibc": ("GNU Lesser General Public", "LGPL-2.1-or-later"),
    "libbpf": ("LGPL-2.1 or BSD-2-Clause", "LGPL-2.1-only OR BSD-2-Clause"),
    "libzstd": ("BSD-3-clause or GPL-2", "BSD-3-Clause OR GPL-2.0-only"),
    "linux": ("GPL-2", "GPL-2.0-only WITH Linux-syscall-note"),
    "ncurses": ("MIT/X11", "X11-distribute-modifications-variant"),
    "nlohmann-json3": ("Expat", "MIT"),
    "protozero": ("BSD-2-Clause and Apache-2.0", "BSD-2-Clause AND Apache-2.0"),
    "pugixml": ("Expat", "MIT"),
    "tl-expected": ("CC0-1.0", "CC0-1.0"),
    "xxhash": ("BSD-2-clause", "BSD-2-Clause"),
    "xz-utils": ("liblzma is in the public domain", "LicenseRef-public-domain"),
    "zlib": ("Zlib", "Zlib"),
}
PUBLIC_DOMAIN = {"licenseId": "LicenseRef-public-domain", "extractedText": "liblzma is in the public domain."}


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def packages_of(build):
    """Of the archives in the linker's map and the headers in Ninja's log: (package, version, source package)."""
    used = set(re.findall(r"\s(/usr/[^\s(]+\.[ao])\b", (build / "cowtop.map").read_text()))
    used |= set(re.findall(r"^ +(/usr/\S+)$", output("ninja", "-C", build, "-t", "deps"), re.M))
    used = {os.path.realpath(each) for each in used}
    found = output("dpkg", "-S", *sorted(used))
    # Compiled with clang's own headers, which hold no code.
    names = {each for each in re.findall(r"^(\S+?)(?::\w+)?: ", found, re.M) if not each.startswith("libclang")}
    return [tuple(line.split(" ")) for line in sorted(output(
        "dpkg-query", "-W", "-f", "${Package} ${Version} ${source:Package} ${source:Version}\n", *sorted(names)).splitlines())]


def add_licences(packages, folder):
    """Beside the file copyright of cowtop itself: those of Debian, and the common licences that they name."""
    common = set()
    for name, *_ in packages:
        text = pathlib.Path("/usr/share/doc", name, "copyright").read_text()
        common |= set(re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text))
        (folder / f"{name}.copyright").write_text(text)
    for name in common:
        shutil.copyfile(f"/usr/share/common-licenses/{name}", folder / name)


def licence_of(name, source):
    [(sign, licence)] = [each for key, each in LICENCES.items() if re.fullmatch(rf"{re.escape(key)}[-.\d]*", source)]
    if sign not in pathlib.Path("/usr/share/doc", name, "copyright").read_text():
        sys.exit(f"release: {name}'s file copyright does not name '{sign}': correct packaging/release.py")
    return licence


def spdx(packages, program):
    """The document of SPDX 2.3."""
    def package(name, version, licence, **more):
        return {"SPDXID": "SPDXRef-" + re.sub(r"[^\w.-]", "-", name), "name": name, "versionInfo": version,
                "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": licence,
                "licenseDeclared": licence, "copyrightText": "NOASSERTION", **more}

    checksum = hashlib.sha256(program.read_bytes()).hexdigest()
    parts = [package(
        name, version, licence_of(name, source), supplier="Organization: Debian",
        sourceInfo=f"built from Debian's source package {source} {source_version}",
        externalRefs=[{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                       "referenceLocator": f"pkg:deb/debian/{quote(name, '')}@{quote(version, '')}?arch=amd64"}])
        for name, version, source, source_version in packages]
    cowtop = package("cowtop", backend.VERSION, "MIT AND (BSD-2-Clause OR GPL-2.0-only)", supplier="NOASSERTION",
                     checksums=[{"algorithm": "SHA256", "checksumValue": checksum}])
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"cowtop-{backend.VERSION}-x86_64", "documentNamespace": f"urn:cowtop:{backend.VERSION}:{checksum}",
        "creationInfo": {"created": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: cowshed-tools-release"]},
        "packages": [cowtop, *parts], "hasExtractedLicensingInfos": [PUBLIC_DOMAIN],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": cowtop["SPDXID"]},
            *({"spdxElementId": cowtop["SPDXID"], "relationshipType": "STATIC_LINK", "relatedSpdxElement": each["SPDXID"]}
              for each in parts)]}


def main(build, program, files):
    packages = packages_of(build)
    licences = program / "share/doc/cowtop"
    add_licences(packages, licences)
    document = spdx(packages, program / "bin/cowtop")
    (files / f"{document['name']}.spdx.json").write_text(json.dumps(document, indent=1) + "\n")
    name = f"cowtop-{backend.VERSION}"
    metadata = (f"Metadata-Version: 2.1\nName: cowtop\nVersion: {backend.VERSION}\n"
                "Summary: Counts the memory that forked processes copy\nLicense: MIT\n")
    # The program needs no C library, and so suits each that pip knows.
    backend.write_wheel(files, name, "py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64", [
        (f"{name}.data/scripts/cowtop", (program / "bin/cowtop").read_bytes()),
        (f"{name}.dist-info/METADATA", metadata.encode()),
        *((f"{name}.dist-info/licenses/{path.name}", path.read_bytes()) for path in sorted(licences.iterdir()))])


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
