"""The fields of a request, as far as a gateway reads them: which names mean something, and what stood under them."""

from __future__ import annotations

from typing import Final

from lbproxy import errors
from lbproxy.compiling import i64, mypyc_attr
from lbproxy.protocol.connection_auth import is_bound_by, may_bind
from lbproxy.protocol.field_lines import MAX_NAME, NO_OPTIONS, PLAIN, FieldLines, HeadError, Name, Names, Usuals, begins
from lbproxy.protocol.message import (
    CLIENT_CERT,
    FORWARDING,
    FORWARDING_PREFIX,
    HOP_BY_HOP,
    is_forwarding,
)

Values = dict[bytes, list[bytes]]
"""By lower-case name, the values of fields."""
NO_VALUES: Final[list[bytes]] = []  # neither is ever added to
_NOTHING: Final[Values] = {}

_HOST: Final = 1
_LENGTH: Final = 2
_CONNECTION: Final = 3
_CLAIM: Final = 4  # of the forwarding family
_LOOK: Final = 5  # needs a decision of another kind
_AGENT: Final = 6  # this and the next pass
_REFERER: Final = 7
_CREDENTIALS: Final = 8
_UNDERSCORE: Final = 9
_DROP: Final = 10
_TOO_LONG: Final = 11

# Fields that the gateway reads, rewrites or removes.
_KINDS: Final = {
    **dict.fromkeys(FORWARDING, _CLAIM),
    **dict.fromkeys(HOP_BY_HOP | {b"expect", b"max-forwards", b"via"}, _LOOK),
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"user-agent": _AGENT,
    b"referer": _REFERER,
    b"authorization": _CREDENTIALS,
}


class _RequestNames(Names):
    __slots__ = ()

    def judge(self, raw: bytes, start: i64, end: i64, has_underscore: bool) -> Name:
        size = end - start
        if size > MAX_NAME:
            return Name(_TOO_LONG, b"")
        if size >= len(FORWARDING_PREFIX) and begins(raw, start, FORWARDING_PREFIX):
            return Name(_CLAIM, raw[start:end].lower())
        if size >= len(CLIENT_CERT) and begins(raw, start, CLIENT_CERT):
            return Name(_DROP, raw[start:end].lower())
        if has_underscore:
            # Would a WSGI server read this underscored name as a field that only lbproxy may set?
            lower = raw[start:end].lower()
            real = lower.replace(b"_", b"-")
            return Name(_DROP if is_forwarding(real) or real.startswith(CLIENT_CERT) else _UNDERSCORE, lower)
        return PLAIN


_NAMES: Final = _RequestNames(_KINDS)
_HOSTS: Final = Usuals()
_AGENTS: Final = Usuals()


def means_nothing(name: bytes) -> bool:
    """Does a field of this lower-case name, which is a token, always go on as it came, and say nothing to a gateway?"""
    size = len(name)
    found = _NAMES.find(name, 0, size, sum(name)) or _NAMES.judge(name, 0, size, b"_" in name)
    return found.kind == 0


@mypyc_attr(free_list_len=1, acyclic=True)
class RequestFields(FieldLines):
    """What the lines of a head say that needs a decision; `lines` is what goes on.

    claims: lower-case name and value, one after the other, of the forwarding family. others: what is read by name, and
    does not go on. refusal: of a name. binds: the credentials hold for the connection.
    """

    __slots__ = ("binds", "claims", "host", "length", "n_hosts", "n_lengths", "options", "others", "referer", "refusal",
                 "underscore_dropped", "user_agent")  # fmt: skip

    def __init__(self, raw: bytes, at: i64, most: i64) -> None:
        super().__init__(raw, at, _NAMES, errors.BAD_REQUEST, most)
        self.binds = False
        self.claims = NO_VALUES
        self.host = b""
        self.n_hosts: i64 = 0
        self.length: i64 = -1
        self.n_lengths: i64 = 0
        self.options = NO_OPTIONS
        self.others = _NOTHING
        self.referer = ""
        self.refusal: HeadError | None = None
        self.underscore_dropped = 0
        self.user_agent = ""

    def read(self, underscores: str) -> None:
        """All of them. Raises HeadError. underscores: of `parse_request_head`."""
        while True:
            name = self.next()
            if name is None:
                return
            kind = name.kind
            if kind >= _AGENT:
                self._read_kept(name, underscores)
                continue
            self.drop()
            if kind == _HOST:
                self.n_hosts += 1
                self.host = self.usual(_HOSTS).value
            elif kind == _LENGTH:
                self.n_lengths += 1
                self.length = self.number()
            elif kind == _CONNECTION:
                options = self.options_here()
                self.options = options if self.options is NO_OPTIONS else self.options | options
            elif kind == _CLAIM:
                if self.claims is NO_VALUES:
                    self.claims = [name.lower, self.value()]
                else:
                    self.claims.append(name.lower)
                    self.claims.append(self.value())
            else:
                if self.others is _NOTHING:
                    self.others = {}
                self.others.setdefault(name.lower, []).append(self.value())

    def _read_kept(self, name: Name, underscores: str) -> None:
        """A line that usually goes on."""
        kind = name.kind
        if kind <= _CREDENTIALS or (kind == _UNDERSCORE and underscores == "pass"):
            self.keep()
            if kind == _AGENT:
                self.user_agent = self.usual(_AGENTS).text
            elif kind == _REFERER:
                self.referer = self.text()
            elif kind == _CREDENTIALS:
                self.binds = self.binds or ((not self.is_plain or may_bind(self.first())) and is_bound_by(self.value()))
            return
        self.drop()
        if kind == _DROP:
            self.underscore_dropped += b"_" in name.lower
        elif kind == _UNDERSCORE and underscores == "drop":
            self.underscore_dropped += 1
        elif self.refusal is None:
            self.refusal = (
                HeadError(errors.UNDERSCORE_HEADER, f"field name {self.name().decode()[:80]!r}")
                if kind == _UNDERSCORE
                else HeadError(errors.HEADER_TOO_LARGE, f"a field name is longer than {MAX_NAME} bytes")
            )
