"""Nothing that a client sends makes a metric series, whatever it thinks of."""

from __future__ import annotations

import random
import re
import string

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy, parse_metrics
from tests.support.rig import Rig, get

COUNT = 3_000
BATCH = 50
SEED = 65
MIB = 1 << 20
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH", "PURGE", "REPORT")
ANSWER = re.compile(rb"HTTP/1\.1 \d{3} ")


def word(rng: random.Random, most: int = 12) -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(1, most)))


def odd_request(rng: random.Random) -> bytes:
    """Random in everything that could become a label: method, host, path, query, version, user agent, request id."""
    method = word(rng).upper() if rng.random() < 0.3 else rng.choice(METHODS)
    version = rng.choice(("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/2.0", f"HTTP/{rng.randint(0, 99)}", word(rng)))
    lines = [
        f"{method} /{word(rng)}/{word(rng)}?{word(rng)}={word(rng)} {version}",
        f"Host: {word(rng)}.{word(rng)}:{rng.randint(1, 70_000)}",
        f"User-Agent: {word(rng)}",
        f"X-Request-ID: {word(rng)}",
        f"X-Forwarded-For: {rng.randint(1, 255)}.{rng.randint(0, 255)}.1.1",
        f"{word(rng)}: {word(rng)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def send_all(port: int, requests: list[bytes]) -> int:
    """Send them in batches, on a new connection whenever lbproxy ends one; how many were answered."""
    answered = 0
    waiting = list(requests)
    while waiting:
        batch = waiting[:BATCH]
        with Client(port) as client:
            client.send(b"".join(batch))
            while len(ANSWER.findall(client.stream.record)) < len(batch) and client.stream.fill():
                pass
            count = len(ANSWER.findall(client.stream.record))
        assert count, f"no answer to {batch[0]!r}"
        answered += count
        waiting = waiting[count:]
    return answered


def series(lb: LbProxy) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return set(parse_metrics(lb.exposition()))


@pytest.mark.slow
def test_3_000_random_requests_add_no_series(rig: Rig) -> None:
    rng = random.Random(SEED)
    requests = [odd_request(rng) for _ in range(COUNT)]
    port = rig.lb.port("solo")
    before = series(rig.lb)
    send_all(port, requests[: COUNT // 10])  # memos and buffers fill up once
    rss = rig.lb.rss_bytes()
    send_all(port, requests[COUNT // 10 :])
    assert series(rig.lb) == before
    assert rig.lb.rss_bytes() - rss < 6 * MIB
    assert rig.grown("requests_total", listener="solo") == COUNT
    assert rig.grown("requests_total", listener="solo", method="other") > COUNT // 10
    assert rig.grown("rejected_total", listener="solo") > COUNT // 10
    words = {word for request in requests[:200] for word in re.findall(rb"[A-Za-z0-9]{6,}", request)}
    labels = {value for _, pairs in before for _, value in pairs}
    assert not {word.decode() for word in words} & (labels - set(METHODS))


def test_metrics_that_are_asked_for_by_name_are_read_as_the_parser_reads_them(rig: Rig) -> None:
    """All other scenarios rely on that."""
    with rig.client() as client:
        assert client.ask(get("/x")).status == 200
    text = (
        rig.lb.exposition() + '# TYPE lbproxy_odd gauge\nlbproxy_odd{a="q\\"\\\\ \\n, b=}",b=""} 3.5\nlbproxy_odd 1\n'
    )
    names = ("requests_total", "request_duration_seconds_bucket", "build_info", "server_inflight", "odd", "requests")
    everything = parse_metrics(text)
    wanted = {key: value for key, value in everything.items() if key[0].removeprefix("lbproxy_") in names}
    assert parse_metrics(text, *names) == wanted
    assert {key[0].removeprefix("lbproxy_") for key in wanted} == {*names} - {"requests"}
