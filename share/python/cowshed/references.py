"""References: 16 bytes in place of an object, for the children that already share it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from cowshed import _cowshed

T = TypeVar("T")


class Ref(Generic[T]):
    """A reference to a published object.  Pickled, it has 16 bytes beside the name of this class.

    It is good in the process that published the object and in what this process forks later.
    Every use checks that.
    """

    __slots__ = ("_bits",)
    _bits: bytes

    def __init__(self) -> None:
        raise TypeError("take references from cowshed.publish() or cowshed.find()")

    def get(self) -> T:
        """Returns the object itself, with no copy.

        :raises cowshed.PublishedTooLate: this process was started before the object was published.
        :raises cowshed.Released: the object was withdrawn.
        :raises cowshed.WrongProcessTree: this process was not forked from the publisher's tree.
        """
        return _cowshed.resolve(self._bits)  # type: ignore[no-any-return]

    def withdraw(self) -> None:
        """Ends the publication in this process.  Later uses raise :class:`cowshed.Released`.

        Processes that were forked before keep the object.  Raises what :meth:`get` raises.
        """
        _cowshed.withdraw(self._bits)

    def __reduce__(self) -> tuple[Any, ...]:
        return _ref, (self._bits,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self._bits == other._bits

    def __hash__(self) -> int:
        return hash(self._bits)

    def __repr__(self) -> str:
        return f"<cowshed.Ref {self._bits.hex()}>"


def _ref(bits: bytes) -> Ref[Any]:
    made: Ref[Any] = Ref.__new__(Ref)
    made._bits = bits
    return made


def publish(name: str | None, obj: T) -> Ref[T]:
    """Publishes ``obj`` under a name, for this process and the children that it forks later.

    The object is kept alive until it is withdrawn.  Call :func:`cowshed.freeze` afterwards, and
    children read it with no copy.  Thread-safe.

    :param name: 1 to 63 bytes; ``None``: :func:`find` does not return the object.
    :raises ValueError: a bad name, a name in use, or more than 65,536 objects.
    """
    return _ref(_cowshed.publish(name, obj))


def find(name: str) -> Ref[Any]:
    """Returns the reference to the object of this name.

    :raises cowshed.NotPublished: nothing of this name is published here.
    """
    return _ref(_cowshed.find(name))
