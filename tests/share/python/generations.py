"""A master that goes on importing, freezes and forks, again and again: generations.py MODE COUNT.
Prints what each generation added to its memory, in KiB, and kills half of the children at random."""

import gc
import os
import random
import signal
import sys
import types

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


def main(mode, count):
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


main(sys.argv[1], int(sys.argv[2]))
