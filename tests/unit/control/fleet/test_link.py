"""What is said to Redis, and how its answers are read."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.config.store_url import StoreTls, StoreUrl
from lbproxy.control.fleet.buckets import Known
from lbproxy.control.fleet.link import (
    MOST_LINE,
    SCRIPT,
    Answers,
    Ended,
    Greeting,
    RedisLink,
    command,
    first_commands,
    packed,
    shown_url,
    tls_context,
)
from lbproxy.dataplane.guard import Limit
from lbproxy.domain.buckets import own_buckets
from lbproxy.errors import RATE_LIMITED
from lbproxy.telemetry.slots import LIMIT
from tests.support.certificates import Authority


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://user:pass@h/0?ssl_cert_reqs=none", "rediss://h/0"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("redis://:p%40ss@[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_commands() -> None:
    assert packed([b"GET", b"a b"]) == b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n"
    limit = Limit("l", None, None, 333_333_333, 3, own_buckets(), RATE_LIMITED, [0] * LIMIT.width)
    known = Known(limit, b"k")
    known.wanted = 2
    words = command(b"sha", [known, known]).split(b"\r\n")[2::2]
    assert words == [
        b"EVALSHA",
        b"sha",
        b"2",
        known.name,
        known.name,
        *[b"333333.333", b"999999.999", b"2"] * 2,
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (StoreUrl("h", 1), []),
        (StoreUrl("h", 1, password="p"), [[b"AUTH", b"p"]]),
        (StoreUrl("h", 1, user="u", password="\u00e9", db=3), [[b"AUTH", b"u", b"\xc3\xa9"], [b"SELECT", b"3"]]),
    ],
)
def test_who_asks_and_what_for(url: StoreUrl, said: list[list[bytes]]) -> None:
    assert first_commands(url) == [*map(packed, said), packed([b"SCRIPT", b"LOAD", SCRIPT.encode()])]


SHA = b"0123456789012345678901234567890123456789"


def test_the_greeting_however_it_is_cut() -> None:
    data = b"+OK\r\n+OK\r\n$40\r\n" + SHA + b"\r\n"
    loop = asyncio.new_event_loop()
    for cut in range(len(data)):
        said: asyncio.Future[list[bytes]] = loop.create_future()
        greeting = Greeting(3, said)
        for piece in (data[:cut], data[cut:]):
            assert not said.done()
            greeting.data_received(piece)
        assert said.result() == [b"+OK", b"+OK", SHA]
        greeting.connection_lost(None)
    loop.close()


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b"+OK\r\n-WRONG", b"PASS invalid\r\n"], "it says -WRONGPASS invalid"),
        ([b"-NOAUTH Authentication required.\r\n-NOAUTH\r\n"], "it says -NOAUTH Authentication required."),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "it says HTTP/1.1 400 Bad Request"),
        ([b"x" * (MOST_LINE + 1)], "it says " + "x" * 200),
        ([b"$100000\r\n"], "it says $100000"),
        ([b"$-1\r\n"], "it says $-1"),
        ([b"+OK\r\n"], "it closed the connection"),
    ],
)
def test_a_greeting_that_fails(pieces: list[bytes], why: str) -> None:
    loop = asyncio.new_event_loop()
    said: asyncio.Future[list[bytes]] = loop.create_future()
    greeting = Greeting(2, said)
    for piece in pieces:
        greeting.data_received(piece)
    greeting.connection_lost(None)
    assert str(said.exception()) == why and isinstance(said.exception(), Ended)
    loop.close()


def test_what_tls_believes_and_shows(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("client", "client")
    made = tls_context(StoreTls(authority.ca, files.cert, files.key))
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(made.get_ca_certs()) == 1
    anybody = tls_context(StoreTls(authority.ca, verify="none"))
    assert (anybody.verify_mode, anybody.check_hostname) == (ssl.CERT_NONE, False)
    assert not tls_context(StoreTls(authority.ca, checks_name=False)).check_hostname
    with pytest.raises(OSError):
        tls_context(StoreTls(str(tmp_path / "nobody.pem")))


class Reading:
    """Answers, of which `pieces` are expected as they come."""

    def __init__(self) -> None:
        self.heard: list[list[int]] = []
        self.loop = asyncio.new_event_loop()
        self.answers = Answers(self.heard.append, self.loop.create_future())

    @property
    def why(self) -> str:
        """Why it has ended."""
        return self.answers.ended.result() if self.answers.ended.done() else ""


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.loop.close()


def test_answers_however_they_are_cut(reading: Reading) -> None:
    data = b"*4\r\n:1\r\n:0\r\n:0\r\n:2500000\r\n"
    for cut in range(len(data)):
        reading.answers.n_wanted = 4
        for piece in (data[:cut], data[cut:]):
            if piece:
                reading.answers.data_received(piece)
        assert reading.heard.pop() == [1, 0, 0, 2_500_000] and not reading.heard
        assert not reading.answers.n_wanted
    assert not reading.why


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"-NOSCRIPT No matching script.\r\n", "it says -NOSCRIPT No matching script."),
        (b"x" * (MOST_LINE + 1), "it says " + "x" * 200),
        (b"*2\r\n:1\r\n$-1\r\n:0\r\n", "its answer is not what was asked for"),
        (b"*2\r\n+OK\r\n:1\r\n", "its answer is not what was asked for"),
        (b"*2\r\n:1\r\n:1\r\n*2\r\n:1\r\n:1\r\n", "its answer is not what was asked for"),
    ],
)
def test_what_is_no_answer_ends_it(reading: Reading, said: bytes, why: str) -> None:
    reading.answers.n_wanted = 2
    reading.answers.data_received(said)
    assert reading.why == why and not reading.heard
    reading.answers.connection_lost(OSError("later"))
    assert reading.why == why


def test_the_end_has_a_reason(reading: Reading) -> None:
    reading.answers.connection_lost(None)
    assert reading.why == "it closed the connection"


class Closing(asyncio.WriteTransport):
    """A transport, which may be closed already. written: how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False
        self.written = 0

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed, "uvloop raises here"
        self.written += 1


async def test_a_connection_that_is_closed_is_not_written_to() -> None:
    """Redis was killed, and the link has not heard of it: who waits goes on waiting, and passes with the time-out."""
    link = RedisLink("redis://h:1", 60.0, clock=lambda: 1000.0)
    link._answers = Answers(lambda found: None, asyncio.get_running_loop().create_future())
    link._transport = transport = Closing()
    limit = Limit("l", None, None, 1_000_000, 100, own_buckets(), RATE_LIMITED, [0] * LIMIT.width, link.buckets)
    link.buckets.up()
    told: list[int] = []
    assert link.buckets.take(limit, b"a", told.append) == -1
    transport.is_closed = True
    link._send()
    assert (transport.written, told) == (0, [])
    link.buckets.down()
    assert told == [0]
    transport.is_closed = False
    link.buckets.up()
    assert link.buckets.take(limit, b"b", told.append) == -1
    link._send()
    assert transport.written == 1
