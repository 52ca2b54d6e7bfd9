"""The command cowshed, and python -m cowshed."""

import runpy
import sys
from collections.abc import Callable

import cowshed
from cowshed import _cowshed

_HELP = """\
Usage: cowshed [--help | --version] COMMAND [ARGUMENT...]

Shares the objects of a Python program with the processes that it forks,
without copies.  It is a library; call it before the fork:

  import cowshed

  ...                       # import everything, load the data
  print(cowshed.freeze())   # from here, reading an object copies no page

With gunicorn, in gunicorn.conf.py:

  preload_app = True

  def when_ready(server):
      server.log.info("%s", cowshed.freeze())

  def worker_exit(server, worker):
      cowshed.end_process()

help(cowshed) in Python lists the rest: queues, references, meters.

Commands:
  pickled SCRIPT  Run SCRIPT and show what multiprocessing pickles in it

Options:
  --version       Print the version, and whether freeze() works in this Python
  --help          Print this help

cowshed COMMAND --help tells more of a command."""


def _pickled(arguments: list[str]) -> None:
    sys.argv = ["pickled", *arguments]
    runpy.run_module("cowshed.pickled", run_name="__main__", alter_sys=True)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {"pickled": _pickled}


def _version() -> str:
    why_not = _cowshed.why_not_in_place()
    abi = _cowshed.__file__.rpartition("/")[2].split(".")[1]
    works = f"does not freeze in place: {why_not}" if why_not else "works in place"
    return (f"cowshed {cowshed.__version__}, built for Python {cowshed.built_for} (ABI {abi})\n"
            f"Python {sys.version.split()[0]}, {sys.executable}: freeze() {works}")


def main() -> int:
    match sys.argv[1:]:
        case [] | ["-h" | "--help", *_]:
            print(_HELP)
        case ["--version", *_]:
            print(_version())
        case [name, *arguments] if name in _COMMANDS:
            _COMMANDS[name](arguments)
        case [name, *_]:
            print(f"cowshed: there is no {'option' if name.startswith('-') else 'command'} '{name}' (see --help)",
                  file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
