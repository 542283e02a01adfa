"""Which requests may be sent again (semantics section 1, rules R1 to R10): pure decisions over facts.

The caller states what is known about a failed attempt; the answer is yes or no. Every yes also needs that no byte of a
final answer went to the client (R9), that the client is still there (R10), and that the body can be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbproxy.errors import Fault, Retry


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The `retry` key of a pool or route. attempts: extra tries. body_bytes: how much of a body is kept for replay.

    unacked: rule R4 is on for servers that are directly connected ("auto"), for all ("on") or for none ("off").
    """

    attempts: int = 2
    on_connect: bool = True
    on_reset: bool = True
    on_timeout: bool = False
    idempotent: bool = False
    body_bytes: int = 1 << 20
    unacked: str = "auto"


def may_retry(
    policy: RetryPolicy, fault: Fault, *, is_idempotent: bool, retries_done: int, is_replayable: bool
) -> bool:
    """May an attempt that ended in `fault` be repeated?

    is_idempotent: by method, or because the config says so. is_replayable: every body byte that was sent is still held.
    """
    if fault.retry is Retry.NEVER or retries_done >= policy.attempts or not is_replayable:
        return False
    if fault.retry is Retry.ALWAYS:
        # R1, R2, R4: provably not executed. `connect` in retry.on switches the dial failures only.
        return policy.on_connect if fault.word.startswith(("connect", "dns", "tls")) else True
    if not is_idempotent:
        return False
    return policy.on_timeout if fault.word == "response_timeout" else policy.on_reset
