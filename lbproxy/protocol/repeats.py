"""What was made of heads that come again, so that it is made once.

Most of what clients send never repeats, and pays a comparison for this. A head is kept when it comes twice in a row;
how many are kept and how long they may be is bounded, so no stranger makes it grow. What is kept must be a pure
function of the head, and of what the owner of the table knows and never changes.

Heads are found at the beginning of what was read, so nobody has to look for their end first. That is sound because a
head ends with its first blank line: what begins with one has this one as its head.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from lbproxy.compiling import has_at, i64, word_at

Made = TypeVar("Made")

_WORD: Final = 8  # octets
_KEY_BYTES: Final = 48  # where most heads differ, if they do; a head that is shorter usually comes alone
_MARK: Final = 12  # octets from the end of a head: there ends the last field, often a length, before CR LF CR LF
_BITS: Final = 63
_MOST_ALIKE: Final = 8  # heads that begin with the same octets; more than that are looked through in vain


def _mark_of(size: i64) -> i64:
    at: i64 = size - _MARK  # a number of the machine; one in an expression with `else 0` would be an object
    if at < 0:
        at = 0
    return at


def _key(data: bytes) -> i64:
    """Equal for heads that begin with the same octets."""
    key: i64 = 0
    at: i64 = 0
    while at < _KEY_BYTES:
        key ^= word_at(data, at)
        at += _WORD
    return key


def _bit_of(key: i64) -> i64:
    """One of 64 bits."""
    folded = key ^ key >> 31
    one: i64 = 1
    return one << ((folded ^ folded >> 11 ^ folded >> 5) & _BITS)


class _Kept(Generic[Made]):
    """A head, and what was made of it. mark: the word at `at`, which tells most heads from each other."""

    __slots__ = ("at", "head", "made", "mark")

    def __init__(self, head: bytes, made: Made) -> None:
        self.head = head
        self.made = made
        self.at: i64 = _mark_of(len(head))
        self.mark: i64 = word_at(head, self.at)


class Repeats(Generic[Made]):
    """A table of at most `most` heads, each of at most `longest` octets."""

    __slots__ = (
        "_at",
        "_is_kept",
        "_known",
        "_last",
        "_longest",
        "_made",
        "_mark",
        "_most",
        "_n_known",
        "_seen",
        "_size",
    )

    def __init__(self, *, most: int, longest: int) -> None:
        self._known: dict[int, list[_Kept[Made]]] = {}  # by their first octets
        self._n_known = 0
        self._seen: i64 = 0  # the bits of all keys: most heads are told by them to be unknown, without a look-up
        self._last = b""  # begins with the last head; it is cut to its `_size` octets once that is worth a copy
        self._size: i64 = 0  # 0: there is none
        self._at: i64 = 0  # as in _Kept
        self._mark: i64 = 0
        self._made: Made | None = None
        self._is_kept = False
        self._most = most
        self._longest = longest

    def find(self, data: bytes) -> Made | None:
        """What was made of the head that `data` begins with, if that is known."""
        if self._size and word_at(data, self._at) == self._mark:
            last = self._last
            if len(last) > self._size:
                last = self._last = last[: self._size]
            if has_at(data, 0, last):
                if not self._is_kept and self._made is not None:
                    self._keep(last, self._made)
                return self._made
        if self._seen:
            key = _key(data)
            alike = self._known.get(key) if self._seen & _bit_of(key) else None
            if alike is not None:
                for kept in alike:
                    if word_at(data, kept.at) == kept.mark and has_at(data, 0, kept.head):
                        return kept.made
        return None

    def learn(self, data: bytes, size: int, made: Made) -> None:
        """Note what was made of a head that was not found: the first `size` octets of `data`."""
        if _WORD <= size <= self._longest:
            self._last = data if len(data) <= self._longest else data[:size]
            self._size = size
            self._at = _mark_of(size)
            self._mark = word_at(data, self._at)
            self._made = made
            self._is_kept = False

    def _keep(self, head: bytes, made: Made) -> None:
        self._is_kept = True
        if self._n_known >= self._most:
            self._known.clear()
            self._n_known = 0
            self._seen = 0
        key = _key(head)
        self._seen |= _bit_of(key)
        alike = self._known.setdefault(key, [])
        for at, other in enumerate(alike):
            if other.head == head:
                alike[at] = _Kept(head, made)
                return
        if len(alike) >= _MOST_ALIKE:
            del alike[0]
        else:
            self._n_known += 1
        alike.append(_Kept(head, made))
