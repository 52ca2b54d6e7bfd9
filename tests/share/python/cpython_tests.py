"""Runs CPython's or NumPy's own tests, unmodified, after freeze(); what fails must fail without it, too.

cpython_tests.py [--plain | --run] [--again] [--settle] MODULE [TEST...]: --plain does not freeze; --run leaves it
to cowshed run; --again freezes every 0.2 s meanwhile, in a thread; --settle settles with each freeze.  MODULE: test_io, say, or numpy, of which it takes
all tests.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree

# What differs, and why.
KNOWN = {
    "test.test_gc.GCTests.test_get_referents_on_capsule":
        "3.14's collector untracks frozen objects after another test's gc.unfreeze()",
    "test.test_gc.GCTests.test_is_tracked": "the same",
    "test.test_io.CSignalsTest.test_interrupted_write_unbuffered":
        "the signal by which settle() stops a thread makes its write short",
    "test.test_io.PySignalsTest.test_interrupted_write_unbuffered": "the same",
    "test.test_io.test_signals.CSignalsTest.test_interrupted_write_unbuffered": "the same, on 3.15",
    "test.test_io.test_signals.PySignalsTest.test_interrupted_write_unbuffered": "the same",
    "lib.tests.test_function_base.TestLeaks.test_frompyfunc_leaks": "compares reference counts",
}


def freeze(again, settle):
    import cowshed
    print(cowshed.freeze(settle=settle, threads="stop"), file=sys.stderr)

    def go_on():
        while not end.wait(0.2):
            cowshed.freeze(settle=settle, threads="stop")

    end = threading.Event()
    if again:
        threading.Thread(target=go_on, daemon=True).start()
    return end


def run_cpython(module, names, prepare):
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names) if names else loader.loadTestsFromName("test." + module)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # tests make files of fixed names
        end = prepare()
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1, buffer=True).run(suite)
    if end:
        end.set()
    return [test.id() for test, _ in result.failures + result.errors if hasattr(test, "id")]


def run_numpy(names, prepare):
    import numpy
    import pytest

    class Freezes:
        def pytest_collection_finish(self):
            prepare()

    folder = os.path.dirname(numpy.__file__)
    os.environ["NPY_AVAILABLE_MEM"] = "4GB"  # else it takes what is free, also for what runs beside it
    with tempfile.TemporaryDirectory() as results:
        file = os.path.join(results, "results.xml")
        pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore", "--no-header", f"--rootdir={folder}",
                     f"--junitxml={file}", *(names or [f"{folder}/{part}" for part in ("_core", "lib", "ma", "linalg")])],
                    plugins=[Freezes()])
        cases = list(xml.etree.ElementTree.parse(file).iter("testcase"))
        print(len(cases), "tests")
        return [f"{case.get('classname')}.{case.get('name')}" for case in cases
                if case.find("failure") is not None or case.find("error") is not None]


def file_of(name):
    """The file of a test of NumPy, such as lib.tests.test_io.TestSave.test_array."""
    import numpy
    parts = name.partition("[")[0].split(".")
    last = next(i for i, part in enumerate(parts) if part.startswith("test_"))
    return os.path.join(os.path.dirname(numpy.__file__), *parts[:last], parts[last] + ".py")


def main(*arguments):
    plain, again, by_run, settle = (option in arguments for option in ("--plain", "--again", "--run", "--settle"))
    if by_run and "COWSHED_ABOVE" not in os.environ:
        os.environ["COWSHED_LOG"] = "none"
        os.execv(sys.executable, [sys.executable, "-m", "cowshed", "run", "--above", "0", *(["--settle"] if settle else []),
                                  "--", sys.executable, __file__, *arguments])
    module, *names = [each for each in arguments if not each.startswith("--")]
    prepare = (lambda: None) if plain or by_run else (lambda: freeze(again, settle))
    failed = run_numpy(names, prepare) if module == "numpy" else run_cpython(module, names, prepare)
    for name in failed:
        print("failed:", name)
    if plain or not failed:
        return 0
    # Whole files, since a test may depend on those before it.
    files = sorted({file_of(name) for name in failed}) if module == "numpy" else names
    done = subprocess.run([sys.executable, __file__, "--plain", module, *files], capture_output=True, text=True,
                          env={**os.environ, "COWSHED": "off"})
    as_plain = {line.removeprefix("failed: ") for line in done.stdout.splitlines() if line.startswith("failed: ")}
    differ = [name for name in failed if name not in as_plain and name.partition("[")[0] not in KNOWN]
    for name in differ:
        print("fails only frozen:", name)
    return len(differ) > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
