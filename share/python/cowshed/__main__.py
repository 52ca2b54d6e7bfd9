"""The command cowshed, and python -m cowshed."""

import os
import runpy
import sys
from collections.abc import Callable

import cowshed
from cowshed import _cowshed

_HELP = """\
Usage: cowshed [--help | --version] COMMAND [ARGUMENT...]

Shares the objects of a Python program with the processes that it forks,
without copies.

Commands:
  run [--] CMD    Run CMD, and freeze each Python program in it before it forks:
                    cowshed run -- gunicorn --preload -w 16 shop:app
  pickled SCRIPT  Run SCRIPT and show what multiprocessing pickles in it

Options:
  --version       Print the version, and whether freeze() works in this Python
  --help          Print this help

cowshed COMMAND --help tells more of a command.  In your own program:

  import cowshed

  ...                       # import everything, load the data
  print(cowshed.freeze())   # from here, reading an object copies no page

help(cowshed) in Python lists the rest: queues, references, meters."""


def _pickled(arguments: list[str]) -> int:
    sys.argv = ["pickled", *arguments]
    runpy.run_module("cowshed.pickled", run_name="__main__", alter_sys=True)
    return 0


def _run(arguments: list[str]) -> int:
    from cowshed.run import command

    return command.main(arguments)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {"pickled": _pickled, "run": _run}


def _version() -> str:
    why_not = _cowshed.why_not_in_place()
    abi = _cowshed.__file__.rpartition("/")[2].split(".")[1]
    works = f"does not freeze in place: {why_not}" if why_not else "works in place"
    return (f"cowshed {cowshed.__version__}, built for Python {cowshed.built_for} (ABI {abi})\n"
            f"Python {sys.version.split()[0]}, {sys.executable}: freeze() {works}")


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the flush at the end
        if not isinstance(error, BrokenPipeError):  # else nobody reads on
            print(f"cowshed: cannot write: {error.strerror}", file=sys.stderr)
            return 1
    return 0


def main() -> int:
    match sys.argv[1:]:
        case [] | ["-h" | "--help", *_]:
            return _print(_HELP)
        case ["--version", *_]:
            return _print(_version())
        case [name, *arguments] if name in _COMMANDS:
            return _COMMANDS[name](arguments)
        case [name, *_]:
            print(f"cowshed: there is no {'option' if name.startswith('-') else 'command'} '{name}' (see --help)",
                  file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
