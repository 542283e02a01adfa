"""Request fields that say how long the sender waits: `X-Request-Timeout: 2.5`, `800ms`, `2s`; `grpc-timeout: 100m`.

gRPC's own field (gRPC over HTTP2, "Timeout") is 1 to 8 digits and a unit: H, M, S, m (milliseconds), u, n. Other fields
may have that too, or seconds with a fraction, alone or with `s` or `ms`. So `m` is milliseconds everywhere: nobody
waits for minutes by such a field, and a hundred minutes for a hundred milliseconds would be a bad guess.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy.compiling import i64

GRPC_TIMEOUT: Final = b"grpc-timeout"

_UNITS: Final = {b"": 1.0, b"s": 1.0, b"ms": 1e-3}
UNREADABLE: Final = -1.0
_GRPC_DIGITS: Final = 8
_plain = re.compile(rb"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|)").fullmatch
_GRPC_MAX: Final = 99_999_999
_ZERO: Final = 0x30
_NINE: Final = 0x39
_HOURS: Final = 72
_MINUTES: Final = 77
_SECONDS: Final = 83
_MILLISECONDS: Final = 109
_MICROSECONDS: Final = 117
_NANOSECONDS: Final = 110


def parse_timeout(name: bytes, value: bytes) -> tuple[float, bytes] | None:
    """(seconds, unit as written) of the field `name` (lower case), or None if it is no such time."""
    seconds = grpc_timeout_s(value, 0, len(value))
    if seconds >= 0.0:
        return seconds, value[-1:]
    match = _plain(value) if name != GRPC_TIMEOUT else None
    return (float(match[1]) * _UNITS[match[2]], match[2]) if match is not None else None


def grpc_timeout_s(octets: bytes, start: i64, end: i64) -> float:
    """What stands there, of which neither end is negative, if it is a time as gRPC writes it; else UNREADABLE."""
    last: i64 = end - 1
    if last <= start or last > start + _GRPC_DIGITS or end > len(octets):
        return UNREADABLE
    number: i64 = 0
    at = start
    while at < last:
        digit: i64 = octets[at]
        if digit < _ZERO or digit > _NINE:
            return UNREADABLE
        number = number * 10 + digit - _ZERO
        at += 1
    unit: i64 = octets[last]
    count = float(number)
    if unit == _MILLISECONDS:
        return count * 1e-3
    if unit == _SECONDS:
        return count
    if unit == _MICROSECONDS:
        return count * 1e-6
    if unit == _NANOSECONDS:
        return count * 1e-9
    if unit == _MINUTES:
        return count * 60.0
    return count * 3600.0 if unit == _HOURS else UNREADABLE


def write_timeout(seconds: float, unit: bytes) -> bytes:
    """The same kind of value for another time, which is never 0: that would say that nobody waits any more.

    gRPC's units become milliseconds, which every reader of that syntax knows.
    """
    ms = max(1, int(seconds * 1000.0))
    if unit in (b"", b"s"):
        return b"%d.%03d%b" % (ms // 1000, ms % 1000, unit)
    if unit == b"ms":
        return b"%dms" % ms
    return b"%dm" % ms if ms <= _GRPC_MAX else b"%dS" % min(ms // 1000, _GRPC_MAX)
