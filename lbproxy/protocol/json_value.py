"""One value of a JSON document, found by a JSON Pointer (RFC 6901) while the document arrives.

Nothing is parsed but what lies on the way to the value: everything beside it is passed over by looking for quotes and
brackets only, and whatever follows it is not looked at. So a document that is not JSON may have a value all the same,
and one whose names come twice has the first. That is right for a hint, and not for a decision about who may do what.

For such a decision there is the exact search: it goes on behind the value to the end of the document, and a name on the
way that comes twice, or a document that does not end as it began, has no value. So nobody who reads the document finds
another value there: parsers differ in which of two equal names they take. What lies beside the way is still passed over
by its quotes and brackets, what follows the document is not looked at, and of a document that is longer than LIMIT its
first LIMIT bytes decide.

The document may be cut anywhere. After LIMIT bytes the search is over. What is held meanwhile is at most a name or the
value, less than LIMIT; the time is linear in what is fed, however it is cut.
"""

from __future__ import annotations

import json
import re
from typing import Final

from lbproxy.compiling import i64, mypyc_attr

LIMIT: Final = 64 * 1024

_BEGIN: Final = 0  # the document, with a container or not at all
_NAME: Final = 1  # a name, or the end of an object
_COLON: Final = 2
_VALUE: Final = 3
_AFTER: Final = 4  # a comma, or the end of the container
_IN_SCALAR: Final = 5
_SKIPPING: Final = 6  # a container that is not on the way
_SKIPPING_STRING: Final = 7  # in such a container; this and the next are texts
_IN_NAME: Final = 8
_IN_STRING: Final = 9

_is_scalar = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false").fullmatch
_has_control = re.compile(rb"[\x00-\x1f]").search
_is_index = re.compile(rb"0|[1-9][0-9]{0,5}").fullmatch


@mypyc_attr(free_list_len=1, acyclic=True)
class JsonValue:
    """See the module. pointer: its names, decoded, one at least. is_exact: it is the exact search.

    is_done: the search is over. value: a text as UTF-8, a number or a flag as it is written; b"" if there is none:
    no such value, null, a container, no JSON, or more than LIMIT bytes on.
    """

    __slots__ = (
        "_arrays",
        "_depth",
        "_escaped",
        "_found_value",
        "_held",
        "_index",
        "_is_array",
        "_is_exact",
        "_is_wanted",
        "_level",
        "_n_fed",
        "_pointer",
        "_state",
        "_wanted_index",
        "is_done",
        "value",
    )

    def __init__(self, pointer: tuple[bytes, ...], *, is_exact: bool = False) -> None:
        self._pointer = pointer
        self._is_exact = is_exact
        self._found_value = b""  # of an exact search, which is not at its end
        self._arrays = 0  # which of the containers on the way are arrays: a bit for each level
        self._level = 0  # how many names led to the container that is being read
        self._state = _BEGIN
        self._is_array = False
        self._is_wanted = False  # is what is being read on the way?
        self._index = 0  # of the element, in an array
        self._wanted_index = -1
        self._depth: i64 = 0  # of what is passed over
        self._escaped = False  # does a piece end behind a backslash that belongs to what comes?
        self._held: bytearray | None = None
        self._n_fed: i64 = 0
        self.is_done = False
        self.value = b""

    def feed(self, data: bytes, *, is_last: bool) -> bool:
        """More of the document. True if the search is over."""
        if self.is_done:
            return True
        size: i64 = len(data)
        if self._n_fed + size >= LIMIT:
            size = LIMIT - self._n_fed
            data = data[:size]
            is_last = True
        self._n_fed += size
        self._read(data, size)
        if is_last:
            self._end()
        return self.is_done

    def _end(self) -> None:
        """There is no more, or no more is looked at: then what an exact search has found is what there is."""
        if not self.is_done:
            self.is_done = True
            if self._n_fed == LIMIT:
                self.value = self._found_value

    def _read(self, data: bytes, size: i64) -> None:
        at: i64 = 0
        while at < size and not self.is_done:
            state = self._state
            if state >= _SKIPPING_STRING:
                at = self._string(data, at, size)
            elif state == _SKIPPING:
                at = self._skip(data, at, size)
            elif state == _IN_SCALAR:
                at = self._scalar(data, at, size)
            else:
                octet: i64 = data[at]
                if octet <= 0x20:  # more than white space, but none of it begins anything
                    at += 1
                    if self._is_exact and octet != 0x20 and octet != 0x0A and octet != 0x0D and octet != 0x09:
                        self.is_done = True
                else:
                    at = self._token(octet, at)

    def _token(self, octet: i64, at: i64) -> i64:
        """The next octet that is no white space, outside of texts and numbers. Returns where to go on."""
        state = self._state
        if state == _VALUE:
            if self._is_array:
                if octet == 0x5D and self._index == 0:
                    self.is_done = True  # an empty one
                    return at
                self._is_wanted = self._index == self._wanted_index
            return self._begin_value(octet, at)
        if state == _AFTER:
            if octet != 0x2C:
                self._leave(octet)
            elif self._is_array:
                self._index += 1
                self._state = _VALUE
            else:
                self._state = _NAME
        elif state == _NAME:
            if octet != 0x22:
                self.is_done = True
            self._state = _IN_NAME
        elif state == _COLON:
            if octet != 0x3A:
                self.is_done = True
            self._state = _VALUE
        elif octet == 0x7B or octet == 0x5B:
            self._enter(octet)
        else:
            self.is_done = True
        return at + 1

    def _begin_value(self, octet: i64, at: i64) -> i64:
        if octet == 0x22:
            self._state = _IN_STRING
        elif octet == 0x7B or octet == 0x5B:
            if not self._is_wanted:
                self._state = _SKIPPING
                self._depth = 1
            elif self._level + 1 == len(self._pointer):
                self.is_done = True  # a container is no key
            else:
                self._level += 1
                self._enter(octet)
        elif self._is_exact and (octet == 0x2C or octet == 0x5D or octet == 0x7D or octet == 0x3A):
            self.is_done = True  # nothing stands where a value should
        else:
            self._state = _IN_SCALAR
            return at
        return at + 1

    def _leave(self, octet: i64) -> None:
        """The end of the container, without what was looked for, or behind it; or no JSON."""
        end: i64 = 0x5D if self._is_array else 0x7D
        if not self._found_value or octet != end:
            self.is_done = True
        elif self._level == 0:
            self.value = self._found_value
            self.is_done = True
        else:
            self._level -= 1
            self._is_array = (self._arrays >> self._level) & 1 == 1
            self._wanted_index = -1  # it is behind us

    def _enter(self, octet: i64) -> None:
        """Into a container that is on the way."""
        self._is_array = octet == 0x5B
        if self._is_array:
            self._arrays |= 1 << self._level
        self._index = 0
        if not self._is_array:
            self._state = _NAME
            return
        self._state = _VALUE
        name = self._pointer[self._level]
        if _is_index(name) is None:
            self.is_done = True
        else:
            self._wanted_index = int(name)

    # --- texts --------------------------------------------------------------------------------------------------------

    def _string(self, data: bytes, at: i64, size: i64) -> i64:
        """On to the end of a text. Returns where to go on."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            quote: i64 = data.find(b'"', at)
            end = size if quote < 0 else quote
            # Is what stands at the end escaped? So it is behind an odd number of backslashes.
            before = end
            while before > at and data[before - 1] == 0x5C:
                before -= 1
            is_escaped = ((end - before) & 1) == 1
            if quote < 0:
                self._escaped = is_escaped
                self._hold(data, start, size)
                return size
            if not is_escaped:
                break
            at = quote + 1
        if self._state == _SKIPPING_STRING:
            self._state = _SKIPPING
        elif self._state == _IN_NAME:
            self._named(self._taken(data, start, quote))
        elif self._is_wanted:
            self._found(self._taken(data, start, quote))
        else:
            self._state = _AFTER
        return quote + 1

    def _named(self, raw: bytes) -> None:
        name = self._pointer[self._level]
        self._is_wanted = raw == name or (
            len(name) < len(raw) <= 6 * len(name) and raw.find(b"\\") >= 0 and unescaped(raw) == name
        )
        self._state = _COLON
        if self._found_value and self._is_wanted:
            self.is_done = True  # the name comes twice: whoever reads this may take the one or the other

    def _found(self, raw: bytes) -> None:
        if self._level + 1 == len(self._pointer):
            if self._is_exact:
                self._keep(exact_text(raw))
                return
            found = unescaped(raw) if b"\\" in raw else raw
            self.value = found if found is not None else b""
        self.is_done = True

    def _keep(self, value: bytes) -> None:
        """The value of an exact search, which goes on; b"" if it is none."""
        self._found_value = value
        if value:
            self._is_wanted = False
            self._state = _AFTER
        else:
            self.is_done = True

    def _hold(self, data: bytes, start: i64, end: i64) -> None:
        """A piece of what is to be known whole."""
        if start < end and (self._state == _IN_NAME or (self._is_wanted and self._state != _SKIPPING_STRING)):
            if self._held is None:
                self._held = bytearray()
            self._held += data[start:end]

    def _taken(self, data: bytes, start: i64, end: i64) -> bytes:
        """All of it."""
        held, self._held = self._held, None
        return data[start:end] if held is None else bytes(held) + data[start:end]

    # --- what else there is -------------------------------------------------------------------------------------------

    def _scalar(self, data: bytes, at: i64, size: i64) -> i64:
        """On to the end of a number or a word."""
        end = at
        while end < size:
            octet: i64 = data[end]
            if octet <= 0x20 or octet == 0x2C or octet == 0x5D or octet == 0x7D:
                break
            end += 1
        if end == size:
            self._hold(data, at, size)
            return size
        if self._is_wanted:
            raw = self._taken(data, at, end)
            is_value = self._level + 1 == len(self._pointer) and _is_scalar(raw) is not None
            if self._is_exact:
                self._keep(raw if is_value else b"")
                return end
            if is_value:
                self.value = raw
            self.is_done = True
        else:
            self._state = _AFTER
        return end

    def _skip(self, data: bytes, at: i64, size: i64) -> i64:
        """On to the end of a container."""
        depth = self._depth
        while at < size:
            octet: i64 = data[at]
            at += 1
            if octet < 0x5B and octet != 0x22:
                continue  # of a number, mostly
            if octet == 0x22:
                quote: i64 = data.find(b'"', at)
                if quote > at and data[quote - 1] == 0x5C:
                    quote = -1  # escaped, or perhaps not
                if quote >= 0:
                    at = quote + 1
                    continue
                self._depth = depth
                self._state = _SKIPPING_STRING
                return at
            if octet == 0x7B or octet == 0x5B:
                depth += 1
            elif octet == 0x7D or octet == 0x5D:
                depth -= 1
                if depth == 0:
                    self._state = _AFTER
                    return at
        self._depth = depth
        return size


def unescaped(raw: bytes) -> bytes | None:
    """What a text between its quotes means, as UTF-8; None if that is nothing. Lone surrogates stay what they are."""
    try:
        text: str = json.loads(f'"{raw.decode("utf-8")}"', strict=False)
    except ValueError:
        return None
    return text.encode("utf-8", "surrogatepass")


def exact_text(raw: bytes) -> bytes:
    """The same, by the letter of RFC 8259: b"" besides for a text that holds a control character or is not UTF-8."""
    if _has_control(raw) is not None:
        return b""
    if b"\\" in raw:
        return unescaped(raw) or b""
    try:
        raw.decode("utf-8")
    except ValueError:
        return b""
    return raw
