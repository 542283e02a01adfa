"""What came of one health check."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    PASS = "pass"
    FAIL = "fail"  # a wrong answer, a reset, an unreachable address
    REFUSED = "refused"  # the kernel says that nobody listens
    TIMEOUT = "timeout"  # no answer in time: failed, or only busy
    NONE = "none"  # our own trouble (no descriptors, no ports): says nothing about the server


@dataclass(frozen=True, slots=True)
class Result:
    """reason is one word for `Server.down_reason`, why a sentence for people."""

    verdict: Verdict
    reason: str = ""
    why: str = ""


def failed(reason: str, why: str) -> Result:
    """The server failed the check."""
    return Result(Verdict.FAIL, reason, why)
