"""What an answer or a failure says about the server that gave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from lbproxy import errors
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.domain.lease import Outcome
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.hashing import client_key
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.http_date import parse_http_date

MAX_RETRY_AFTER_S: Final = 300.0

_PLURALS: Final = {
    errors.CONNECT_REFUSED: "refused connections",
    errors.CONNECT_TIMEOUT: "connect time-outs",
    errors.CONNECT_UNREACHABLE: "connect failures",
    errors.CONNECT_ERROR: "connect failures",
    errors.RESET: "resets",
    errors.CLOSED_EARLY: "connections closed without an answer",
    errors.CLOSED_UNSENT: "connections closed without an answer",
    errors.STREAM_RESET: "reset streams",
    errors.H2_PROTOCOL: "broken HTTP/2 connections",
    errors.PING_TIMEOUT: "unanswered PINGs",
    errors.RESPONSE_TIMEOUT: "response time-outs",
    errors.IDLE_TIMEOUT: "stalled answers",
    errors.UPSTREAM_WRITE_TIMEOUT: "stalled requests",
}
TLS_FAULTS: Final = frozenset((errors.TLS_HANDSHAKE, errors.TLS_VERIFY, errors.TLS_TIMEOUT))
# Dials that failed at the server's end; being out of local descriptors or ports says nothing about it.
DIAL_FAULTS: Final = TLS_FAULTS | frozenset(
    (errors.CONNECT_REFUSED, errors.CONNECT_UNREACHABLE, errors.CONNECT_TIMEOUT, errors.CONNECT_ERROR)
)
# Faults after which the server may still be at work on the request: its slot is used last for a while.
STILL_WORKING: Final = frozenset((errors.RESPONSE_TIMEOUT, errors.IDLE_TIMEOUT, errors.TOTAL_TIMEOUT))


# Answers that cannot be used. What a request holds may have made them so.
BAD_ANSWERS: Final = frozenset(
    (
        errors.TRUNCATED_HEAD,
        errors.BAD_RESPONSE,
        errors.BAD_UPGRADE,
        errors.RESPONSE_HEADER_TOO_LARGE,
        errors.TOO_MANY_INTERIM,
        errors.TRUNCATED_BODY,
        errors.RESPONSE_BAD_CHUNK,
    )
)


def request_key(client: str, target: bytes) -> int:
    """A number for a sort of requests: those of one client (IPv6: one /64) for one path, whatever their query."""
    return crc32(target.partition(b"?")[0], crc32(client_key(client)))


def is_worth_a_retry(fault: Fault, runtime: ServerRuntime, tried: Sequence[Server]) -> bool:
    """False if only this server is left: a certificate that was not accepted will not be the second time either."""
    if fault not in TLS_FAULTS:
        return True
    return runtime.pool.pool.has_other(runtime.server, tried)


def plural_of(fault: Fault) -> str:
    """The fault as people read it in `why`: "3 response time-outs in a row"."""
    return _PLURALS.get(fault, "bad answers")


def retry_after_s(head: ResponseHead, wall: float) -> float | None:
    """Retry-After (RFC 9110 section 10.2.3) in seconds, at most 300; None without one. wall: Unix time now.

    0.0 is one that names no time to come: 0, a date that has passed, or something that cannot be read. The server asks
    for patience with those as well, and does not say how much.
    """
    for name, value in head.fields:
        if name.lower() == b"retry-after":
            if value.isdigit():
                return min(float(value), MAX_RETRY_AFTER_S)
            date = parse_http_date(value, wall)
            return 0.0 if date is None else min(max(0.0, date - wall), MAX_RETRY_AFTER_S)
    return None


def has_retry_after(head: ResponseHead) -> bool:
    """Is there one, whatever it says?"""
    return retry_after_s(head, 0.0) is not None


def outcome_of(head: ResponseHead, failures: frozenset[int], wall: float) -> tuple[Outcome, float, str]:
    """(outcome, penalty in seconds or 0 for the usual one, plural noun) of an answer's status. wall: Unix time now.

    429, and 503 with Retry-After, are push-back: less load, no blame. `failures` are the breaker's statuses.
    """
    status = head.status
    if status in (429, 503):
        seconds = retry_after_s(head, wall)
        if status == 429 or seconds is not None:
            return Outcome.PUSH_BACK, seconds or 0.0, "refusals"
    if status in failures:
        return Outcome.FAILURE, 0.0, f"answers {status}"
    if status >= 500:
        return Outcome.ERROR, 0.0, ""
    return Outcome.SUCCESS, 0.0, ""


def outcome_of_call(status: int, push_back_s: float, failures: frozenset[int]) -> tuple[Outcome, float, str]:
    """The same of a call of gRPC. status: the one of HTTP that would have said it (`grpc.as_http`)."""
    if status == 429:
        return Outcome.PUSH_BACK, max(0.0, push_back_s), "refusals"
    if status in failures:
        return Outcome.FAILURE, 0.0, "calls that failed"
    return Outcome.ERROR, 0.0, ""
