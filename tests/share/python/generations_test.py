"""Tests that a master that freezes again and again grows as one that does not.

By hand, generations_test.py --master MODE COUNT runs one of them."""

import gc
import os
import random
import signal
import subprocess
import sys
import types
import unittest

COUNT = os.environ.get("COWSHED_GENERATIONS", "1000")
HUGE_PAGE = 2048 / (0.9 * int(COUNT))  # KiB a generation, when either has one more
SOURCE = """
import json, re
TABLE = {f"key {number} {i}": [i, f"value {number} {i}", (i, str(i))] for i in range(100)}
PATTERN = re.compile(r"value (?P<number>[0-9]+) x%d" % number)
class Thing:
    def __init__(self, name): self.name = name
    def read(self): return [key for key, value in TABLE.items() if value[0] and self.name]
THINGS = [Thing(f"thing {number} {i}") for i in range(20)]
def read(): return sum(len(thing.read()) for thing in THINGS) + len(json.dumps(TABLE))
"""


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


def master(mode, count):
    """Goes on importing, freezes and forks, again and again, and kills half of the children.  Prints what
    each generation added to its memory, in KiB."""
    if mode == "cowshed":
        import cowshed
    modules = []
    for number in range(count):
        module = types.ModuleType(f"generation_{number}")
        module.number = number
        sys.modules[module.__name__] = module
        exec(compile(SOURCE, module.__name__, "exec"), vars(module))
        modules.append(module)
        module.read()
        if mode == "cowshed":
            cowshed.freeze()
        else:
            gc.collect()
            gc.freeze()
        child = os.fork()
        if child == 0:
            for each in random.choices(modules, k=5):
                each.read()
            os._exit(0)
        if number % 2:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status not in (0, signal.SIGKILL):
            sys.exit(f"a child of generation {number} ended with {status}")
        if number == count // 10:
            begin, at = rss(), number
    print(round((rss() - begin) / (count - 1 - at), 2))


def growth(mode):
    done = subprocess.run([sys.executable, __file__, "--master", mode, COUNT], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return float(done.stdout)


class GenerationsTest(unittest.TestCase):
    def test_grows_as_without(self):
        plain, frozen = growth("plain"), growth("cowshed")
        print(f"{plain} KiB a generation, frozen {frozen}")
        self.assertLess(frozen, 1.1 * plain + HUGE_PAGE)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--master"]:
        master(sys.argv[2], int(sys.argv[3]))
    else:
        unittest.main()
