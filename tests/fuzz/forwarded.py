"""What goes up to a server, without a socket: the head that is written, and the memo that saves writing it.

Every head that is accepted must read as strict HTTP/1.1 again, with the same meaning, and the memo must give the same
as a fresh parse, whatever heads came before.
"""

from __future__ import annotations

import random

import h11

from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.protocol.http1 import HeadError
from lbproxy.protocol.repeats import Repeats
from tests.fuzz.oracle import Disagreement, Verdict, differ
from tests.support.listeners import listener_of

CONFIG = """
listeners:
  - bind: 127.0.0.1:1
    pool: main
pools:
  main:
    servers: [127.0.0.1:2]
"""
ADDED = b"X-Forwarded-For: 127.0.0.1\r\nX-Request-ID: 1\r\n\r\n"
# Lines of which the heads of a sequence are made: some repeat, some never do, some mean something to a gateway.
REPEATED = (
    b"Host: a", b"Host: b", b"Accept: */*", b"X-T: 1", b"x-t: 1", b"X-T:2 ", b"User-Agent: u", b"Content-Length: 5",
    b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: x-t",
    b"Connection: x-u0, te",
    b"Expect: 100-continue", b"X_U: 1", b"X-Forwarded-For: 6.6.6.6", b"X_Forwarded_For: 6.6.6.6", b"Via: 1.1 lbproxy",
    b"TE: trailers", b"Max-Forwards: 5", b"X-Client-Cert-Verify: SUCCESS", b"Upgrade: websocket",
    b"Connection: Upgrade",
)  # fmt: skip
UNIQUE = (
    b"traceparent: %d", b"X-T: u%d", b"X-U%d: 1", b"Host: h%d", b"Cookie: c=%d", b"Content-Length: %d", b"X_V: %d",
    b"Via: 1.1 v%d",
    b"User-Agent: u%d", b"X-V : %d", b" fold%d", b"X-Forwarded-For: 6.6.6.%d", b"Connection: x-u%d", b"\tx: %d",
    b"Transfer-Encoding: x%d",
    b"X-W: \x01%d", b"X-W:\t %d \t", b"X-W: %d\r", b"nocolon%d", b": %d",
)  # fmt: skip


LISTENER = listener_of(CONFIG)


def fresh(raw: bytes) -> Prepared:
    """Without a memo. Raises HeadError."""
    return prepare(LISTENER, raw, is_trusted=False, log_format=None, local_host="127.0.0.1:1")


def check_forward(raw: bytes) -> Verdict:
    """The head for the server is one strict request with exactly one Host and one framing. Raises Disagreement."""
    try:
        prepared = fresh(raw)
    except HeadError:
        return Verdict(False, False)
    if prepared.fault is not None or prepared.is_local:
        return Verdict(False, True)
    sent = prepared.forward + ADDED
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(sent)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Disagreement(f"lbproxy sends what h11 refuses ({error}): {sent!r} of {raw!r}") from None
    if not isinstance(event, h11.Request) or connection.trailing_data[0] or sent.count(b"\r\n\r\n") != 1:
        raise Disagreement(f"not exactly one head: {sent!r} of {raw!r}")
    names = [name for name, _ in event.headers]
    differ("sent method", prepared.head.method.encode(), bytes(event.method), raw)
    differ("sent target", prepared.head.target, bytes(event.target), raw)
    differ("sent version", b"1.1", bytes(event.http_version), raw)
    differ("number of Host fields", names.count(b"host"), 1, raw)
    lengths = [value for name, value in event.headers if name == b"content-length"]
    expected = [] if prepared.chunked or prepared.head.content_length is None else [b"%d" % prepared.content_length]
    differ("sent length", lengths, expected, raw)
    differ("sent coding", names.count(b"transfer-encoding"), int(prepared.chunked), raw)
    forged = {b"x-real-ip", b"forwarded", b"proxy-connection", b"keep-alive", b"http2-settings"} & set(names)
    if forged or any(b"_" in name for name in names) or names.count(b"x-forwarded-for") != 1:
        raise Disagreement(f"names that must not go up: {sorted(set(names))} of {raw!r}")
    return Verdict(True, True)


# --- the memo ---


def heads_sequence(rng: random.Random) -> bytes:
    """Some dozens of heads of two or three clients: each keeps to its own head but for what is new in each request."""
    clients = [_client_lines(rng) for _ in range(rng.choice((2, 3)))]
    out = []
    for number in range(rng.choice((8, 20, 40))):
        lines = [line % number if b"%d" in line else line for line in rng.choice(clients)]
        if rng.random() < 0.15:
            lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(REPEATED))
        if rng.random() < 0.1:
            lines[1:] = rng.sample(lines[1:], len(lines) - 1)
        out.append(b"\r\n".join(lines) + b"\r\n\r\n")
    return b"".join(out)


def _client_lines(rng: random.Random) -> list[bytes]:
    lines = [b"Host: a"] if rng.random() < 0.8 else []
    lines += rng.sample(REPEATED[2:] if rng.random() < 0.3 else REPEATED[2:9], rng.choice((0, 1, 1, 2, 3)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(UNIQUE[:6] if rng.random() < 0.8 else UNIQUE))
    return [rng.choice((b"GET / HTTP/1.1", b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"GET /y HTTP/1.0")), *lines]


def _meaning(prepared: Prepared) -> tuple[object, ...]:
    """What is sent and what is decided."""
    return (
        prepared.forward,
        prepared.chunked,
        prepared.content_length,
        prepared.keep_alive,
        prepared.fault,
        prepared.upgrade,
    )


def check_memo(sequence: bytes) -> Verdict:
    """Head for head the same with the memo as without, whatever came before. Raises Disagreement."""
    memo: Repeats[Prepared] = Repeats(most=20, longest=200)
    accepted = False
    for part in sequence.split(b"\r\n\r\n")[:-1]:
        raw = part + b"\r\n\r\n"
        try:
            wanted: tuple[object, ...] | str = _meaning(fresh(raw))
            accepted = True
        except HeadError as error:
            wanted = error.fault.word
        differ("with the memo", _through_memo(memo, raw), wanted, raw)
    return Verdict(accepted, True)


def _through_memo(memo: Repeats[Prepared], raw: bytes) -> tuple[object, ...] | str:
    """As the client side does it."""
    prepared = memo.find(raw)
    if prepared is None:
        try:
            prepared = fresh(raw)
        except HeadError as error:
            return error.fault.word
        memo.learn(raw, len(raw), prepared)
    return _meaning(prepared)
