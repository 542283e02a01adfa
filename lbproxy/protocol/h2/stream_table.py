"""The streams of a connection by their numbers, at a fraction of what a dictionary costs.

A dictionary of Python has objects for keys, so that each look-up makes a number, computes its hash and compares it.
Numbers of streams come one after the other, and those that are open together are nearly all neighbours: each has a
place of its own by its last digits. What finds its place taken, as one does that comes hundreds of streams behind
another which is still open, is kept in a dictionary after all.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, cast

from lbproxy.compiling import i64

FEWEST: Final = 8
MOST: Final = 256
"""Places. There are twice as many as streams, up to this number."""
_NOBODY: Final = -1

T = TypeVar("T")


class _Place:
    """number: whose it is."""

    __slots__ = ("item", "number")

    def __init__(self) -> None:
        self.number: i64 = _NOBODY
        self.item: object = None


class StreamTable(Generic[T]):
    """See the module. count: how many there are."""

    __slots__ = ("_mask", "_others", "_places", "count")

    def __init__(self) -> None:
        self.count: i64 = 0
        self._mask: i64 = FEWEST - 1
        self._places = [_Place() for _ in range(FEWEST)]
        self._others: dict[int, T] = {}

    def get(self, number: i64) -> T | None:
        """The one with this number; None if there is none."""
        place = self._places[(number >> 1) & self._mask]
        if place.number == number:
            return cast(T, place.item)
        return self._others.get(number) if self._others else None

    def put(self, number: i64, item: T) -> None:
        """Add one, whose number nobody has."""
        if self.count * 2 > self._mask and self._mask < MOST - 1:
            self._grow()
        self.count += 1
        place = self._places[(number >> 1) & self._mask]
        if place.number == _NOBODY:
            place.number = number
            place.item = item
        else:
            self._others[number] = item

    def pop(self, number: i64) -> T | None:
        """Take it out; None if there is none."""
        place = self._places[(number >> 1) & self._mask]
        if place.number == number:
            found = cast(T, place.item)
            place.number = _NOBODY
            place.item = None
            self.count -= 1
            return found
        other = self._others.pop(number, None) if self._others else None
        if other is not None:
            self.count -= 1
        return other

    def clear(self) -> None:
        for place in self._places:
            place.number = _NOBODY
            place.item = None
        self._others.clear()
        self.count = 0

    def _grow(self) -> None:
        before = self.items()
        self._mask = 2 * self._mask + 1
        self._places = [_Place() for _ in range(self._mask + 1)]
        self._others.clear()
        self.count = 0
        for number, item in before:
            self.put(number, item)

    # --- all of them ------------------------------------------------------------------------------------------------

    def items(self) -> list[tuple[int, T]]:
        """The numbers and who has them, the lowest first; a list that changes no more."""
        found = [(int(place.number), cast(T, place.item)) for place in self._places if place.number != _NOBODY]
        found.extend(self._others.items())
        found.sort(key=_number_of)
        return found

    def values(self) -> list[T]:
        """In the same order."""
        return [item for _, item in self.items()]

    def numbers(self) -> list[int]:
        return [number for number, _ in self.items()]

    def __len__(self) -> int:
        return self.count


def _number_of(item: tuple[int, object]) -> int:
    return item[0]
