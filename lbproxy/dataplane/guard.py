"""Who may ask, and how much, as far as the head of a request says it: API keys, and which rate limits hold for it.

All here is a pure function of a head, the config and the file of keys, so what comes of it may be remembered with the
head; when the file changes, heads are forgotten (Listener.renew). What a limit says at a moment is in
exchange/admission.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote_to_bytes

from lbproxy import errors
from lbproxy.api_keys import KeyRing
from lbproxy.compiling import i64, mypyc_attr
from lbproxy.domain.buckets import Buckets
from lbproxy.domain.keys import key_of
from lbproxy.domain.paths import BadPath
from lbproxy.domain.routing import Router
from lbproxy.domain.strategies.hashing import client_key
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import RequestHead
from lbproxy.request_key import RequestKey
from lbproxy.telemetry.slots import Row

NO_KEY: Final = 0
GOOD_KEY: Final = 1
BAD_KEY: Final = 2
_HIDDEN: Final = r"\1***"
_BEARER: Final = b"bearer "


class KeyRules:
    """How keys are found, and whose they are. header: its name; query: that of the parameter, "" for none.

    ring: replaced when the file of keys changes.
    """

    __slots__ = ("_is_bearer", "_lines", "_parameters", "challenge", "header", "query", "ring")

    def __init__(self, ring: KeyRing, header: str, query: str) -> None:
        self.ring = ring
        self.header = header
        self.query = query
        self._is_bearer = header.lower() == "authorization"
        self._lines = re.compile(rb"^%b:[ \t]*([^\r\n]*)" % re.escape(header.encode()), re.IGNORECASE | re.MULTILINE)
        self._parameters = re.compile(rf"([?&]{re.escape(query)}=)([^&#]*)")
        scheme = "Bearer" if self._is_bearer else "ApiKey"
        self.challenge = f'{scheme} realm="lbproxy"'.encode()  # RFC 9110 section 11.6.1

    def identify(self, head: RequestHead) -> int:
        """Find out whose request it is (`head.key_name`): NO_KEY, GOOD_KEY or BAD_KEY.

        A request with several keys is nobody's: servers behind might look at another one than lbproxy.
        """
        keys: list[bytes] = self._lines.findall(head.lines)
        if self._is_bearer:
            keys = [key[len(_BEARER) :] for key in keys if key[: len(_BEARER)].lower() == _BEARER]
        if self.query:
            keys = keys + [unquote_to_bytes(found[1]) for found in self._parameters.findall(head.target_text)]
        if not keys:
            return NO_KEY
        head.key_name = self.ring.name_of(keys[0].strip(b" \t")) if len(keys) == 1 else ""
        return GOOD_KEY if head.key_name else BAD_KEY

    def hidden(self, target: str) -> str:
        """A target as it may be logged: without keys."""
        return self._parameters.sub(_HIDDEN, target) if self.query else target


class KeyRule:
    """What a route asks for. is_needed: a good key. names: of which it must be, None for any."""

    __slots__ = ("is_needed", "names")

    def __init__(self, *, is_needed: bool, names: frozenset[str] | None = None) -> None:
        self.is_needed = is_needed
        self.names = names

    def refusal(self, found: int, name: str) -> Fault | None:
        """Why a request is not let in; None if it is. found: see `KeyRules.identify`."""
        if found == BAD_KEY:
            return errors.KEY_UNKNOWN
        if found == NO_KEY:
            return errors.KEY_MISSING if self.is_needed else None
        return errors.KEY_REFUSED if self.names is not None and name not in self.names else None


@mypyc_attr(allow_interpreted_subclasses=True)
class Fleet:
    """Buckets that several lbproxies have in common."""

    __slots__ = ()

    def take(self, limit: Limit, key: bytes, told: Callable[[int], None]) -> int:
        """Take a token of a key. 0: there was one; more: after how many nanoseconds there is one; less: that is not
        known yet, and `told` hears it later, once, as 0 or more."""
        raise NotImplementedError


class Limit:
    """A rate limit. name: in metrics and answers. key: what has a bucket of its own, None: all requests are one.

    match: which requests it counts, None: all. interval: nanoseconds between two tokens; burst: most tokens. fault:
    what a request that is too many ends with. row: its counters (telemetry/slots.py). fleet: None where the buckets are
    those of this lbproxy alone.
    """

    __slots__ = (
        "_prefix",
        "buckets",
        "burst",
        "depth",
        "fault",
        "fleet",
        "interval",
        "is_by_client",
        "key",
        "match",
        "name",
        "row",
    )

    def __init__(
        self,
        name: str,
        key: RequestKey | None,
        match: Router | None,
        interval: int,
        burst: int,
        buckets: Buckets,
        fault: Fault,
        row: Row,
        fleet: Fleet | None = None,
    ) -> None:
        self.name = name
        self.key = key
        self.match = match
        self.interval: i64 = interval
        self.burst = burst
        self.depth: i64 = interval * burst
        self.buckets = buckets
        self.fault = fault
        self.row = row
        self.fleet = fleet
        self.is_by_client: bool = key is not None and key.kind == "client_ip"
        self._prefix = name.encode() + b"\0"

    @property
    def window_s(self) -> float:
        """How long an empty bucket takes to be full."""
        return int(self.depth) / 1e9

    def mark_of(self, key: bytes) -> int:
        """What stands for this limit and that key in a table: not 0, and not to be guessed by strangers, since Python's
        hashes have a secret, which processes that were forked share."""
        return hash(self._prefix + key) or 1

    def shared_name(self, key: bytes) -> bytes:
        """What stands for both where all lbproxies must agree on it."""
        return b"lbproxy:" + blake2b(self._prefix + key, digest_size=16).hexdigest().encode()

    def holds_for(self, head: RequestHead, headers: Mapping[str, str]) -> bool:
        """Does it count this request? A path that servers may read in several ways counts, whichever is meant."""
        if self.match is None:
            return True
        try:
            return self.match.choose(head.method, head.host, head.path, head.query, headers).index is not None
        except BadPath:
            return True


class Check:
    """One limit that holds for a request. key: of its bucket, b"" if that is the client's address; mark: likewise."""

    __slots__ = ("key", "limit", "mark")

    def __init__(self, limit: Limit, key: bytes) -> None:
        self.limit = limit
        self.key = key
        self.mark: i64 = 0 if limit.is_by_client else limit.mark_of(key)


class Guard:
    """What a listener asks of requests. keys: None where there are none."""

    __slots__ = ("keys", "limits")

    def __init__(self, keys: KeyRules | None, limits: Sequence[Limit]) -> None:
        self.keys = keys
        self.limits = tuple(limits)

    def checks(self, head: RequestHead, headers: Mapping[str, str]) -> tuple[Check, ...] | None:
        """The limits that hold for a request, None if none does. Those of the fleet come last."""
        found: list[Check] = []
        for limit in self.limits:
            if not limit.holds_for(head, headers):
                continue
            key = limit.key
            if key is None:
                found.append(Check(limit, b"*"))
            elif limit.is_by_client:
                found.append(Check(limit, b""))
            else:
                value = key_of(key, head)
                if value:
                    found.append(Check(limit, value))
        if not found:
            return None
        return tuple([check for check in found if check.limit.fleet is None] + [c for c in found if c.limit.fleet])


def client_bytes(client: str) -> bytes:
    """What counts as one client."""
    return client_key(client)
