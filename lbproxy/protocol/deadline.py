"""Request fields that say how long the sender waits: `X-Request-Timeout: 2.5`, `800ms`, `2s`; `grpc-timeout: 100m`.

gRPC's own field (gRPC over HTTP2, "Timeout") is 1 to 8 digits and a unit: H, M, S, m (milliseconds), u, n. Other fields
may have that too, or seconds with a fraction, alone or with `s` or `ms`. So `m` is milliseconds everywhere: nobody
waits for minutes by such a field, and a hundred minutes for a hundred milliseconds would be a bad guess.
"""

from __future__ import annotations

import re
from typing import Final

GRPC_TIMEOUT: Final = b"grpc-timeout"

_UNITS: Final = {
    b"": 1.0,
    b"s": 1.0,
    b"ms": 1e-3,
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_GRPC_DIGITS: Final = 8
_GRPC_UNITS: Final = {unit: _UNITS[unit] for unit in (b"H", b"M", b"S", b"m", b"u", b"n")}
_plain = re.compile(rb"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|)").fullmatch
_grpc = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_GRPC_MAX: Final = 99_999_999


def parse_timeout(name: bytes, value: bytes) -> tuple[float, bytes] | None:
    """(seconds, unit as written) of the field `name` (lower case), or None if it is no such time."""
    if 2 <= len(value) <= _GRPC_DIGITS + 1:
        per_unit = _GRPC_UNITS.get(value[-1:])
        if per_unit is not None:
            number = 0
            for octet in value[:-1]:  # compiled, a fifth of what the expression costs
                if not 0x30 <= octet <= 0x39:
                    number = -1
                    break
                number = number * 10 + octet - 0x30
            if number >= 0:
                return number * per_unit, value[-1:]
    match = _grpc(value) or (_plain(value) if name != GRPC_TIMEOUT else None)
    return (float(match[1]) * _UNITS[match[2]], match[2]) if match is not None else None


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
