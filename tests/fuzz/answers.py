"""What comes down to a client, without a socket: a server's bytes, however odd, through lbproxy's whole response side.

h11's client reads what the server sent, and what the client got. What the client got is always well formed, or visibly
cut, or lbproxy's own 502; and if it is an answer, then the one that a strict reader finds in what was sent: status,
reason, fields, body, trailers. The client's next request then gets its own answer, whatever was behind the first one.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace

import h11

from tests.fuzz import generate
from tests.fuzz.oracle import FRAMING_FIELDS, HOP_BY_HOP, SPACED_EXTENSION, Disagreement, Fields, Verdict, differ
from tests.support.fake_transport import FakeLb, Peer, ok

_POOL = '{servers: ["127.0.0.1:9001"], health_check: off, circuit_breaker: off, retry: off%s}'
CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app: """
STRICT = CONFIG + _POOL % ""
LENIENT = CONFIG + _POOL % ", lenient: true"
# Fields that lbproxy writes itself, on the way to any client.
_OWN = HOP_BY_HOP | {b"content-length", b"x-request-id", b"via", b"date", b"server"}
_OPTIONS = {b"close", b"keep-alive", b"upgrade"}
_CONTROLS = bytes({*range(1, 32), 127} - {9, 10, 13})
_AS_SPACES = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))
_PROBLEM = b"application/problem+json"


@dataclass(frozen=True)
class Answer:
    """What a strict reader makes of some bytes. status 0: not even a head. trailers: of a complete body."""

    interim: tuple[int, ...] = ()
    status: int = 0
    reason: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    is_complete: bool = False
    is_refused: bool = False


def read(data: bytes, method: bytes, *, is_ended: bool) -> tuple[Answer, bytes]:
    """h11's reading, and what is left behind it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/a", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    for part in (data, b"") if is_ended else (data,):
        if part or is_ended:  # to h11 nothing is the end
            connection.receive_data(part)
    interim: list[int] = []
    status, reason, body = 0, b"", b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    trailers: Fields = []
    is_complete = is_refused = False
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                status, reason = event.status_code, bytes(event.reason)
                fields = tuple((bytes(name), bytes(value)) for name, value in event.headers.raw_items())
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                trailers = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
                is_complete = True
                break
            else:
                break
    except h11.RemoteProtocolError:
        is_refused = True
    answer = Answer(tuple(interim), status, reason, fields, body, tuple(trailers), is_complete, is_refused)
    return answer, connection.trailing_data[0] if is_complete else b""


# --- making answers -------------------------------------------------------------------------------------------------


def stream(rng: random.Random) -> bytes:
    """What a server might send: some interim heads, a head with a body of that or another framing, and what follows."""
    out = [
        rng.choice((b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"))
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))
    ]
    body = rng.choice((b"", b"x", b"hello", b"b" * 300, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    if rng.random() < 0.3:
        head = generate.response_head(rng)
        out.append(head)
        is_chunked = b"chunked" in head.lower()
    else:
        kind = rng.random()
        is_chunked = kind < 0.4
        length = len(body) + rng.choice((0, 0, 0, 0, 0, 1, -1))
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % max(0, length)
        lines = [b"HTTP/1.1 %b" % rng.choice((b"200 OK", b"200 OK", b"404 No", b"500 Oops", b"204 None", b"304 Same"))]
        lines += [generate.response_field(rng) for _ in range(rng.choice((0, 1, 2)))]
        lines += [framing] if kind < 0.85 else []
        out.append(b"\r\n".join(lines) + b"\r\n\r\n")
    out.append(generate.chunked_body(rng) if is_chunked else body)
    data = b"".join(out)
    if rng.random() < 0.3:
        data = generate.mutate(rng, data)
    return data + rng.choice((b"", b"", b"", b"\r\n", b"EXTRA", ok(b"evil")))


def clean_stream(rng: random.Random) -> bytes:
    """An answer that nobody has a reason to refuse."""
    body = rng.randbytes(rng.choice((0, 1, 5, 300, 5000)))
    lines = [b"HTTP/1.1 %d Fine" % rng.choice((200, 201, 404, 503))]
    lines += [b"X-%d: v%d" % (number, rng.randrange(99)) for number in range(rng.randrange(5))]
    if rng.random() < 0.5:
        head = b"\r\n".join([*lines, b"Content-Length: %d" % len(body)])
        return head + b"\r\n\r\n" + body
    cuts = sorted(rng.randrange(len(body) + 1) for _ in range(rng.randrange(6)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + sent


# --- holding them against each other --------------------------------------------------------------------------------


def _ask(method: bytes) -> bytes:
    return b"%b /a HTTP/1.1\r\nHost: h\r\nConnection: TE\r\nTE: trailers\r\n\r\n" % method


def _end_to_end(fields: tuple[tuple[bytes, bytes], ...]) -> Fields:
    values = [value for name, value in fields if name.lower() == b"connection"]
    named = {part.strip(b" \t").lower() for value in values for part in value.split(b",")} - _OPTIONS
    return [(name, value) for name, value in fields if name.lower() not in _OWN | named]


def _is_own(answer: Answer) -> bool:
    """Is it lbproxy's 502?"""
    return answer.status == 502 and (b"Content-Type", _PROBLEM) in answer.fields


def check_answer(data: bytes, *, is_lenient: bool = False) -> Verdict:
    """The pieces, the request's method and whether a FIN follows are functions of the data. Raises Disagreement."""
    rng = random.Random(hashlib.blake2b(data, digest_size=8).digest())
    method = rng.choice((b"GET", b"GET", b"GET", b"HEAD"))
    is_ended = rng.random() < 0.5
    pieces = generate.pieces(rng, data)
    theirs, _ = read(data, method, is_ended=is_ended)
    with FakeLb(LENIENT if is_lenient else STRICT) as lb:
        client = lb.connect()
        server = lb.exchange(client, _ask(method))
        for piece in pieces:
            if server.is_open:
                server.send(piece)
        if is_ended and server.is_open:
            server.fin()
        got, rest = read(client.everything, method, is_ended=client.saw_fin)
        if client.saw_reset:
            if got.is_complete:
                raise Disagreement(f"a cut answer looks complete: {client.everything!r} of {data!r}")
            return Verdict(False, theirs.is_complete)
        if got.is_refused or rest:
            raise Disagreement(f"lbproxy sends what h11 refuses: {client.everything!r} of {data!r}")
        if _is_own(got):
            return Verdict(False, theirs.is_complete)
        if not is_lenient:
            _compare(data, got, theirs)
        elif theirs.is_complete:
            _compare(data, _without_controls(got), _without_controls(theirs))
        if got.is_complete:
            _check_next(lb, client, server, len(client.everything), data)
        return Verdict(got.is_complete, theirs.is_complete)


def _compare(data: bytes, got: Answer, theirs: Answer) -> None:
    """Not lbproxy's own answer, and not cut: so it is the server's, or what came of it so far."""
    if SPACED_EXTENSION.search(data) or any(name.lower() in FRAMING_FIELDS for name, _ in theirs.trailers):
        return  # EXCEPTIONS of the oracle, which `check_chunked` looks at closely
    if (
        re.search(rb"(?i)(^|\n)(content-length|transfer-encoding)\s*:", data.partition(b"0\r\n")[2])
        and theirs.is_refused
    ):
        return  # likewise, in a trailer section that h11 refuses
    if theirs.is_refused:
        raise Disagreement(f"lbproxy passes on what h11 refuses: {got} of {data!r}")
    if not theirs.is_complete and got.is_complete:
        raise Disagreement(f"complete, but the server's is not: {got} of {data!r}")
    if not got.status:
        return  # nothing has come yet that could be passed on
    differ("status", (got.status, got.reason), (theirs.status, theirs.reason), data)
    differ("fields", _end_to_end(got.fields), _end_to_end(theirs.fields), data)
    differ("body", got.body, theirs.body[: len(got.body)] if not got.is_complete else theirs.body, data)
    differ("interim", got.interim, tuple(status for status in theirs.interim if status != 100), data)
    if not set(got.trailers) <= set(theirs.trailers):
        raise Disagreement(f"trailers that nobody sent: {got.trailers} of {data!r}")


def _without_controls(answer: Answer) -> Answer:
    """h11 lets control characters through, and keeps white space before a fold; a lenient pool makes spaces of both."""

    def text(value: bytes) -> bytes:
        return re.sub(rb"[ \t]+", b" ", value.translate(_AS_SPACES)).strip(b" ")

    fields = tuple((name, text(value)) for name, value in answer.fields)
    return replace(answer, reason=text(answer.reason), fields=fields)


def _check_next(lb: FakeLb, client: Peer, server: Peer, seen: int, data: bytes) -> None:
    """The client's next request, if it may send one, gets the answer to that request."""
    if not client.is_open or client.saw_fin:
        return
    before = len(server.everything)
    client.send(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
    taker = server if len(server.everything) > before else lb.accept()
    taker.send(ok(b"second"))
    answer, _ = read(client.everything[seen:], b"GET", is_ended=False)
    differ("the answer to the next request", (answer.status, answer.body), (200, b"second"), data)


def check_lenient(data: bytes) -> Verdict:
    """The same from a server of a lenient pool: what h11 accepts means the same, what it refuses is at least strict."""
    return check_answer(data, is_lenient=True)
