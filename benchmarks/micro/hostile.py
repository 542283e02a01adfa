"""What heads cost that somebody made to be dear: per byte, against a head as clients send it.

    python -m benchmarks.micro.hostile

Read, routed, rewritten and rendered for the log, all without sockets, and every head new. The status is 1 if a byte of
any of them costs more than MOST times a byte of a real one: then a flood of them is worth an attacker's while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable

from benchmarks.micro.hot_path import build
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.process.tuning import tune_gc
from lbproxy.protocol.http1 import HeadError

MOST = 1.5
COUNT = 200
ROUNDS = 7
START = "POST /v1/models/iris/predict?request={} HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n"
KNOWN = (
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Authorization",
    "X-Forwarded-For",
    "User-Agent",
    "Expect",
)


def text(rng: random.Random, size: int) -> str:
    return rng.randbytes(size // 2 + 1).hex()[:size]


def head(rng: random.Random, fields: list[str]) -> bytes:
    return (START.format(text(rng, 8)) + "".join(field + "\r\n" for field in fields) + "\r\n").encode()


def real(rng: random.Random) -> bytes:
    """Twelve fields, of which half never repeat."""
    return head(
        rng,
        [
            "User-Agent: python-requests/2.32.3",
            "Accept: application/json",
            "Accept-Encoding: gzip, deflate, br",
            "Accept-Language: en-US,en;q=0.9",
            "Connection: keep-alive",
            f"Authorization: Bearer {text(rng, 48)}",
            "Content-Type: application/json",
            f"Cookie: session={text(rng, 16)}; theme=dark",
            f"traceparent: 00-{text(rng, 32)}-{text(rng, 16)}-01",
            f"X-Request-ID: {text(rng, 20)}",
            f"Content-Length: {rng.randrange(40, 300)}",
        ],
    )


def new_names(rng: random.Random) -> bytes:
    return head(rng, [f"{text(rng, 12)}: {text(rng, 30)}" for _ in range(11)])


def hundred_fields(rng: random.Random) -> bytes:
    return head(rng, [f"X-Field-{number}: {text(rng, 30)}" for number in range(99)])


def hundred_new_names(rng: random.Random) -> bytes:
    return head(rng, [f"{text(rng, 12)}: {text(rng, 30)}" for _ in range(99)])


def long_values(rng: random.Random) -> bytes:
    return head(rng, [f"X-Field-{number}: {text(rng, 1000)}" for number in range(31)])


def long_names(rng: random.Random) -> bytes:
    return head(rng, [f"{text(rng, 250)}: {text(rng, 30)}" for _ in range(99)])


def near_misses(rng: random.Random) -> bytes:
    return head(rng, [f"{rng.choice(KNOWN)}{text(rng, 3)}: {text(rng, 30)}" for _ in range(30)])


def padded(rng: random.Random) -> bytes:
    return head(rng, [f"X-Field-{number}: \t {text(rng, 30)} \t " for number in range(50)])


def refused_at_the_end(rng: random.Random) -> bytes:
    return head(rng, [*(f"{text(rng, 12)}: {text(rng, 30)}" for _ in range(90)), "bad name: x"])


HOSTILE: dict[str, Callable[[random.Random], bytes]] = {
    "11 fields with new names": new_names,
    "100 fields": hundred_fields,
    "100 fields with new names": hundred_new_names,
    "32 KiB of long values": long_values,
    "25 KiB of long new names": long_names,
    "near misses of known names": near_misses,
    "white space around values": padded,
    "refused at the last of 90 new": refused_at_the_end,
}


def ns_a_byte(connection: Http1Connection, heads: list[bytes]) -> float:
    listener = connection.facts.listener
    started = time.process_time_ns()
    for raw in heads:
        with contextlib.suppress(HeadError):
            prepare(listener, raw, is_trusted=False, log_format=listener.log_format, local_host="a")
    return (time.process_time_ns() - started) / sum(map(len, heads))


def measure(count: int, rounds: int) -> tuple[float, dict[str, float]]:
    """Nanoseconds a byte of a real head, and of each hostile kind; the best of some rounds that take turns."""
    connection, _, writer = build(asyncio.new_event_loop())
    tune_gc()
    rng = random.Random(1)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, make in {"real": real, **HOSTILE}.items():
            heads = [make(rng) for _ in range(count)]
            found.setdefault(name, []).append(ns_a_byte(connection, heads))
    writer.close(1.0)
    best = {name: min(values) for name, values in found.items()}
    return best.pop("real"), best


def main() -> int:
    usual, others = measure(COUNT, ROUNDS)
    print(f"{'a real head':32s} {usual:6.1f} ns a byte")
    for name, cost in others.items():
        print(f"{name:32s} {cost:6.1f} ns a byte, {cost / usual:.2f} x")
    return 1 if max(others.values()) > MOST * usual else 0


if __name__ == "__main__":
    sys.exit(main())
