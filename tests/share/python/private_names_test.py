#!/usr/bin/env python3
"""The private names of Python's library that the package uses: each is in this list, and is there."""
import ast
import importlib
import pathlib
import unittest

import cowshed

# By module, a name or a path of names.  What only objects have is named below.
NAMES = {
    "_frozen_importlib": ["_init_module_attrs", "_load"],
    "_thread": ["_local"],
    "atexit": ["_run_exitfuncs"],
    "multiprocessing.connection": ["_ConnectionBase"],
    "multiprocessing.context": ["_concrete_contexts", "_default_context._default_context", "SpawnProcess._Popen"],
    "multiprocessing.forkserver": ["_serve_one", "_forkserver._forkserver_alive_fd", "_forkserver._forkserver_address"],
    "multiprocessing.util": ["_args_from_interpreter_flags"],
    "os": ["_exit"],
    "runpy": ["_run_module_as_main"],
    "sys": ["_getframe", "_xoptions"],
    "threading": ["_shutdown"],
}
OF_OBJECTS = {"_config", "_inheriting", "_name", "_reader", "_writer", "_inqueue", "_outqueue"}  # of multiprocessing


def names_in_the_package():
    """Those after a dot, by name the place; and those that the package itself gives."""
    used, given = {}, set()
    for path in pathlib.Path(cowshed.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                given.add(node.name)
            elif isinstance(node, (ast.arg, ast.alias)):
                given.add(node.arg if isinstance(node, ast.arg) else node.asname or node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                given.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self" \
                    and isinstance(node.ctx, ast.Store):
                given.add(node.attr)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                used.setdefault(node.attr, f"{path.name}:{node.lineno}")
    return used, given


class PrivateNamesTest(unittest.TestCase):
    listed = OF_OBJECTS.union(*(name.split(".") for names in NAMES.values() for name in names))

    def test_all_are_there(self):
        for module, names in NAMES.items():
            for name in names:
                with self.subTest(module=module, name=name):
                    of = importlib.import_module(module)
                    for part in name.split("."):
                        of = getattr(of, part)

    def test_the_list_has_all(self):
        used, given = names_in_the_package()
        for name, place in used.items():
            if name not in given:
                with self.subTest(place=place):
                    self.assertIn(name, self.listed)

    def test_the_list_has_no_others(self):
        used, given = names_in_the_package()  # some are overridden
        self.assertEqual({name for name in self.listed if name.startswith("_")} - used.keys() - given, set())


if __name__ == "__main__":
    unittest.main()
