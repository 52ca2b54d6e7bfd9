"""Queues and pipes in shared memory, with the interface of ``multiprocessing``'s.

What is put is there when ``put`` returns: no thread feeds it, and a process that ends waits for
nobody.  A message may have any size.  Buffers that pickle protocol 5 leaves out, such as the data
of an array, are copied twice, into the queue and out of it, and neither pickled nor sent by a pipe.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import queue
import select
import time
from multiprocessing import context, reduction
from typing import Any

from cowshed import _cowshed

_SLOTS = 16384
_MOST_SLOTS = 1 << 24
_MEMORY = 1 << 30
_MOST_MEMORY = 1 << 40


def _make(name: str, slots: int, memory: int) -> _cowshed.Channel:
    if not 1 <= memory <= _MOST_MEMORY:
        raise ValueError(f"memory must be 1 byte to 1 TiB, not {memory}")
    if not 1 <= len(name.encode()) <= 63:
        raise ValueError(f"name must have 1 to 63 bytes, not {name!r}")
    return _cowshed.Channel(name, slots, memory)


def _parts(obj: object) -> list[Any]:
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    # Also pickles what multiprocessing can send.
    reduction.ForkingPickler(file, 5, True, buffers.append).dump(obj)  # type: ignore[call-arg]
    return [file.getbuffer(), *(each.raw() for each in buffers)]


def _object(message: Any) -> Any:
    if type(message) is bytes:
        return pickle.loads(message)
    data, buffers = message.parts()
    return pickle.loads(data, buffers=buffers)


def _type(obj: object) -> str:
    return type(obj).__qualname__


class _Channel:
    """A queue.  Its channel pickles, as a pair of descriptors, into a process that is being started."""

    _channel: _cowshed.Channel

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return tuple(map(reduction.DupFd, self._channel.descriptors()))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        segment, event = state
        self._channel = _cowshed.Channel.from_descriptors(segment.detach(), event.detach())

    def empty(self) -> bool:
        return self._channel.fill()[0] == 0

    def close(self) -> None:
        """Closes the queue for all processes.  What is in it can still be taken."""
        self._channel.close()


class SimpleQueue(_Channel):
    """A queue as ``multiprocessing.SimpleQueue``.  ``put`` waits while the queue is full.

    :param memory: the most bytes that waiting messages may take together, at most 1 TiB.  A limit, not a
        reservation: a new queue takes 104 KiB, and more when it is used.
    :param name: 1 to 63 bytes, for cowtop and :func:`cowshed.transfers`.
    """

    def __init__(self, *, memory: int = _MEMORY, name: str = "queue") -> None:
        self._channel = _make(name, _SLOTS, memory)

    def put(self, obj: Any) -> None:
        """Puts an object.  It can be received as soon as ``put`` returns.

        :raises cowshed.Closed: the queue is closed.
        :raises cowshed.TooLarge: the object takes more than ``memory``.
        :raises cowshed.OutOfMemory: the machine or the memory cgroup has no memory for the object.
        """
        self._channel.send(_parts(obj), _type(obj), -1)

    def get(self) -> Any:
        """Takes the next object; waits for it.

        :raises cowshed.Closed: the queue is closed and empty.
        """
        return _object(self._channel.receive(-1))


class Queue(_Channel):
    """A queue as ``multiprocessing.Queue``, with these differences.

    * An object is there when ``put`` returns, in the order of the calls, for every receiver.
    * ``put`` waits while the queue is full, also without ``maxsize``: 16,384 objects, or ``memory``.
      An object of more than some 180 bytes takes at most 2.2 times its size of ``memory``.
    * ``close()`` closes it for all processes: ``put`` fails from then on, and ``get`` once the queue
      is empty, both with :class:`cowshed.Closed`.  No sentinels are needed.
    * There is no thread: ``join_thread`` and ``cancel_join_thread`` do nothing.  What a process has
      put stays when it ends.
    * If a process is killed, the others go on.  An object that it had just taken is lost with it.

    :param maxsize: the most objects; 0: 16,384.
    :param memory: the most bytes that they take while they wait, at most 1 TiB.  A limit, not a
        reservation: a new queue takes 104 KiB, and more when it is used.
    :param name: 1 to 63 bytes, for cowtop and :func:`cowshed.transfers`.
    """

    def __init__(self, maxsize: int = 0, *, memory: int = _MEMORY, name: str = "queue") -> None:
        self._maxsize = maxsize if maxsize > 0 else _SLOTS
        if self._maxsize > _MOST_SLOTS:
            raise ValueError(f"maxsize must be at most {_MOST_SLOTS}, not {maxsize}")
        self._channel = _make(name, self._maxsize, memory)

    def __getstate__(self) -> tuple[Any, ...]:
        return (*super().__getstate__(), self._maxsize)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *channel, self._maxsize = state
        super().__setstate__(tuple(channel))

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Puts an object.

        :param timeout: seconds to wait for room; ``None``: for ever.
        :raises queue.Full: there was no room in time.
        :raises cowshed.PeerStopped: a stopped process holds a lock.  A call that may wait for ever waits.
        :raises cowshed.Closed: the queue is closed.
        :raises cowshed.TooLarge: the object takes more than ``memory``.
        :raises cowshed.OutOfMemory: the machine or the memory cgroup has no memory for the object.
        """
        if not self._channel.send(_parts(obj), _type(obj), _seconds(block, timeout)):
            raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the next object.

        :param timeout: seconds to wait for one; ``None``: for ever.
        :raises queue.Empty: none came in time.
        :raises cowshed.PeerStopped: a stopped process holds a lock.  A call that may wait for ever waits.
        :raises cowshed.Closed: the queue is closed and empty.
        """
        message = self._channel.receive(_seconds(block, timeout))
        if message is None:
            raise queue.Empty
        return _object(message)

    def put_nowait(self, obj: Any) -> None:
        self.put(obj, False)

    def get_nowait(self) -> Any:
        return self.get(False)

    def qsize(self) -> int:
        return self._channel.fill()[0]

    def full(self) -> bool:
        return self.qsize() >= self._maxsize

    def join_thread(self) -> None:
        """Does nothing: there is no thread."""

    def cancel_join_thread(self) -> None:
        """Does nothing: there is no thread."""


def _seconds(block: bool, timeout: float | None) -> float:
    if not block:
        return 0
    return -1 if timeout is None else max(timeout, 0)


class Connection:
    """An end of :func:`Pipe`, as ``multiprocessing.connection.Connection``.

    An end is closed when every process that has it has closed it or ended, as with the kernel's
    pipes.  ``recv`` then raises ``EOFError`` once all is received, and ``send`` ``BrokenPipeError``.
    """

    # A pipe beside each channel shows who is alive.  Receivers hold its reading end, and senders
    # its writing end.
    def __init__(self, receive: _cowshed.Channel | None, sender_lives: int,
                 send: _cowshed.Channel | None, receiver_lives: int) -> None:
        self._receive, self._sender_lives = receive, sender_lives
        self._send, self._receiver_lives = send, receiver_lives
        self._poller: select.epoll | None = None
        self._closed = False

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        self._check_open()

        def side(channel: _cowshed.Channel | None, lives: int) -> Any:
            return channel and tuple(map(reduction.DupFd, (*channel.descriptors(), lives)))

        return side(self._receive, self._sender_lives), side(self._send, self._receiver_lives)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        def side(descriptors: Any) -> tuple[_cowshed.Channel | None, int]:
            if not descriptors:
                return None, -1
            segment, event, lives = (each.detach() for each in descriptors)
            return _cowshed.Channel.from_descriptors(segment, event), lives

        Connection.__init__(self, *side(state[0]), *side(state[1]))

    def _check_open(self) -> None:
        if self._closed:
            raise OSError("handle is closed")

    def _receiver(self) -> _cowshed.Channel:
        self._check_open()
        if self._receive is None:
            raise OSError("connection is write-only")
        return self._receive

    def _sender(self) -> _cowshed.Channel:
        self._check_open()
        if self._send is None:
            raise OSError("connection is read-only")
        return self._send

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def readable(self) -> bool:
        return self._receive is not None

    @property
    def writable(self) -> bool:
        return self._send is not None

    def fileno(self) -> int:
        """Returns a descriptor for ``select`` and ``multiprocessing.connection.wait``.

        It is readable while there is something to receive, or the other end is closed."""
        channel = self._receiver()
        if self._poller is None:
            self._poller = _epoll()
            self._poller.register(channel.descriptor(), select.EPOLLIN)
            self._poller.register(self._sender_lives, 0)
        channel.settle()
        return self._poller.fileno()

    def close(self) -> None:
        """Closes this process's copy of the end."""
        if self._closed:
            return
        self._closed = True
        if self._poller is not None:
            self._poller.close()
        for lives in (self._sender_lives, self._receiver_lives):
            if lives >= 0:
                os.close(lives)
        self._receive = self._send = None

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __enter__(self) -> Connection:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, obj: Any) -> None:
        """Sends an object; waits while the other end has 1 GiB or 16,384 objects to receive.

        :raises BrokenPipeError: nobody has the other end any more.
        :raises cowshed.TooLarge: the object takes more than ``memory``.
        :raises cowshed.PeerStopped: a stopped process held a lock for a second.
        :raises cowshed.OutOfMemory: the machine or the memory cgroup has no memory for the object.
        """
        self._sender()
        self._send_parts(_parts(obj), _type(obj))

    def send_bytes(self, buffer: Any, offset: int = 0, size: int | None = None) -> None:
        self._sender()
        view = memoryview(buffer).cast("B")
        if offset < 0:
            raise ValueError("offset is negative")
        if len(view) < offset:
            raise ValueError("buffer length < offset")
        if size is None:
            size = len(view) - offset
        elif size < 0:
            raise ValueError("size is negative")
        elif offset + size > len(view):
            raise ValueError("buffer length < offset + size")
        self._send_parts([view[offset:offset + size]], "bytes")

    def _send_parts(self, parts: list[Any], kind: str) -> None:
        while True:
            if _is_hung_up(self._receiver_lives):
                raise BrokenPipeError(errno.EPIPE, "nobody has the other end of this pipe any more")
            if self._sender().send(parts, kind, 1):
                return

    def recv(self) -> Any:
        """Receives the next object; waits for it.

        :raises EOFError: nobody has the other end any more, and all is received.
        :raises cowshed.PeerStopped: a stopped process holds a lock.
        """
        return _object(self._message())

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = self._bytes()
        if maxlength is not None and len(data) > maxlength:
            self.close()
            raise OSError("got more than maxlength bytes")
        return bytes(data)

    def recv_bytes_into(self, buffer: Any, offset: int = 0) -> int:
        with memoryview(buffer) as view:
            into = view.cast("B")
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(into):
                raise ValueError("offset too large")
            data = self._bytes()
            if len(into) < offset + len(data):
                from multiprocessing import BufferTooShort
                raise BufferTooShort(bytes(data))
            into[offset:offset + len(data)] = data
            return len(data)

    def _bytes(self) -> Any:
        message = self._message()
        if type(message) is bytes:
            return message
        data, buffers = message.parts()
        return pickle.dumps(pickle.loads(data, buffers=buffers), 5) if buffers else data

    def _message(self) -> Any:
        channel = self._receiver()
        message = channel.receive(0)
        while message is None:
            at_end = not self._wait(None)
            message = channel.receive(0)
            if message is None and at_end:
                raise EOFError
        if self._poller is not None:
            channel.settle()
        return message

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something can be received, or the other end is closed, within ``timeout`` seconds.

        ``None``: waits for it."""
        channel = self._receiver()
        end = None if timeout is None else time.monotonic() + max(timeout, 0)
        while channel.fill()[0] == 0:
            channel.settle()  # recv() left it readable, perhaps another process's
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return _is_hung_up(self._sender_lives)
            if not self._wait(left):
                return True
        return True

    def _wait(self, seconds: float | None) -> bool:
        """Waits until something may have come; false: nobody can send any more."""
        poller = select.poll()
        poller.register(self._receiver().descriptor(), select.POLLIN)
        poller.register(self._sender_lives, select.POLLIN)
        events = poller.poll(None if seconds is None else seconds * 1000)
        return not any(fd == self._sender_lives for fd, _ in events)


def _epoll() -> Any:
    if hasattr(select, "epoll"):
        return select.epoll()
    from gevent.monkey import get_original  # type: ignore[import]  # which takes it away

    return get_original("select", "epoll")()


def _is_hung_up(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)  # that of gevent needs an event
    return bool(poller.poll(0))


def Pipe(duplex: bool = True, *, memory: int = _MEMORY, name: str = "pipe") -> tuple[Connection, Connection]:
    """Returns the two ends of a pipe, as ``multiprocessing.Pipe``.

    ``send`` returns at once unless the pipe is full, whatever the size of the object.

    :param duplex: both ends send and receive; else the first receives, and the second sends.
    :param memory: the most bytes that wait in one direction, at most 1 TiB.
    """
    def direction() -> tuple[_cowshed.Channel, int, int]:
        return (_make(name, _SLOTS, memory), *os.pipe())

    there, reader_there, writer_there = direction()
    ends = Connection(there, reader_there, None, -1), Connection(None, -1, there, writer_there)
    if duplex:
        back, ends[1]._sender_lives, ends[0]._receiver_lives = direction()
        ends[0]._send = ends[1]._receive = back
    return ends
