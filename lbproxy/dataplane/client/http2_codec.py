"""The codec of a client's connection of HTTP/2, and whom it tells what came."""

from __future__ import annotations

from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.net.read_turns import ReadTurns
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.h2.tail import Tail


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class FrameOwner:
    """A connection, as its codec knows it. number: a stream's."""

    __slots__ = ()

    def head_received(self, number: int, head: H2Head, is_end: bool) -> None:
        """A request."""
        raise NotImplementedError

    def tail_received(self, number: int, tail: Tail, is_end: bool) -> None:
        """The same of one of which all but the tail came before."""
        raise NotImplementedError

    def body_received(self, number: int, data: bytes, n_flow: int, is_end: bool) -> None:
        """DATA."""
        raise NotImplementedError

    def trailers_received(self, number: int, fields: list[H2Field]) -> None:
        """The fields behind a request's body, and its end."""
        raise NotImplementedError

    def malformed(self, number: int, why: str) -> None:
        """The codec resets the stream; nothing of it goes on."""
        raise NotImplementedError

    def stream_reset(self, number: int) -> None:
        """RST_STREAM."""
        raise NotImplementedError

    def window_opened(self, number: int) -> None:
        """Streams that were stalled may have a window now. 0: all of them."""
        raise NotImplementedError

    def ping_acknowledged(self, data: bytes) -> None:
        """The answer to a PING."""
        raise NotImplementedError

    def flooded(self) -> None:
        """Over one of limits.h2; `failed` follows."""
        raise NotImplementedError

    def failed(self, code: int, why: str) -> None:
        """The connection can't go on; its GOAWAY is written."""
        raise NotImplementedError


class ClientCodec(H2Connection):
    """Tells the connection what came. owner: None once that has ended, since both know each other."""

    def __init__(self, owner: FrameOwner, own: OwnSettings, turns: ReadTurns) -> None:
        super().__init__(True, own)
        self._turns = turns
        self.owner: FrameOwner | None = owner

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        if self.owner is not None:
            self.owner.head_received(stream_id, head, is_end)

    def tail_received(self, stream_id: int, tail: Tail, is_end: bool) -> None:
        if self.owner is not None:
            self.owner.tail_received(stream_id, tail, is_end)

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        if self.owner is not None:
            self.owner.trailers_received(stream_id, fields)

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        if self.owner is not None:
            self.owner.body_received(stream_id, data, n_flow, is_end)

    def malformed(self, stream_id: int, why: str) -> None:
        if self.owner is not None:
            self.owner.malformed(stream_id, why)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self.owner is not None:
            self.owner.stream_reset(stream_id)

    def window_opened(self, stream_id: int) -> None:
        if self.owner is not None:
            self.owner.window_opened(stream_id)

    def ping_acknowledged(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.ping_acknowledged(data)

    def connection_failed(self, code: int, why: str) -> None:
        if self.owner is not None:
            self.owner.failed(code, why)

    def has_turn(self) -> bool:
        self.n_left = self._turns.more_units()
        return self.n_left > 0

    def flooded(self, what: str) -> None:
        if self.owner is not None:
            self.owner.flooded()
