"""Runs random commands with and without `cowshed run`: output, exit status and files must be the same.

COWSHED_SEED draws other commands; COWSHED_FULL draws 1000 instead of 30."""

import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
import unittest

# Of Python programs, {n} is a small number, and {sig} a signal.
PROGRAMS = [
    "print(sum(range(100)))",
    "import sys; sys.exit({n})",
    "raise ValueError('e{n}')",
    "import sys; sys.stdout.write(sys.stdin.read().upper())",
    "import sys, os; print('out'); print('err', file=sys.stderr); os.abort() if {n} == 3 else None",
    "import os, signal; os.kill(os.getpid(), {sig})",
    "import os; os.execv('/bin/echo', ['echo', 'x{n}'])",
    "import os, sys; os.execv(sys.executable, [sys.executable, '-B', '-c', 'print({n})'])",
    "import subprocess; print(subprocess.run(['sh', '-c', 'echo a; exit {n}'], capture_output=True))",
    "import atexit; atexit.register(print, 'end'); f = open('file{n}', 'w'); f.write('text'); print('open')",
    "import threading; t = threading.Thread(target=print, args=({n},)); t.start(); t.join()",
    "import os, pty; os.dup2(os.open(os.devnull, os.O_RDONLY), 0); print(pty.spawn(['true']))",
    """
import os
pid = os.fork()
if pid == 0:
    print('child', flush=True)
    os._exit({n})
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))""",
    """
import os, sys
pid = os.fork()
if pid == 0:
    sys.exit({n})
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))""",
    """
import multiprocessing
def main():
    with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, range(-3, {n})))
main()""",
    """
import concurrent.futures, multiprocessing
def main():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('fork')) as executor:
        print(list(executor.map(abs, [-{n}])))
main()""",
    """
import os
if os.fork(): os._exit({n})
os.setsid()
if os.fork(): os._exit(0)
open('file{n}', 'w').write('daemon')""",
    """
import atexit, os
atexit.register(lambda: os.write(1, b'bye\\n'))
f = open('file{n}', 'w')
f.write('both')
pid = os.fork()
if pid: os.waitpid(pid, 0)""",
    """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: (print('term', flush=True), os._exit({n})))
pid = os.fork()
if pid == 0:
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(0)
time.sleep(5)""",
    """
import os, weakref
class A:
    def __del__(self): os.write(1, b'del\\n')
a = A()
b = [a]
b.append(b)
weakref.finalize(a, os.write, 1, b'fin\\n')
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)""",
    """
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    pid = os.fork()
    if pid == 0: os._exit({n})
    print(os.waitpid(pid, 0)[1], os.path.exists(folder))""",
]
WAYS = ["{a} | cat", "{a} && {b}", "{a}; {b}", "( {a} )", "echo $({a})", "{a} & wait; {b}", "{a} || {b}", "exec {a}",
        "sh -c {quoted}", "echo in | {a}"]
SEED, COUNT = int(os.environ.get("COWSHED_SEED", 1)), 1000 if os.environ.get("COWSHED_FULL") else 30
RUN = [sys.executable, "-B", "-m", "cowshed", "run", "--above", "0", "--"]


def draw_command(draw, pythons, depth=0):
    if depth > 2 or draw.random() < 0.45:
        program = draw.choice(PROGRAMS).replace("{n}", str(draw.randrange(6)))
        program = program.replace("{sig}", str(draw.choice([2, 9, 10, 15])))
        return f"{draw.choice(pythons)} -B -c {shlex.quote(program)}"
    a, b = (draw_command(draw, pythons, depth + 1) for _ in range(2))
    way = draw.choice(WAYS).replace("{quoted}", shlex.quote(a))
    return way.replace("{a}", a).replace("{b}", b)


def outcome(prefix, command):
    def plain(text):  # without PIDs, addresses and other things of chance
        return re.sub(r"/tmp/\w+|0x[0-9a-f]+|\d{3,}", "N", text)

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*prefix, "sh", "-c", f"{command}\necho status $?"], cwd=folder, capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL,
                              env={**os.environ, "COWSHED_LOG": "none"})
        time.sleep(0.3 if "setsid" in command else 0)  # for the daemon
        files = {path.name: path.read_text() for path in pathlib.Path(folder).iterdir()}
    return done.returncode, plain(done.stdout), plain(done.stderr), files


class RunCommandsTest(unittest.TestCase):
    def test_random_commands_behave_as_without(self):
        draw = random.Random(SEED)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--without-pip", "--symlinks", folder],
                           check=True)
            for number in range(COUNT):
                command = draw_command(draw, [sys.executable, f"{folder}/bin/python"])
                with self.subTest(seed=SEED, number=number, command=command):
                    ours = outcome(RUN, command)
                    # The order of what runs side by side is chance.
                    theirs = next((each for each in (outcome([], command) for _ in range(10)) if each == ours), None)
                    self.assertEqual(ours, theirs or outcome([], command))


if __name__ == "__main__":
    unittest.main()
