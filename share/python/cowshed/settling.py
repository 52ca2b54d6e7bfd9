"""Quick forks of the heap that a process already has: in shared memory files, or in 2 MiB pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cowshed import _cowshed


@dataclasses.dataclass(frozen=True)
class Settled:
    """What :func:`settle` did.  ``print()`` shows it in a few lines."""

    moved: Mapping[str, int]
    """The memory that moved, in bytes, by its owner: ``"pymalloc's arenas"``, ``"malloc's main heap"``,
    ``"malloc's heaps of threads"``, ``"malloc's large blocks"``."""
    left: Mapping[str, int]
    """The private, writable memory that stayed, in bytes of addresses, by the reason."""
    moved_bytes: int
    """The sum of ``moved``."""
    copied_bytes: int
    """The pages of it that were not zero."""
    huge_page_bytes: int
    """The memory that is in 2 MiB pages now."""
    seconds: float
    """What the call took.  Other threads of Python waited for as long."""
    longest_pause: float
    """The longest time, in seconds, for which all other threads were stopped and signals waited."""
    page_tables_before: int
    """The page tables of this process, in bytes: an upper bound of what a fork copied."""
    page_tables_after: int
    """The same of what a fork copies now."""
    fork_before: float | None = None
    """The seconds of a fork before, with ``time_fork``."""
    fork_after: float | None = None
    """The seconds of a fork now."""

    def __str__(self) -> str:
        text = (f"settled {self.moved_bytes / 2**20:.1f} MiB in {self.seconds:.2f} s; page tables "
                f"{self.page_tables_before / 2**20:.1f} MiB -> {self.page_tables_after / 2**20:.1f}")
        if self.fork_before is not None and self.fork_after is not None:
            text += f"; fork {self.fork_before * 1000:.2f} ms -> {self.fork_after * 1000:.2f}"
        return text


def settle(*, threads: Literal["refuse", "stop"] = "refuse", stop_timeout: float = 1, leave: Iterable[Any] = (),
           io_is_at_rest: bool = False, keep_in_core_dumps: bool = True, huge_pages: bool = False,
           time_fork: bool = False) -> Settled:
    """Moves this process's heap into memfds, in place, so that ``fork()`` copies no page tables for it.

    ``fork()`` copies page tables: some 10 ms per GiB of memory.  Objects keep their addresses and
    their values.  It moves pymalloc's arenas, where Python keeps objects of up to 512 bytes, and
    glibc's heap, where larger ones and those of most extensions are.  It leaves stacks, the memory
    of other allocators, and memory that is locked, registered or special in another way.

    It pays for a parent of a GiB or more that forks often, or has many workers.  It does not pay for
    a parent that goes on writing to most of its data: a page that is written afterwards is there
    twice, also by freeing, and by the end of a program, which frees what was not frozen.  Memory
    that an older child shares is there twice at once.  Call it after :func:`freeze`, as
    ``freeze(settle=True)`` does.  Then reading writes nothing.

    Called again, it moves what is new, and what was written since.

    :param threads: what to do if other threads run.  ``"refuse"``: raise :class:`ThreadsRunning`.  ``"stop"``: stop
        them, by signal 33, while up to 16 MiB move at a time.  System calls of C code in them may fail with EINTR.
    :param stop_timeout: the seconds that threads may take to stop.
    :param leave: objects with buffers to leave alone, such as what is registered with io_uring or a device.
    :param io_is_at_rest: says that no asynchronous I/O is under way, and all that is registered for it is in
        ``leave``.  Without this, a process with an io_uring is refused.
    :param keep_in_core_dumps: adds mappings of files to core dumps, so that they keep the settled memory.
        Programs that this process executes later inherit that.
    :param huge_pages: puts the memory into 2 MiB pages.  ``settle()`` takes about as long again, and children have
        fewer page faults.
    :param time_fork: forks twice, to measure it.
    :return: what moved, what was left and why.
    :raises ThreadsRunning: other threads run, or did not stop in time.
    :raises Unsupported: a sanitizer or valgrind, a malloc that is not glibc's, or I/O that may be under way.
    :raises OutOfMemory: there are not 4 MiB for a copy.
    :raises OSError: a limit or a sandbox is in the way.
    """
    if threads not in ("refuse", "stop"):
        raise ValueError(f"threads is 'refuse' or 'stop', not {threads!r}")
    return Settled(*_cowshed.settle([*leave], threads == "stop", stop_timeout, io_is_at_rest, keep_in_core_dumps,
                                    huge_pages, time_fork))


@dataclasses.dataclass(frozen=True)
class Collapsed:
    """What :func:`collapse_heap` did, in bytes.  ``print()`` shows it in a line."""

    left: Mapping[str, int]
    """The memory that stayed in small pages, by the reason: ``"sparse"``, ``"shared"``, ``"edge"``, ``"swapped"``,
    ``"locked"``, ``"forbidden"``, ``"busy"``, ``"no_memory"``."""
    private_bytes: int
    """The private memory of this process, before."""
    huge_before: int
    """What of it was in 2 MiB pages."""
    huge_after: int
    """What is now."""
    added_bytes: int
    """The holes that were filled."""
    page_tables_before: int
    """What a fork copied, without those of 2 MiB pages."""
    page_tables_after: int
    """What a fork copies now."""
    seconds: float
    """What the call took."""

    def __str__(self) -> str:
        return (f"{self.huge_after / 2**20:.1f} of {self.private_bytes / 2**20:.1f} MiB in 2 MiB pages, "
                f"{self.huge_before / 2**20:.1f} before, in {self.seconds:.2f} s; page tables "
                f"{self.page_tables_before / 2**20:.1f} MiB -> {self.page_tables_after / 2**20:.1f}")


def collapse_heap(*, most_added: float = 0.02, cpu_share: float = 1) -> Collapsed:
    """Puts this process's private memory into 2 MiB pages where it is dense, so that ``fork()`` is quick.

    It serves a parent that writes between its forks, for which :func:`settle` does not pay: call it
    before each fork, since what is written while a child lives goes back to small pages.  Objects
    keep their addresses.  It takes some 2 s of CPU a GiB at first, and other threads run on.  ``cowtop
    collapse`` does the same from outside.

    :param most_added: holes in the memory are filled, up to this part of it.
    :param cpu_share: the part of a CPU that it takes.
    :return: what is in 2 MiB pages, and what was left and why.
    :raises Unsupported: Linux before 6.1, or no transparent huge pages.
    :raises OSError: /proc/self/pagemap cannot be read.
    """
    return Collapsed(*_cowshed.collapse_heap(most_added, cpu_share))
