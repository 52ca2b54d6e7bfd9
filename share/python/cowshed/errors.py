"""What can go wrong.  Each exception's text names the object, the fault and the way out of it."""

from __future__ import annotations


class Error(Exception):
    """The base of all exceptions of this package, apart from ``OSError`` and those of Python."""


class NotPublished(Error, LookupError):
    """No object of this name is published in this process."""


class PublishedTooLate(Error):
    """The object was published after this process was started."""


class Released(Error):
    """The object's publication was withdrawn."""


class WrongProcessTree(Error):
    """The reference is of another process tree: this process was not forked from its publisher."""


class LoadFailed(Error, RuntimeError):
    """The forkserver of :func:`cowshed.get_context` could not load the data.  The exception's notes say where."""


class Closed(Error, ValueError, EOFError):
    """The queue is closed; for a receiver it is also empty."""


class TooLarge(Error, ValueError):
    """The message is larger than the memory of the queue."""


class OutOfMemory(Error, MemoryError):
    """The kernel or the memory cgroup has no more shared memory."""


class PeerStopped(Error, TimeoutError):
    """A stopped process (SIGSTOP) holds a lock of the queue."""


class Damaged(Error):
    """The queue's shared memory was overwritten."""


class ThreadsRunning(Error, RuntimeError):
    """Other threads run, and may write to memory that is to be moved."""


class Unsupported(Error, NotImplementedError):
    """This kernel or sandbox refuses what is needed."""


_CLASSES: dict[str, type[Exception]] = {
    "not_published": NotPublished, "published_too_late": PublishedTooLate, "released": Released,
    "wrong_process_tree": WrongProcessTree, "closed": Closed, "message_too_large": TooLarge,
    "out_of_memory": OutOfMemory, "peer_stopped": PeerStopped, "bad_channel": Damaged, "unsupported": Unsupported,
    "threads_running": ThreadsRunning,
    "invalid_argument": ValueError, "no_such_process": ProcessLookupError, "permission_denied": PermissionError,
}


def _make(code: str, message: str, number: int) -> Exception:
    if code == "system_call":
        return OSError(number, message)
    return _CLASSES.get(code, Error)(message)
