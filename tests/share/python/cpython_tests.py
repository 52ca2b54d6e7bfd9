"""Runs CPython's own tests, unmodified, after freeze(): cpython_tests.py MODULE..."""

import sys
import unittest

import cowshed


def main(*modules):
    suite = unittest.TestSuite()
    for name in modules:
        suite.addTest(unittest.defaultTestLoader.loadTestsFromName("test." + name))
    print(cowshed.freeze(), file=sys.stderr)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1, buffer=True).run(suite)
    return len(result.failures) + len(result.errors) > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
