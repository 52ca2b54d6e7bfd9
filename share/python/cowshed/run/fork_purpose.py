"""What a fork is for, as the code after it tells."""

from __future__ import annotations

import dis
import enum
import types
from collections.abc import Iterator, Sequence


class Purpose(enum.Enum):
    WORKER = "the child goes on with this process's objects"
    PROGRAM = "the child ends in an exec"
    DAEMON = "the parent ends"


_EXECUTE = frozenset({"execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"})
_END = frozenset({"_exit", "exit", "SystemExit"})
_known: dict[tuple[types.CodeType, int], Purpose] = {}


def purpose_of(caller: types.FrameType) -> Purpose:
    """`caller` is the function that forks now."""
    code = caller.f_code
    if code.co_filename.endswith("/subprocess.py") or code.co_name == "spawnv_passfds":
        return Purpose.PROGRAM
    if code.co_filename.endswith("/pty.py") and code.co_name == "fork" and caller.f_back:
        return purpose_of(caller.f_back)
    place = (code, caller.f_lasti)
    if place not in _known:
        _known[place] = _find_purpose(code, caller.f_lasti, caller.f_globals)
    return _known[place]


def _find_purpose(code: types.CodeType, at: int, names: dict[str, object]) -> Purpose:
    after = [each for each in dis.get_instructions(code) if each.offset > at and each.opname not in ("CACHE", "PRECALL")]
    if after and after[0].opname == "CALL":  # of 3.11, after its PRECALL
        del after[0]
    branches = _branches(after, names)
    if branches is None:
        return Purpose.WORKER
    parent, child = branches
    if _END.intersection(_names_to_first_call(each for each in after if each.offset >= parent)):
        return Purpose.DAEMON
    of_child = [each for each in after if each.offset >= child and not child < parent <= each.offset]
    return Purpose.PROGRAM if _executes(of_child, names) else Purpose.WORKER


def _branches(after: Sequence[dis.Instruction], names: dict[str, object]) -> tuple[int, int] | None:
    """Where parent and child go on, if the first thing after the fork is an `if` on its result."""
    compared: str | None = None
    constant: object = None
    name: object = None
    is_pair = False  # of a pseudo-terminal
    for index, each in enumerate(after[:-1]):
        match each.opname.split("_"):
            case ["POP", "JUMP", *_, ("TRUE" | "FALSE") as kind]:
                def jumps(pid: int) -> bool:
                    value = _compare(pid, compared, constant) if compared and isinstance(constant, int) else bool(pid)
                    return value is (kind == "TRUE")

                parent, child = (each.argval if jumps(pid) else after[index + 1].offset for pid in (1, 0))
                return None if parent == child else (parent, child)
            case ["COMPARE", "OP"] if isinstance(constant, int):
                compared = each.argrepr.removeprefix("bool(").removesuffix(")")
            case ["LOAD", "CONST" | "SMALL", *_]:
                constant = each.argval
            case ["UNPACK", "SEQUENCE"] if each.arg == 2:
                is_pair = True
            case ["STORE", *_] if name is None or is_pair:
                name = name or (each.argval[0] if isinstance(each.argval, tuple) else each.argval)
            case ["LOAD", *_] if each.argval == name:
                pass
            case ["LOAD", "GLOBAL"]:
                constant = names.get(each.argval)
            case ["COPY"] | ["TO", "BOOL"] | ["NOP"] | ["NOT", "TAKEN"] | ["EXTENDED", "ARG"]:
                pass
            case _:
                return None
    return None


def _compare(pid: int, operator: str, number: int) -> bool:
    match operator:
        case "==": return pid == number
        case "!=": return pid != number
        case "<": return pid < number
        case "<=": return pid <= number
        case ">": return pid > number
        case _: return pid >= number


def _names_to_first_call(instructions: Iterator[dis.Instruction]) -> Iterator[str]:
    for each in instructions:
        if each.opname.startswith("LOAD_") and isinstance(each.argval, str):
            yield each.argval
        elif each.opname.startswith(("CALL", "RAISE", "RETURN", "JUMP", "POP_JUMP")):
            return


def _executes(instructions: Sequence[dis.Instruction], names: dict[str, object]) -> bool:
    """Also by a function that is called."""
    for each in instructions:
        if each.opname.startswith("LOAD_") and isinstance(each.argval, str):
            called = names.get(each.argval)
            if each.argval in _EXECUTE or (isinstance(called, types.FunctionType) and
                                           _EXECUTE.intersection(called.__code__.co_names)):
                return True
    return False
