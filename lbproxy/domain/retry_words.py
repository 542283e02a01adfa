"""After what a request would be sent again, in words. Whether it would is asked of the rules (domain/retry.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lbproxy.domain.retry import RetryPolicy, may_retry, may_retry_status
from lbproxy.errors import FAULTS, Fault, Retry, Side


@dataclass(frozen=True, slots=True)
class Cause:
    """One end of a first attempt. word: of the fault table, or a status. why: it is not retried, or what it says."""

    word: str
    is_retried: bool
    why: str


_OF_HTTP2: Final = frozenset(
    ("refused_stream", "goaway_unprocessed", "stream_reset", "stream_cancelled", "h2_protocol", "ping_timeout")
)


def causes(
    policy: RetryPolicy,
    *,
    method: str,
    is_idempotent: bool,
    has_tls: bool,
    has_other: bool,
    has_http2: bool = False,
    may_lack_http2: bool = False,
) -> list[Cause]:
    """How a first attempt may fail without an answer, and whether there would be a second, body and budget aside.

    is_idempotent: may it be executed twice? has_tls: is the server asked over TLS? has_other: is another one usable?
    has_http2: may it be asked in HTTP/2? may_lack_http2: for a call of gRPC, may it choose something else?
    """
    found: list[Cause] = []
    for fault in FAULTS.values():
        if fault.side is not Side.UPSTREAM or fault.retry is Retry.NEVER or fault.word == "retryable_status":
            continue
        is_tls = fault.word.startswith("tls")
        if (is_tls and not has_tls) or (fault.word in _OF_HTTP2 and not has_http2):
            continue
        if fault.word == "no_grpc" and not may_lack_http2:
            continue
        is_retried = may_retry(policy, fault, is_idempotent=is_idempotent, retries_done=0, is_replayable=True)
        if is_retried and is_tls and not has_other:
            found.append(Cause(fault.word, False, "no other server is usable"))
        else:
            why = fault.hint if is_retried else _why_not(policy, fault, method, is_idempotent=is_idempotent)
            found.append(Cause(fault.word, is_retried, why))
    for status in sorted(policy.status):
        is_retried = may_retry_status(
            policy,
            status,
            has_retry_after=False,
            is_idempotent=is_idempotent,
            retries_done=0,
            is_replayable=True,
        )
        why = "retry.status" if is_retried else _why_not(policy, None, method, is_idempotent=is_idempotent)
        if not is_retried and status == 503 and policy.trust_retry_after and policy.attempts:
            why += ", unless it has Retry-After"
        found.append(Cause(str(status), is_retried, why))
    return found


def _why_not(policy: RetryPolicy, fault: Fault | None, method: str, *, is_idempotent: bool) -> str:
    if not policy.attempts:
        return "retry is off"
    if fault is not None and fault.retry is Retry.ALWAYS:
        return "retry.on has no connect"
    if not is_idempotent:
        return f"{method} may have been executed (retry.idempotent)"
    return f"retry.on has no {'timeout' if fault is not None and fault.word == 'response_timeout' else 'reset'}"
