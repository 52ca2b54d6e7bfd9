"""pip install ./share/python --no-build-isolation: builds the extension by CMake, with what ./tools/try installs."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parents[2]


class CMakeExtension(build_ext):
    def build_extension(self, ext):
        target = pathlib.Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        if built := os.environ.get("COWSHED_BUILT"):  # of a build that is there already
            shutil.copyfile(pathlib.Path(built) / target.name, target)
            return
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-D", "CMAKE_BUILD_TYPE=Release",
                            "-D", "CMAKE_UNITY_BUILD=ON", "-D", "COWSHED_BUILD_PYTHON=ON",
                            "-D", f"COWSHED_PYTHONS={sys.executable}",
                            *(f"-DCOWSHED_BUILD_{part}=OFF" for part in ("TOOLS", "BENCH", "TESTS"))], check=True)
            subprocess.run(["cmake", "--build", folder, "--target", "cowshed_python", "--parallel", str(os.cpu_count() or 1)], check=True)
            shutil.copyfile(pathlib.Path(folder, "python", "cowshed", target.name), target)


setup(version=(ROOT / "VERSION").read_text().strip(), cmdclass={"build_ext": CMakeExtension},
      ext_modules=[Extension("cowshed._cowshed", sources=[])])
