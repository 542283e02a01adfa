"""What a server of HTTP/2 says, sound or not and cut anywhere, through the whole data plane to clients: no sockets.

The library `h2` plays the server. A client of HTTP/1.1 never gets an answer that looks whole and is not: it has the
status and the octets that lbproxy's codec, and for what is sound the library, have in that stream. Nothing breaks,
nothing is forgotten, and when the server has gone nobody waits. A case is a seed of a few octets.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h11

from lbproxy.protocol.h2.codes import CANCEL, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM
from lbproxy.protocol.h2.settings import OwnSettings
from tests.fuzz.h2_conversations import broken, in_pieces
from tests.fuzz.oracle import Disagreement, Verdict, differ
from tests.support.fake_transport import FakeLb, Peer
from tests.support.h2_cases import settings
from tests.support.h2_ends import RecordingEnd

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app:
    servers: ["127.0.0.1:9001"]
    protocol: h2
    health_check: off
    circuit_breaker: off
    retry: {attempts: 0}
"""
METHODS = ("GET", "GET", "HEAD", "POST")
BODY = b"0123456789"


@dataclass(slots=True)
class Answer:
    """status: 0 if there is none. is_whole: it has ended, and not by being cut. is_cut: its server has given it up."""

    status: int = 0
    body: bytes = b""
    is_whole: bool = False
    is_cut: bool = False
    interim: list[int] = field(default_factory=list)


class Server:
    """The library, and what it has said on each stream."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.said: dict[int, Answer] = {}
        self.open: list[int] = []
        self.has_body: set[int] = set()

    def hears(self, octets: bytes) -> None:
        for event in self.connection.receive_data(octets):
            if isinstance(event, h2.events.RequestReceived):
                self.said[event.stream_id] = Answer()
                self.open.append(event.stream_id)
                if dict(event.headers)[b":method"] != b"HEAD":
                    self.has_body.add(event.stream_id)

    def says_something(self) -> None:
        """A head, more of a body, its end, a reset, or a frame that is about the connection."""
        rng, connection = self.rng, self.connection
        kind = rng.random()
        if kind < 0.05:
            connection.ping(rng.randbytes(8))
            return
        if kind < 0.1:
            connection.increment_flow_control_window(rng.randint(1, 5_000))
            return
        stream = rng.choice(self.open)
        answer = self.said[stream]
        if kind < 0.13:
            connection.reset_stream(stream, rng.choice((INTERNAL_ERROR, CANCEL, NO_ERROR, REFUSED_STREAM)))
            answer.is_cut = True
            self.open.remove(stream)
        elif not answer.status:
            self._head(stream, answer)
        elif kind < 0.7:
            octets = rng.randbytes(rng.choice((0, 1, 30, 3_000)))
            room = connection.local_flow_control_window(stream)
            if len(octets) + 30 < room:
                self._data(stream, answer, octets, is_end=rng.random() < 0.3)
        elif kind < 0.85:
            connection.send_headers(stream, [(b"x-end", b"yes")], end_stream=True)
            self._ended(stream, answer)
        else:
            self._data(stream, answer, b"", is_end=True)

    def _head(self, stream: int, answer: Answer) -> None:
        if self.rng.random() < 0.2:
            interim = self.rng.choice((100, 103))
            self.connection.send_headers(stream, [(b":status", b"%d" % interim)])
            answer.interim.append(interim)
            return
        status = self.rng.choice((200, 200, 206, 404, 503))
        is_end = stream not in self.has_body or self.rng.random() < 0.1
        fields = [(b":status", b"%d" % status), (b"x-a", b"b" * self.rng.randrange(9))]
        self.connection.send_headers(stream, fields, end_stream=is_end)
        answer.status = status
        if is_end:
            self._ended(stream, answer)

    def _data(self, stream: int, answer: Answer, octets: bytes, *, is_end: bool) -> None:
        padding = self.rng.choice((None, None, 0, 7))
        self.connection.send_data(stream, octets, end_stream=is_end, pad_length=padding)
        answer.body += octets
        if is_end:
            self._ended(stream, answer)

    def _ended(self, stream: int, answer: Answer) -> None:
        answer.is_whole = True
        self.open.remove(stream)


def check_answers(data: bytes) -> Verdict:
    """Both accept: all answers were whole at the server and at the clients. Raises Disagreement."""
    rng = random.Random(data)
    is_sound = rng.random() < 0.4
    with FakeLb(CONFIG) as lb:
        methods = [rng.choice(METHODS) for _ in range(rng.randint(1, 6))]
        clients, server, peer = _asked(lb, methods, rng)
        for _ in range(rng.randint(1, 40)):
            if server.open:
                server.says_something()
        octets = server.connection.data_to_send()
        if not is_sound and octets:
            octets = broken(rng, octets, 0)
        known = codec_answers(methods, octets)
        size = rng.choice((1, 5, 200, len(octets) or 1))
        for at in range(0, len(octets), size):
            peer.send(octets[at : at + size])
        heard_before = [heard(method, client) for method, client in zip(methods, clients, strict=True)]
        peer.fin()
        while lb.loop.dials:  # for what was not processed
            lb.refuse()
        lb.advance(1.0)
        n_whole = 0
        for at, (method, client) in enumerate(zip(methods, clients, strict=True)):
            answer = heard(method, client)
            stream = 2 * at + 1
            if method == "HEAD":
                known[stream].is_whole = known[stream].status != 0  # no body is to come, whatever its stream does
            _compare(f"stream {stream}", answer, known[stream], octets)
            if is_sound:
                said = server.said[stream]
                if said.is_whole and not heard_before[at].is_whole:
                    raise Disagreement(f"the whole answer on {stream} has not come: {answer} of {octets!r}")
                if said.is_whole:
                    differ(f"the answer on {stream}", (answer.status, answer.body), (said.status, said.body), octets)
            if not answer.is_whole and client.is_open:
                raise Disagreement(f"the client of {stream} waits for ever; of {octets!r}")
            n_whole += answer.is_whole and answer.status != 502
    return Verdict(n_whole == len(methods), is_sound)


def _asked(lb: FakeLb, methods: list[str], rng: random.Random) -> tuple[list[Peer], Server, Peer]:
    """Clients that have all asked on one connection, in the order of its streams, and the server at its end."""
    server = Server(rng)
    clients = [lb.connect() for _ in methods]
    peer: Peer | None = None
    for method, client in zip(methods, clients, strict=True):
        body = BODY if method == "POST" else b""
        client.send(b"%b /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (method.encode(), len(body), body))
        if peer is None:
            peer = lb.accept()
            server.hears(peer.got())
            peer.send(server.connection.data_to_send())
        server.hears(peer.got())
    assert peer is not None and not lb.loop.dials
    assert sorted(server.said) == [2 * at + 1 for at in range(len(methods))]
    server.connection.data_to_send()
    return clients, server, peer


def check_cuts(data: bytes) -> Verdict:
    """The codec's end of a client: the same hooks and output of a server's octets, however they are cut."""
    rng = random.Random(data)
    methods = [rng.choice(METHODS) for _ in range(rng.randint(1, 6))]
    server = Server(rng)
    server.hears(_asking(methods).take_output())
    for _ in range(rng.randint(1, 25)):
        if server.open:
            server.says_something()
    octets = server.connection.data_to_send()
    is_sound = rng.random() < 0.3
    if not is_sound:
        octets = broken(rng, octets, 0)
    words = in_pieces(rng, octets, lambda: _asking(methods))
    if is_sound:
        differ("a fault", [word for word in words if word in ("failed", "malformed")], [], octets)
    return Verdict("failed" not in words and "malformed" not in words, is_sound)


def _asking(methods: list[str]) -> RecordingEnd:
    """A client's end with requests under way."""
    end = RecordingEnd(False, OwnSettings(resets=0, control_frames=0))
    for method in methods:
        is_end = method != "POST"
        end.send_request(end.open_stream(), method.encode(), b"http", b"h", b"/x", b"", b"", is_end)
    return end


def codec_answers(methods: list[str], octets: bytes) -> dict[int, Answer]:
    """What the codec alone makes of it, by stream."""
    end = _asking(methods)
    end.received(settings(), 0.0)
    end.received(octets, 0.0)
    found = {2 * at + 1: Answer() for at in range(len(methods))}
    for word, *about in end.seen:
        answer = found.get(about[0]) if about and isinstance(about[0], int) else None
        if answer is None or word == "failed":
            continue
        if word == "head":
            _, status, _, is_end = about
            assert isinstance(status, int)
            if status < 200:
                answer.interim.append(status)
            else:
                answer.status, answer.is_whole = status, bool(is_end)
        elif word == "data":
            _, body, is_end = about
            assert isinstance(body, bytes)
            answer.body += body
            answer.is_whole = bool(is_end)
        elif word == "trailers":
            answer.is_whole = True
        elif word in ("malformed", "reset"):
            answer.is_cut = True
    return found


def heard(method: str, client: Peer) -> Answer:
    """What a client has got so far, as h11 reads it. Raises Disagreement if that is no HTTP."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/x", headers=[("Host", "h"), ("Content-Length", "0")]))
    reader.send(h11.EndOfMessage())
    answer = Answer()
    if not client.everything:
        return answer
    reader.receive_data(client.everything)
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            raise Disagreement(f"a client of {method} has got what h11 refuses ({error})") from None
        if isinstance(event, h11.InformationalResponse):
            answer.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.is_whole = True
            return answer
        else:
            return answer


def _compare(what: str, answer: Answer, known: Answer, octets: bytes) -> None:
    """An answer that looks whole was whole, or is lbproxy's own; of another one the client has a part of what came."""
    if answer.is_whole and answer.status in (502, 503) and not (known.is_whole and known.status == answer.status):
        return
    if answer.is_whole:
        differ(f"{what} as the codec has it", (known.is_whole, known.status), (True, answer.status), octets)
        differ(f"the body on {what}", answer.body, known.body, octets)
    elif answer.status and not known.body.startswith(answer.body):
        raise Disagreement(f"{what}: {answer.body!r} is no part of {known.body!r}, of {octets!r}")
