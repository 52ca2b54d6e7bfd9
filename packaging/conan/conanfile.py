"""Builds the sources that it lies in: conan create packaging/conan --build=missing"""

import pathlib

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Cowshed(ConanFile):
    name = "cowshed"
    description = "Fork-aware memory sharing for Linux"
    license = "MIT AND BSD-2-Clause"
    package_type = "static-library"
    settings = "os", "arch", "compiler", "build_type"
    default_options = {"fmt/*:header_only": True}

    def set_version(self):
        self.version = pathlib.Path(self.recipe_folder, "../../VERSION").read_text().strip()

    def export_sources(self):
        top = pathlib.Path(self.recipe_folder, "../..").resolve()
        copy(self, "*", top, self.export_sources_folder, excludes=("build/*", ".git/*"))

    def requirements(self):
        self.requires("tl-expected/[>=1.0]", transitive_headers=True)
        self.requires("fmt/[>=9]")

    def layout(self):
        cmake_layout(self)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for part in ("COW", "TOOLS", "PYTHON", "BENCH", "TESTS"):
            toolchain.cache_variables[f"COWSHED_BUILD_{part}"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        # find_package() finds the package's own files.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/Cowshed"]
        self.cpp_info.set_property("pkg_config_name", "cowshed")
        self.cpp_info.libs = ["cowshed_share", "cowshed_base"]
        self.cpp_info.system_libs = ["m", "pthread"]
