# mypy: ignore-errors
"""The command: runs the program, and prints the report."""

import os
import sys

from .interpreters import SITECUSTOMIZE, entry, recording
from .report import SCHEMA, Run, report_json, report_text

METHODS = ("fork", "spawn", "forkserver")

DESCRIPTION = """\
Runs a Python program and tells what its multiprocessing pickles: every object, by the path of types
that leads to it, with count and bytes, largest first."""

EPILOG = """\
Examples:
  pickled app.py --port 80            what the program sends, by its own start method
  pickled --start-method all app.py   once by fork, spawn and forkserver each, side by side
  pickled --json -o sent.json app.py  the same for a machine to read
  pickled -m package.module           a module, as with python3 -m

How to read a type path:
  Worker.cache → dict → list → str    the strings in the lists in the dict that is the attribute
                                      `cache` of a Process subclass: that attribute carried them
  Process(target=work) args[0] → ...  the first argument in args=
  preparation data['sys_path'] → ...  what each start by spawn or forkserver sends besides
  square() item → ..., result value   what goes to a Pool's worker, and what comes back
  global app.work                     a function or class, sent as its name alone
BYTES are those of the pickle, with all that is inside the object.  An object that one pickle
reaches twice is sent, and counted, once; AGAIN is the number of references to it.

What is seen, in all processes that multiprocessing and joblib start: Process, Pool, Queue,
JoinableQueue, SimpleQueue, Pipe, Listener and Client, Manager, ProcessPoolExecutor, whatever else
calls multiprocessing's ForkingPickler, joblib.Parallel with processes, and loky.
What is not seen: send_bytes (nothing is pickled), pickles that a program makes itself, programs
that it runs by subprocess, and what its processes send after it has itself ended.  Arrays that
joblib passes as files are named, but not counted.

The program sends the very bytes that it sends without this tool, but takes some microseconds longer
for each object: one that pickles millions takes several times as long.  The traceback of an object
that cannot be pickled shows one frame of this tool.  A start method that the program chooses itself
is the one used: --start-method sets the default.

Exit status: the program's own (of several, the largest); 128+N when signal N ended it; 127 program
not found; 125 an error of pickled's own or bad usage."""


def version():
    """The project's, in its sources or installed."""
    import importlib.metadata
    here = os.path.dirname(os.path.realpath(__file__))
    try:
        with open(os.path.join(here, "../../../../VERSION"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        try:
            return importlib.metadata.version("cowshed")
        except importlib.metadata.PackageNotFoundError:
            return "of an unknown version"


def parse_arguments(argv):
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            self.exit(125, f"pickled: {message} (see --help)\n")

    parser = Parser(prog="pickled", usage="pickled [OPTIONS] SCRIPT [ARGS...]\n"
                    "       pickled [OPTIONS] -m MODULE [ARGS...]", description=DESCRIPTION,
                    epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                    allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pickled {version()}")
    parser.add_argument("--start-method", choices=(*METHODS, "all"), metavar="METHOD",
                        help="fork, spawn, forkserver, or all: the program runs once with each; "
                        "without it, as Python would")
    parser.add_argument("--top", type=int, default=20, metavar="N",
                        help="type paths to print (20; 0: all of them)")
    parser.add_argument("--json", action="store_true",
                        help=f"print one JSON object (schema {SCHEMA}) with all, not tables")
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="write the report to FILE, not to standard output")
    parser.add_argument("-m", dest="module", action="store_true",
                        help="SCRIPT is the name of a module")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("no script to run")
    if options.top < 0:
        parser.error("--top takes a number of 0 or more")
    if options.output == "":
        parser.error("the name of the file is empty")
    return options


def run_program(options, method, interrupted):
    import shutil
    import signal
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="cowshed-pickled-")
    try:
        shutil.copytree(os.path.dirname(os.path.abspath(__file__)), f"{folder}/_cowshed_pickled",
                        ignore=shutil.ignore_patterns("__pycache__"))
        with open(f"{folder}/sitecustomize.py", "w", encoding="utf-8") as file:
            file.write(SITECUSTOMIZE.format(entry=entry(folder, method)))
        command = [sys.executable, *(["-m"] if options.module else []), *options.command]
        # Ctrl-C is for the program; what is sent to this process alone is passed on to it.
        # These handlers stay until the report is out: timeout(1) sends each signal twice.
        def pass_on(number, _):
            interrupted.append(number)
            child.send_signal(number)

        handlers = {signal.SIGINT: lambda number, _: interrupted.append(number)}
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = pass_on
        child = None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        try:
            child = subprocess.Popen(command, env=recording(os.environ, folder), preexec_fn=lambda: (
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)))
            for number, handler in handlers.items():
                signal.signal(number, handler)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        status = child.wait()
        run = Run(method, 128 - status if status < 0 else status)
        run.read(folder)
        return run
    finally:
        for _ in range(3):  # a process that outlives the program may add a file meanwhile
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break


def main(argv):
    options = parse_arguments(argv)
    if not options.module and not os.path.exists(options.command[0]):
        print(f"pickled: cannot run '{options.command[0]}': there is no such file", file=sys.stderr)
        return 127
    output = None
    if options.output:
        try:
            output = open(options.output, "w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            print(f"pickled: cannot write '{options.output}': {error.strerror}", file=sys.stderr)
            return 125
    methods = METHODS if options.start_method == "all" else (options.start_method or "",)
    interrupted, runs = [], []
    for method in methods:
        runs.append(run_program(options, method, interrupted))
        if interrupted:
            break
    sys.stdout.reconfigure(errors="backslashreplace")  # arrows in a terminal without them
    stream = output or sys.stdout
    bold = (not output and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb")
    try:
        if options.json:
            print(report_json(options, runs), file=stream)
        else:
            for line in report_text(options, runs,
                                    lambda text: f"\033[1m{text}\033[0m" if bold else text):
                print(line, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        print(f"pickled: cannot write the report: {error.strerror}", file=sys.stderr)
        return 125
    return max(run.status for run in runs)
