"""Makes the wheels and the source distribution by ./tools/wheels, and installs them without a network.

ROOT names the sources, and PYTHONS the Pythons, separated by colons."""

import functools
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["ROOT"])
PYTHONS = os.environ["PYTHONS"].split(":")
WHEELS = ROOT / "build/wheels"
OFFLINE = ["unshare", "--net"] if os.geteuid() == 0 else []
FREEZES = """
import os
import cowshed
assert os.access(cowshed.__path__[0] + "/stub", os.X_OK)
data = [str(number) for number in range(1_000_000)]
frozen = cowshed.freeze()
worker = os.fork()
if worker == 0:
    sum(map(len, data))
    os._exit(cowshed.copied() > 2 ** 20)
assert os.waitpid(worker, 0)[1] == 0
assert frozen.in_place, frozen
"""
IN_DEBIAN = """
sudo() { "$@"; }
tar -x
export GUNICORN_CMD_ARGS="--bind 127.0.0.1:PORT" DEBIAN_FRONTEND=noninteractive
COMMANDS >gunicorn.log 2>&1 &
for try in $(seq 100); do
  ! python3 -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:PORT/')" 2>/dev/null || break
  sleep 0.1
done
kill $!
wait $! || true
cat gunicorn.log
! command -v cc
"""


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def version_of(python):
    return tuple(map(int, run(python, "-c", "import sys; print(*sys.version_info[:2])").split()))


class WheelsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.said = run(ROOT / "tools/wheels", *PYTHONS)

    def wheel_of(self, python):
        major, minor = version_of(python)
        [wheel] = WHEELS.glob(f"cowshed-*-cp{major}{minor}-cp{major}{minor}-manylinux_2_*_x86_64.whl")
        return wheel

    def test_names_say_what_they_need(self):
        for python in PYTHONS:
            wheel = self.wheel_of(python)
            with self.subTest(wheel.name), tempfile.TemporaryDirectory() as folder:
                self.assertLess(wheel.stat().st_size, 3 * 2 ** 20)
                run(sys.executable, "-m", "zipfile", "-e", wheel, folder)
                [module] = pathlib.Path(folder, "cowshed").glob("_cowshed.*.so")
                libraries = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "--dynamic", "--wide", module))
                self.assertLessEqual(set(libraries), {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"})
                symbols = run("objdump", "--dynamic-syms", module)
                glibc = max(map(int, re.findall(r"\(?GLIBC_2\.(\d+)", symbols)))
                self.assertIn(f"manylinux_2_{glibc}_", wheel.name)
                self.assertEqual(re.findall(r"^(?!.*\*UND\*)[0-9a-f]{16} g.* (\S+)$", symbols, re.M), ["PyInit__cowshed"])
                self.assertNotRegex(run("readelf", "--sections", "--wide", module), r"\.symtab|\.debug")

    def test_install_offline_and_freeze(self):
        for python in PYTHONS:
            with self.subTest(python), tempfile.TemporaryDirectory() as folder:
                run(*OFFLINE, python, "-m", "pip", "install", "--no-index", "--only-binary", ":all:",
                    "--find-links", WHEELS, "--target", folder, "cowshed")
                environment = {**os.environ, "PYTHONPATH": folder}
                version = (ROOT / "VERSION").read_text().strip()
                said = run(f"{folder}/bin/cowshed", "--version", env=environment)
                self.assertIn(f"cowshed {version}, built for Python {'.'.join(map(str, version_of(python)))}.", said)
                self.assertEqual(said, run(python, "-m", "cowshed", "--version", env=environment))
                self.assertIn("pickled [", run(f"{folder}/bin/cowshed", "pickled", "--help", env=environment))
                self.assertIn("cowshed run [", run("man", "--local-file", f"{folder}/share/man/man1/cowshed-run.1"))
                if version_of(python) >= (3, 12):
                    self.assertIn(": freeze() works in place", said)
                    run(python, "-c", FREEZES, env=environment)
                else:
                    self.assertIn(": freeze() does not freeze in place: ", said)

    # tools/wheels has compiled what is in it, so this compiles nothing.
    def test_source_distribution_builds_offline(self):
        built = ROOT / "build/wheels.build"
        [sdist] = WHEELS.glob("*.tar.gz")
        self.assertIn("/cmake/jemalloc_5.3.0.orig.tar.bz2\n", run("tar", "-tf", sdist))
        with tempfile.TemporaryDirectory() as folder:
            offline = functools.partial(run, *OFFLINE, PYTHONS[-1], "-m", "pip", cwd=folder,
                                        env={"PATH": os.environ["PATH"], "HOME": folder})
            offline("wheel", "--no-index", "--config-settings", f"build-dir={built}", "--wheel-dir", folder,
                    built / "sources")
            wheel = self.wheel_of(PYTHONS[-1])
            self.assertEqual(pathlib.Path(folder, wheel.name).read_bytes(), wheel.read_bytes())
            self.assertIn("Would install cowshed-", offline("install", "--dry-run", "--target", folder, "--no-index", sdist))

    def test_readme_holds_in_a_fresh_debian_without_a_compiler(self):
        if os.geteuid() != 0 or (3, 13) not in map(version_of, PYTHONS):
            self.skipTest("takes root and Python 3.13")
        blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
        [commands] = [block for block in blocks if "--find-links" in block]
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = str(one.getsockname()[1])
        script = IN_DEBIAN.replace("PORT", port).replace("COMMANDS", commands.strip())
        wheels = subprocess.run(["tar", "-C", ROOT, "-c", "build/wheels"], check=True, stdout=subprocess.PIPE).stdout
        done = subprocess.run([ROOT / "tools/debian_root", "trixie", "bash", "-ec", script], input=wheels,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.stdout.decode()
        self.assertEqual(done.returncode, 0, said)
        self.assertRegex(said, r"froze [\d,.]+ MiB, [\d,]+ objects")


if __name__ == "__main__":
    unittest.main()
