"""A client that speaks HTTP/2 to a FakeLb: no sockets, and what it was sent is sorted by stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbproxy.protocol.h2.codes import CANCEL
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.fake_transport import CLIENT, FakeLb, Peer
from tests.support.h2_ends import RecordingEnd

_EACH_TIME = ("date", "x-request-id")


@dataclass(slots=True)
class Answer:
    """What came on one stream. reset: the code of RST_STREAM, or None."""

    interim: list[int] = field(default_factory=list)
    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    reset: int | None = None


class Http2Client:
    """gives_back: it takes what it is sent. Every act carries what follows from it to both sides."""

    def __init__(
        self, lb: FakeLb, own: OwnSettings | None = None, *, gives_back: bool = True, peer: object = CLIENT
    ) -> None:
        self.lb = lb
        self.peer: Peer = lb.connect(peer)
        self.end = RecordingEnd(False, own, gives_back=gives_back)
        self.carry()

    def carry(self) -> None:
        """Until both sides are silent."""
        for _ in range(1000):
            said = self.end.take_output()
            if said and self.peer.is_open:
                self.peer.send(said)
            self.lb.services.poller.turn_end.flush()
            heard = self.peer.got()
            if heard:
                self.end.received(heard, self.lb.clock())
            if not said and not heard:
                return
        raise AssertionError("the two go on talking")

    # --- acts -------------------------------------------------------------------------------------------------------

    def begin(
        self,
        method: str = "GET",
        path: str = "/a",
        *lines: str,
        body: bytes | None = None,
        authority: str = "h",
        turns: bool = True,
    ) -> int:
        """A request on a new stream; body: all of it, None: it is still to come, with GET there is none."""
        number = self.end.open_stream()
        is_end = body is None and method in ("GET", "HEAD", "OPTIONS")
        text = "".join(f"{line}\r\n" for line in lines).encode()
        self.end.send_request(number, method.encode(), b"http", authority.encode(), path.encode(), text, b"", is_end)
        if body is not None:
            taken = self.end.send_data(number, body, True)
            assert taken == len(body), "more than the window allows"
        if turns:
            self.carry()
        return number

    def data(self, number: int, data: bytes, *, is_end: bool = False) -> int:
        """More of a body; how much the windows allowed."""
        taken = self.end.send_data(number, data, is_end)
        self.carry()
        return taken

    def trailers(self, number: int, lines: bytes) -> None:
        self.end.send_trailers(number, lines)
        self.carry()

    def cancel(self, number: int, code: int = CANCEL) -> None:
        self.end.reset(number, code)
        self.carry()

    def take(self, number: int, size: int) -> None:
        """Give windows back that were not given at once."""
        self.end.consumed(number, size)
        self.carry()

    def raw(self, *pieces: bytes) -> None:
        """Octets as they are."""
        for piece in pieces:
            self.peer.send(piece)
        self.carry()

    def server(self) -> Peer:
        """The server that gets the oldest request that is being dialled for; then what it says must be carried."""
        return self.lb.accept()

    def answered_by(self, server: Peer, *pieces: bytes) -> None:
        """A server says something."""
        server.send(*pieces)
        self.carry()

    # --- what was heard ---------------------------------------------------------------------------------------------

    def answer(self, number: int) -> Answer:
        """All that came on one stream."""
        found = Answer()
        for word, *about in self.end.seen:
            if word == "failed" or about[:1] != [number]:
                continue
            rest = about[1:]
            if word == "head":
                status, lines, is_end = rest
                assert isinstance(status, int) and isinstance(lines, bytes)
                if status < 200:
                    found.interim.append(status)
                    continue
                found.status = status
                found.fields = _pairs(lines)
                length = next(head.content_length for head in self.end.heads if head.lines == lines)
                if length is not None:
                    found.fields["content-length"] = str(length)
                found.is_whole = bool(is_end)
            elif word == "data":
                data, is_end = rest
                assert isinstance(data, bytes)
                found.body += data
                found.is_whole = bool(is_end)
            elif word == "trailers":
                found.trailers = {name.decode(): value.decode() for name, value in rest[0]}  # type: ignore[attr-defined]
                found.is_whole = True
            elif word == "reset":
                assert isinstance(rest[0], int)
                found.reset = rest[0]
        return found

    @property
    def goaways(self) -> list[tuple[int, int]]:
        """The last stream and the code of each GOAWAY."""
        return [(entry[1], entry[2]) for entry in self.end.seen if entry[0] == "goaway"]  # type: ignore[misc]


def _pairs(lines: bytes) -> dict[str, str]:
    """Fields without those that differ each time."""
    found = {}
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        if name not in _EACH_TIME:
            found[name] = value
    return found
