"""Lists of fields on streams of HTTP/2, through the whole data plane, to a server of HTTP/1.1: no sockets.

A server gets exactly one request that says what the stream said (read by h11 and by llhttp), or nothing, or, where a
body does not keep what its head has promised, a request that is never whole and whose connection ends. The next request
on a connection that is kept begins where the last one has ended, so what is left over by one would be found by it.

A case is a seed of a few octets, from which `LISTS` lists and all else follow.
"""

from __future__ import annotations

import random

import hpack

from lbproxy.protocol.h2.codes import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PREFACE,
    RST_STREAM,
)
from lbproxy.protocol.h2.fields import has_clean_value, kind_of
from tests.fuzz import h2_heads, oracle
from tests.fuzz.oracle import Disagreement, Verdict, differ
from tests.support.fake_transport import FakeLb, Peer, ok
from tests.support.h2_cases import settings, u32
from tests.support.h2_ends import block, frame
from tests.support.h2_wire import Heard

LISTS = 50
CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app, limits: {h2: {resets: 1000 in 1s}}}]
pools:
  app: {servers: ["127.0.0.1:9001"], health_check: off, circuit_breaker: off, retry: {attempts: 0}}
"""
# What lbproxy says itself, in the head that goes up.
_OWN = {
    b"host", b"content-length", b"transfer-encoding", b"te", b"connection", b"via", b"x-request-id", b"x-real-ip",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"cookie",
    b"expect",
}  # fmt: skip
Pieces = list[bytes]


class Stream:
    """What a client says on one stream: fields, a body, perhaps trailers. is_kept: the body is as long as was said."""

    def __init__(self, rng: random.Random) -> None:
        self.fields = h2_heads.fields(rng)
        if rng.random() < 0.05:
            self.fields.append((b"expect", b"100-continue"))
        lengths = [text for name, text in self.fields if name == b"content-length"]
        length = int(lengths[0]) if lengths and lengths[0].isdigit() else None
        size = rng.choice((0, 0, 1, 20, 400)) if length is None else min(length, 1_000)
        self.is_kept = True
        if length is not None and rng.random() < 0.1:
            size = max(0, size + rng.choice((-1, 1, 7)))
        self.body = rng.randbytes(size)
        if rng.random() < 0.1:
            self.body = b"\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n"[: size or None]
        self.length = length
        self.is_kept = length is None or length == len(self.body)
        self.trailers: h2_heads.List = []
        if rng.random() < 0.1:
            self.trailers = [(b"x-end", h2_heads.octets(rng, b"yes")), (h2_heads.octets(rng, b"x-more"), b"1")]
        self.is_reset = rng.random() < 0.03

    @property
    def has_sound_trailers(self) -> bool:
        return all(kind_of(name) == 0 and has_clean_value(text) for name, text in self.trailers)

    def octets(self, rng: random.Random, number: int, encoder: hpack.Encoder) -> Pieces:
        """Its frames, in one of the ways in which they may be cut."""
        has_more = bool(self.body or self.trailers) or rng.random() < 0.1
        head = block(self.fields) if rng.random() < 0.5 else encoder.encode(self.fields, huffman=rng.random() < 0.5)
        found = _block(rng, number, head, is_end=not has_more)
        at = 0
        while at < len(self.body) or (has_more and not at and not self.trailers):
            size = rng.choice((0, 1, 7, 500, 500))
            is_end = at + size >= len(self.body) and not self.trailers
            part = self.body[at : at + size]
            flags = END_STREAM if is_end else 0
            if rng.random() < 0.2:
                padding = rng.randrange(20)
                found.append(frame(DATA, PADDED | flags, number, bytes([padding]) + part + bytes(padding)))
            else:
                found.append(frame(DATA, flags, number, part))
            at += size
            if is_end:
                break
        if self.is_reset:
            found[rng.randint(1, len(found)) :] = [frame(RST_STREAM, 0, number, u32(8))]
        elif self.trailers:
            found += _block(rng, number, encoder.encode(self.trailers), is_end=True)
        return found


def _block(rng: random.Random, number: int, head: bytes, *, is_end: bool) -> Pieces:
    """HEADERS, and CONTINUATION now and then: one piece, as nothing may come between them."""
    flags = END_STREAM if is_end else 0
    before, behind = b"", b""
    if rng.random() < 0.1:
        flags |= PADDED
        before, behind = b"\x03", bytes(3)
    if rng.random() < 0.1:
        flags |= HAS_PRIORITY
        before += u32(0) + b"\x10"
    if rng.random() < 0.8:
        return [frame(HEADERS, flags | END_HEADERS, number, before + head + behind)]
    cut, other = sorted(rng.randint(0, len(head)) for _ in range(2))
    return [
        frame(HEADERS, flags, number, before + head[:cut] + behind)
        + frame(CONTINUATION, 0, number, head[cut:other])
        + frame(CONTINUATION, END_HEADERS, number, head[other:])
    ]


def check_through(data: bytes) -> Verdict:
    """Both accept: at least one of the lists has reached the server. Raises Disagreement."""
    n_whole, _ = play(data)
    return Verdict(n_whole > 0, True)


def play(data: bytes) -> tuple[int, int]:
    """How many of the lists have reached the server, and how many have not. Raises Disagreement."""
    rng = random.Random(data)
    encoder = hpack.Encoder()
    n_whole = 0
    with FakeLb(CONFIG) as lb:
        client = _Client(lb)
        for at in range(LISTS):
            if not client.peer.is_open:
                raise Disagreement(f"the connection has ended before list {at} of {data!r}")
            stream = Stream(rng)
            number = 2 * at + 1
            n_whole += _play(rng, lb, client, stream, number, stream.octets(rng, number, encoder), data)
    return n_whole, LISTS - n_whole


class _Client:
    """Its end: what it hears is sorted by stream, and not answered."""

    def __init__(self, lb: FakeLb) -> None:
        self.peer: Peer = lb.connect()
        self.peer.send(PREFACE + settings() + settings(flags=1))
        self.streams: dict[int, Heard] = {}
        self._octets = b""

    def heard(self, number: int) -> Heard:
        self._octets += self.peer.got()
        while len(self._octets) >= 9:
            size = int.from_bytes(self._octets[:3], "big")
            kind, flags = self._octets[3], self._octets[4]
            on = self.streams.setdefault(int.from_bytes(self._octets[5:9], "big"), Heard())
            body = self._octets[9 : 9 + size]
            self._octets = self._octets[9 + size :]
            if kind == RST_STREAM:
                on.reset = int.from_bytes(body, "big")
            elif kind == DATA:
                on.body += body
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                on.is_ended = True
        return self.streams.setdefault(number, Heard())


def _play(
    rng: random.Random, lb: FakeLb, client: _Client, stream: Stream, number: int, pieces: Pieces, data: bytes
) -> int:
    """Send it, and look what has arrived: 1 if that is a whole request. Raises Disagreement."""
    late = rng.random() < 0.3
    if rng.random() < 0.5:
        pieces = [b"".join(pieces)]
    for piece in pieces:
        cut = rng.randint(0, len(piece)) if rng.random() < 0.2 else len(piece)
        client.peer.send(*[part for part in (piece[:cut], piece[cut:]) if part])
        if lb.loop.dials and not late:
            lb.accept()
    while lb.loop.dials:
        lb.accept()
    got = [(peer, octets) for peer in lb.servers if (octets := peer.got())]
    if not got:
        return 0
    if len(got) > 1:
        raise Disagreement(f"stream {number} of {data!r} has reached two connections: {[raw for _, raw in got]!r}")
    [(server, raw)] = got
    is_good = stream.is_kept and stream.has_sound_trailers and not stream.is_reset
    n_whole = check_arrived(stream, raw)
    # Its end may have come before it was reset, and all octets of its length before what is wrong behind them.
    if is_good or not (stream.is_reset or stream.length is not None):
        differ(f"whole requests of stream {number} of {data!r}", n_whole, int(is_good), raw)
    if not is_good:
        differ(f"that the server of stream {number} of {data!r} is kept", server.is_open, False, raw)
        return 0
    server.send(ok(b"done"))
    heard = client.heard(number)
    differ(f"the answer on stream {number}", (heard.body, heard.is_ended, heard.reset), (b"done", True, None), raw)
    return 1


def check_arrived(stream: Stream, raw: bytes) -> int:
    """What a server got, against what the stream said. How many whole requests that is. Raises Disagreement."""
    said = dict(stream.fields[::-1])  # of a name that stands twice the first
    sent = [(name, text) for name, text in stream.fields if not name.startswith(b":")]
    expected = oracle.end_to_end(sent)
    if said[b":method"] == b"OPTIONS":
        expected = [field for field in expected if field[0] != b"max-forwards"]
    crumbs = [text for name, text in sent if name == b"cookie" and text]
    is_whole = 0
    for reader in (h2_heads.by_h11, h2_heads.by_llhttp):
        method, target, lines, body, trailers, n_whole = reader(raw)
        is_whole = n_whole
        differ("method and target", (method, target), (said[b":method"], said[b":path"]), raw)
        own = [line for line in lines if line[0] not in _OWN]
        differ("fields", own, [field for field in expected if field[0] not in _OWN], raw)
        hosts = [text for name, text in lines if name == b"host"]
        differ("the host", hosts, [said.get(b":authority", said.get(b"host"))], raw)
        expects = [text for name, text in lines if name == b"expect"]
        if expects and (expects != [b"100-continue"] or (b"expect", b"100-continue") not in sent):
            raise Disagreement(f"{expects!r} is expected of {raw!r}")
        differ("trailers, which go no further", trailers, [], raw)
        cookies = [text for name, text in lines if name == b"cookie" and text]
        differ("cookies", cookies, [b"; ".join(crumbs)] if crumbs else [], raw)
        if n_whole:
            differ("the body", body, stream.body[: stream.length], raw)
        elif not stream.body.startswith(body):
            raise Disagreement(f"{body!r} is no part of the body {stream.body!r}: {raw!r}")
    return is_whole
