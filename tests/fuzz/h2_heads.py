"""Lists of fields through HPACK, in both directions beside the library `hpack`; and as HTTP/1, read by h11 and llhttp.

A case is a seed of a few octets, from which all of it follows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import h11
import hpack
import httptools

from lbproxy.dataplane.client.http2_heads import request_octets
from lbproxy.protocol.field_lines import HeadError
from lbproxy.protocol.h2.decoder import Decoder, HpackError
from lbproxy.protocol.h2.encoder import Encoder
from lbproxy.protocol.h2.fields import has_clean_value, kind_of, make_field
from lbproxy.protocol.h2.head import Malformed, read_request
from lbproxy.protocol.http1 import parse_request_head
from tests.fuzz.oracle import Disagreement, Verdict, differ

List = list[tuple[bytes, bytes]]
_BLOCKS = 12
_NAMES = (
    b"accept", b"content-type", b"x-a", b"x-b", b"cookie", b"te", b"content-length", b"host", b"date", b"grpc-timeout",
    b"authorization", b"user-agent", b"connection", b"transfer-encoding", b"x_y", b"expect",
)  # fmt: skip
_VALUES = (
    b"",
    b"a",
    b"trailers",
    b"application/grpc",
    b"5",
    b"a=1; b=2",
    b"*/*",
    b"x" * 100,
    b"gzip, deflate",
    b"chunked",
)
_ODD = (b"\r\n", b"\n", b"\0", b" ", b"\t", b"\x7f", b"\xff", b":", b"A", b"\r\nX: y\r\n\r\nGET /evil HTTP/1.1\r\n")


def seed(rng: random.Random) -> bytes:
    return rng.randbytes(8)


def octets(rng: random.Random, base: bytes) -> bytes:
    """`base`, most times; or with something odd in it."""
    if rng.random() < 0.95:
        return base
    at = rng.randint(0, len(base))
    return base[:at] + rng.choice(_ODD) + base[at:]


def value(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(_VALUES)
    if kind < 0.95:
        return bytes(rng.choices(b"abc/;=-09 .,%", k=rng.randint(1, 40))).strip()
    return rng.randbytes(rng.randint(1, 12))


def fields(rng: random.Random) -> List:
    """Of a request that is sound, most times."""
    found = [
        (b":method", rng.choice((b"GET", b"POST", b"PUT", b"OPTIONS"))),
        (b":scheme", rng.choice((b"http", b"https"))),
        (b":path", rng.choice((b"/", b"/x?y=z", b"/index.html", b"*", b"/%20"))),
        (b":authority", rng.choice((b"a", b"a:80", b"[::1]:5000"))),
    ]
    names = rng.choices(_NAMES, k=rng.randint(0, 8))
    found += [(name, value(rng)) for name in names]
    if rng.random() < 0.2:
        at = rng.randrange(len(found))
        name, old = found[at]
        found[at] = (octets(rng, name), octets(rng, old)) if rng.random() < 0.5 else (name, octets(rng, old))
    if rng.random() < 0.05:
        rng.shuffle(found)
    if rng.random() < 0.05:
        found.pop(rng.randrange(len(found)))
    return found


def check_decoder(data: bytes) -> Verdict:
    """What hpack encodes in any way that it knows, is decoded to the same."""
    rng = random.Random(data)
    theirs, ours = hpack.Encoder(), Decoder(1_000, 1 << 20)
    for _ in range(_BLOCKS):
        wanted = fields(rng)
        if rng.random() < 0.1:
            theirs.header_table_size = rng.randint(0, 4_096)
        marked = [
            hpack.NeverIndexedHeaderTuple(*field) if rng.random() < 0.1 else hpack.HeaderTuple(*field)
            for field in wanted
        ]
        found = ours.decode(theirs.encode(marked, huffman=rng.random() < 0.5))
        differ("fields", [(field.name, field.value) for field in found], wanted, data)
        # The library does not mark what it finds in a table.
        if any(field.is_secret and mark.indexable for field, mark in zip(found, marked, strict=True)):
            raise Disagreement(f"a field is secret that was not marked, of {data!r}")
        differ("the table's size", ours.size, theirs.header_table._current_size, data)
    return Verdict(True, True)


def check_any_block(data: bytes) -> Verdict:
    """Octets that are a block by chance, or nearly: both have the same list, or both refuse."""
    rng = random.Random(data)
    encoder, theirs, ours = hpack.Encoder(), hpack.Decoder(1 << 20), Decoder(10_000, 1 << 24)
    verdict = Verdict(True, True)
    for _ in range(4):
        block = bytearray(encoder.encode(fields(rng), huffman=rng.random() < 0.5))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            block[rng.randrange(len(block))] = rng.randrange(256)
        if rng.random() < 0.1:
            del block[rng.randrange(len(block)) :]
        verdict = Verdict(_ours(ours, bytes(block)) is not None, True)
        wanted = _theirs(theirs, bytes(block))
        if not verdict.ours:
            # Stricter are we in two points: integers end at 2^35, and a table's size changes twice at most.
            return Verdict(False, wanted is not None)
        if wanted is None:
            raise Disagreement(f"only lbproxy takes {bytes(block)!r} of {data!r}")
        verdict = Verdict(True, True)
    return verdict


def _ours(decoder: Decoder, block: bytes) -> List | None:
    try:
        return [(field.name, field.value) for field in decoder.decode(block)]
    except HpackError:
        return None


def _theirs(decoder: hpack.Decoder, block: bytes) -> List | None:
    try:
        return [(bytes(name), bytes(text)) for name, text in decoder.decode(block, raw=True)]
    except hpack.HPACKError:
        return None


def check_encoder(data: bytes) -> Verdict:
    """What is encoded here, hpack decodes to the same: in any order of heads, and with tables of any size."""
    rng = random.Random(data)
    ours, theirs = Encoder(), hpack.Decoder(1 << 20)
    some = [_lines(rng) for _ in range(5)]
    for _ in range(4 * _BLOCKS):
        if rng.random() < 0.05:
            limit = rng.randint(0, 5_000)
            ours.set_limit(limit)
            theirs.max_allowed_table_size = limit
            if theirs.header_table_size > limit:
                theirs.header_table_size = (
                    limit  # as if it had taken the update, which the next block has to begin with
                )
        lines, own = rng.choice(some), _lines(rng) if rng.random() < 0.3 else []
        as_lines, as_own = (b"".join([b"%b: %b\r\n" % field for field in each]) for each in (lines, own))
        wanted = [(name.lower(), text) for name, text in lines + own]
        if rng.random() < 0.5:
            status = rng.choice((100, 200, 204, 302, 404, 599))
            block = ours.encode_answer(status, as_lines, as_own)
            wanted.insert(0, (b":status", b"%d" % status))
        else:
            path = rng.choice((b"/", b"/a", b"/" + rng.randbytes(4).hex().encode()))
            block = ours.encode_request(b"PUT", b"http", b"a", path, as_lines, as_own)
            wanted[:0] = [(b":method", b"PUT"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path)]
        found = [(bytes(name), bytes(text)) for name, text in theirs.decode(block, raw=True)]
        differ("fields", found, wanted, data)
    return Verdict(True, True)


def _lines(rng: random.Random) -> List:
    """Fields as an HTTP/1 head has them, that were checked."""
    sound = [(name, text) for name, text in fields(rng) if kind_of(name) < 7 and has_clean_value(text)]
    return [(rng.choice((name, name.title(), name.upper())), text) for name, text in sound]


def check_downgrade(data: bytes) -> Verdict:
    """A stream that is taken is one request of HTTP/1 for h11, llhttp and lbproxy: with the same fields and body."""
    rng = random.Random(data)
    wanted = fields(rng)
    made = [make_field(name, text) for name, text in wanted]
    try:
        head = read_request(made, False)
    except Malformed:
        return Verdict(False, False)
    # The codec sees to it that a body is as long as its content-length.
    length = head.content_length
    body = rng.randbytes(rng.choice((0, 1, 20)) if length is None else min(length, 100))
    is_end = not body and rng.random() < 0.5
    raw = request_octets(head, is_end=is_end)
    if length is None and not is_end:
        raw += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        raw += body
    is_whole = length is None or length == len(body)
    expected = [(b"host", head.authority)]
    expected += [(name, text) for name, text in wanted if kind_of(name) in (0, 5, 6)]
    cookies = [text for name, text in wanted if name == b"cookie"]
    joined = [b"; ".join([text for text in cookies if text])] if cookies else []
    for reader in (by_h11, by_llhttp):
        method, target, lines, got, trailers, n_whole = reader(raw)
        differ("trailers", trailers, [], raw)
        differ("method and target", (method, target), (head.method, head.path), raw)
        own = [line for line in lines if line[0] not in _FRAMING]
        differ("fields", [line for line in own if line[0] != b"cookie"], expected, raw)
        differ("cookies", [text for name, text in own if name == b"cookie"], joined, raw)
        differ("lengths", [int(text) for name, text in lines if name == b"content-length"], _listed(length), raw)
        differ("the body", got, body, raw)
        differ("whole requests", n_whole, int(is_whole), raw)
    try:
        strict = parse_request_head(raw[: raw.index(b"\r\n\r\n") + 4], max_fields=100, underscores="pass")
    except HeadError:  # sound, and refused all the same
        return Verdict(False, True)
    differ("the strict reader's target", strict.target, head.path, raw)
    return Verdict(True, True)


_METHODS = (b"GET", b"POST", b"PUT", b"OPTIONS")
_FRAMING = (b"content-length", b"transfer-encoding", b"te", b"connection")
_Read = tuple[bytes, bytes, List, bytes, List, int]
"""Method, target, fields, body, trailers, and how many whole requests there were: one, or one that is not whole."""


def _listed(length: int | None) -> list[int]:
    return [] if length is None else [length]


def by_h11(raw: bytes) -> _Read:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    event = connection.next_event()
    if not isinstance(event, h11.Request):
        raise Disagreement(f"h11 reads {event!r} of {raw!r}")
    body = b""
    while isinstance(part := connection.next_event(), h11.Data):
        body += bytes(part.data)
    differ("what h11 leaves", connection.trailing_data[0], b"", raw)
    trailers = _pairs(part.headers) if isinstance(part, h11.EndOfMessage) else []
    n_whole = int(isinstance(part, h11.EndOfMessage))
    return bytes(event.method), bytes(event.target), _pairs(event.headers), body, trailers, n_whole


def _pairs(headers: Iterable[tuple[bytes, bytes]]) -> List:
    return [(bytes(name), bytes(text)) for name, text in headers]


class _Sink:
    """What llhttp tells."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: List = []
        self.trailers: List = []
        self.body = b""
        self.has_head = False
        self.n_begun = 0
        self.n_whole = 0

    def on_message_begin(self) -> None:
        self.n_begun += 1

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, text: bytes) -> None:
        (self.trailers if self.has_head else self.fields).append((name.lower(), text))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.n_whole += 1


def by_llhttp(raw: bytes) -> _Read:
    """With another method in the place of those that it does not know."""
    sink = _Sink()
    parser = httptools.HttpRequestParser(sink)
    method, _, rest = raw.partition(b" ")
    try:
        parser.feed_data(raw if method in _METHODS else b"POST " + rest)
    except httptools.HttpParserError as error:
        raise Disagreement(f"llhttp refuses ({error}) {raw!r}") from None
    differ("requests that llhttp sees", sink.n_begun, 1, raw)
    said = parser.get_method() if method in _METHODS else method
    return said, sink.target, sink.fields, sink.body, sink.trailers, sink.n_whole
