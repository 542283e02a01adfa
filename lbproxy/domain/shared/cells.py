"""What the shared books of a pool stand in, and who may be at them: numbers in memory that all workers see, and a lock.

Both are given by whoever makes the books (lbproxy/shared has the real ones), so that tests can stand between any two
accesses: let another worker run there, or let this one die.
"""

from __future__ import annotations

from typing import Protocol

from lbproxy.compiling import mypyc_attr


@mypyc_attr(native_class=False)
class Cells(Protocol):
    """Whole numbers of 64 bits, with sign. Each is read and written at once: nobody sees half of one, and one that was
    written stays when the writer dies. All are 0 at first.

    A slice is many of them, each as it was at some moment; mypyc has no overloads to say so."""

    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, value: int, /) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Guard:
    """The lock of one pool's books; this one, for a worker that has them to itself, lets everybody in."""

    __slots__ = ()

    def enter(self) -> bool:
        """Wait until nobody else is inside. True: the last who was has died in there, so the books may be torn."""
        return False

    def leave(self) -> None:
        """Let the next one in."""
