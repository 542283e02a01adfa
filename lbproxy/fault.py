"""What a row of the fault table says, and the table itself, which is empty until `lbproxy.errors` fills it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Side(enum.Enum):
    """Whose doing a fault is."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    SELF = "self"


class Retry(enum.Enum):
    """When a request that met this fault may be sent again."""

    NEVER = "never"
    ALWAYS = "always"  # no byte of it reached a server's application: any method
    IDEMPOTENT = "idempotent"  # it may have been executed: idempotent methods, or where the config says so


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """One row of the fault table.

    word: the access log's `end`, unique. status: what lbproxy answers if nothing was sent yet; 499 is logged only.
    reason: the metric's label value. metric: the counter without prefix, or "" where another family counts it.
    blames: counts against the server (health, breaker). close: the client connection ends after the answer.
    error: RFC 9209 section 2.3 proxy error type. hint: one sentence that tells the reader what to do.
    """

    word: str
    status: int
    side: Side
    retry: Retry
    blames: bool
    metric: str
    reason: str
    close: bool
    error: str
    hint: str


FAULTS: Final[dict[str, Fault]] = {}  # by word


def row(
    word: str,
    status: int,
    error: str,
    hint: str,
    *,
    side: Side,
    metric: str,
    retry: Retry = Retry.NEVER,
    blames: bool = False,
    reason: str = "",
    close: bool = False,
) -> Fault:
    """Make a row, and enter it. Raises ValueError for a word that is there already."""
    fault = Fault(word, status, side, retry, blames, metric, reason or word, close, error, hint)
    if word in FAULTS:
        raise ValueError(f"fault {word!r} is defined twice")
    FAULTS[word] = fault
    return fault


def client_row(word: str, status: int, hint: str, *, close: bool = True, error: str = "http_request_error") -> Fault:
    """A fault of the request: the connection ends after the answer, unless it can go on."""
    return row(word, status, error, hint, side=Side.CLIENT, metric="rejected_total", close=close)


def upstream_row(
    word: str,
    status: int,
    error: str,
    hint: str,
    *,
    retry: Retry = Retry.IDEMPOTENT,
    blames: bool = True,
    reason: str = "",
) -> Fault:
    """A fault of a server."""
    return row(
        word,
        status,
        error,
        hint,
        side=Side.UPSTREAM,
        metric="upstream_errors_total",
        retry=retry,
        blames=blames,
        reason=reason,
    )


def reasons(metric: str) -> tuple[str, ...]:
    """The distinct label values of one counter, in table order."""
    return tuple(dict.fromkeys(f.reason for f in FAULTS.values() if f.metric == metric))


def markdown_table() -> str:
    """The table as docs/faults.md shows it."""
    lines = [
        "| word (`end` in the log) | status | retry-safe | counts against the server | metric label | what to do |",
        "|---|---|---|---|---|---|",
    ]
    for fault in FAULTS.values():
        label = f'`{fault.metric}{{reason="{fault.reason}"}}`' if fault.metric else "none"
        if fault.metric == "client_aborts_total":
            label = "`client_aborts_total{phase=...}`"
        elif fault.metric == "internal_errors_total":
            label = "`internal_errors_total`"
        blames = "yes" if fault.blames else "no"
        lines.append(f"| `{fault.word}` | {fault.status} | {fault.retry.value} | {blames} | {label} | {fault.hint} |")
    return "\n".join(lines) + "\n"
