"""pip install ./share/python --no-build-isolation: builds the extension by CMake, with what ./tools/try installs."""

import os
import pathlib
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parents[2]


class CMakeExtension(build_ext):
    def build_extension(self, ext):
        target = pathlib.Path(self.get_ext_fullpath(ext.name)).resolve()
        built = os.environ.get("COWSHED_BUILT")  # of a build that is there already
        if not built:
            folder = pathlib.Path(self.build_temp).resolve()
            subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-D", "CMAKE_BUILD_TYPE=Release",
                            "-D", "COWSHED_BUILD_PYTHON=ON", "-D", f"COWSHED_PYTHONS={sys.executable}",
                            *(f"-DCOWSHED_BUILD_{part}=OFF" for part in ("TOOLS", "BENCH", "TESTS"))], check=True)
            subprocess.run(["cmake", "--build", folder, "--target", "cowshed_python", "--parallel"], check=True)
            built = folder / "python" / "cowshed"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pathlib.Path(built) / target.name, target)


setup(version=(ROOT / "VERSION").read_text().strip(), cmdclass={"build_ext": CMakeExtension},
      ext_modules=[Extension("cowshed._cowshed", sources=[])])
