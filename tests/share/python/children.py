"""What tests run in processes of their own."""

import os
import pickle
import subprocess
import sys
import textwrap


def in_child(function):
    """Runs a function in a forked child; returns its result, or its exception."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            result = function()
        except Exception as error:
            result = error
        os.write(theirs, pickle.dumps(result))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        result = pickle.load(file)
    os.waitpid(child, 0)
    return result


def run(script, *arguments):
    """What a Python program prints that must succeed."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout
