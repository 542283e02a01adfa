"""The rest of a large body of known length, moved by the kernel between two plain connections, exact to the byte.

The head and the first bytes went through the transports. Then the source's transport is paused, the sink's write buffer
runs empty, and a Flow (splice.py) takes what is left and not one byte more: the next request or response, or surplus,
stays in the kernel and is found by the transport, which reads again when the flow is over. The end of a connection
inside the body is left to the transport as well; only errors, which the kernel tells once, are reported from here.

A body that is moved is not kept, so a request must be past the point where it could be sent again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lbproxy import errors
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.ports import AnswerSink, ServerStream, Underway
from lbproxy.dataplane.net.splice import Flow, PipePool, is_plain
from lbproxy.protocol.body import BodyReader, LengthReader

SPLICE_FROM: Final = 192 * 1024  # bytes left; below it the set-up costs more than it saves
HIGH_WATER: Final = 64 * 1024


def spliceable(
    reader: BodyReader | None, pipes: PipePool, source: asyncio.Transport | None, sink: asyncio.Transport | None
) -> LengthReader | None:
    """The reader of a body that may be left to the kernel, or None."""
    if not isinstance(reader, LengthReader) or reader.left < SPLICE_FROM or not pipes.has_room:
        return None
    if source is None or sink is None:
        return None
    if source.is_closing() or sink.is_closing() or not is_plain(source) or not is_plain(sink):
        return None
    return reader


class BodySplice:
    """What both directions have in common. `close` releases everything, at any time."""

    __slots__ = ("_flow", "_is_waiting", "_path", "_reader", "_sink", "_source")

    def __init__(
        self, path: KernelPath, reader: LengthReader, source: asyncio.Transport, sink: asyncio.Transport
    ) -> None:
        self._path = path
        self._reader = reader
        self._source = source
        self._sink = sink
        self._flow: Flow | None = None
        self._is_waiting = False

    def begin(self) -> None:
        """The source is paused: go on once the sink has taken what was written to it."""
        if self._sink.get_write_buffer_size():
            self._is_waiting = True
            self._sink.set_write_buffer_limits(high=0)  # resume_writing comes when nothing is left
        else:
            self._start()

    def sink_emptied(self) -> None:
        """The sink's protocol was told to write again."""
        if self._is_waiting:
            self._is_waiting = False
            self._sink.set_write_buffer_limits(high=HIGH_WATER)
            self._start()

    def _start(self) -> None:
        services = self._path.side.services
        flow = services.pipes.open_flow(services.loop, self._source, self._sink, self, self._reader.left)
        if flow is None:
            self._give_back()
        else:
            self._flow = flow
            flow.run()

    def close(self) -> None:
        """Let go of both connections. What is in the pipe is lost."""
        self._is_waiting = False
        if self._flow is not None:
            self._flow.close()
            self._flow = None  # which knows this object

    @property
    def pending(self) -> int:
        """Bytes on their way from the source to the sink."""
        return self._flow.pending if self._flow is not None else 0

    # --- splice.Owner -----------------------------------------------------------------------------------------------

    def flow_moved(self, size: int, *, is_blocked: bool) -> None:
        self._reader.left -= size
        self._count(size, is_blocked=is_blocked)

    def flow_ended(self) -> None:
        self._flow = None
        if self._reader.left:
            self._give_back()  # the transport finds the end of the connection, or goes on
        else:
            self._reader.done = True
            self._complete()

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        raise NotImplementedError

    def flow_crashed(self, error: Exception) -> None:
        self._path.side.services.internal_error("splice", error)
        self._path.request.fail(errors.INTERNAL_ERROR, "internal error")

    def _count(self, size: int, *, is_blocked: bool) -> None:
        raise NotImplementedError

    def _complete(self) -> None:
        raise NotImplementedError

    def _give_back(self) -> None:
        raise NotImplementedError

    def _client_left(self) -> None:
        self._path.request.client_left()
        self._path.side.cut(errors.CLIENT_ABORT)


class Download(BodySplice):
    """A response's body: from the server to the client."""

    __slots__ = ()

    def _count(self, size: int, *, is_blocked: bool) -> None:
        self._path.sink.response_spliced(size, is_blocked=is_blocked)
        self._path.side.response_moved(size)

    def _complete(self) -> None:
        self._path.download = None
        self._path.stream.response_spliced()

    def _give_back(self) -> None:
        self._path.download = None
        self._path.stream.resume()

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        if at_source:
            self._path.stream.reset_inside()
        else:
            self._client_left()


class Upload(BodySplice):
    """A request's body: from the client to the server."""

    __slots__ = ()

    def _count(self, size: int, *, is_blocked: bool) -> None:
        self._path.stream.request_moved(size)
        self._path.request.bytes_in += size
        self._path.side.request_moved(is_blocked=is_blocked)

    def _complete(self) -> None:
        self._path.upload = None
        self._path.side.request_spliced()
        self._path.sink.upstream_unblocked()

    def _give_back(self) -> None:
        self._path.upload = None
        self._path.sink.upstream_unblocked()

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        if at_source:
            self._client_left()
        else:
            self._path.stream.reset_inside()


class KernelPath:
    """Both directions of one request between its client and one server. n_upward, n_downward: bytes on their way."""

    __slots__ = ("download", "request", "side", "sink", "stream", "upload")

    def __init__(self, request: Underway, sink: AnswerSink, side: ClientStream, stream: ServerStream) -> None:
        self.request = request
        self.sink = sink
        self.side = side
        self.stream = stream
        self.download: Download | None = None
        self.upload: Upload | None = None

    def takes_response(self, reader: BodyReader) -> bool:
        """Begin to move the rest of the response, if that is possible and pays."""
        stream, side = self.stream, self.side
        source, target = stream.raw_source(), side.raw_sink()
        found = spliceable(reader, side.services.pipes, source, target)
        if found is None or source is None or target is None:
            return False
        stream.pause()
        self.download = Download(self, found, source, target)
        self.download.begin()
        return True

    def takes_request(self, reader: BodyReader) -> bool:
        """The same for the request."""
        side = self.side
        source, target = side.raw_source(), self.stream.raw_sink()
        found = spliceable(reader, side.services.pipes, source, target)
        if found is None or source is None or target is None:
            return False
        self.sink.upstream_blocked()  # nobody else reads from the client
        self.upload = Upload(self, found, source, target)
        self.upload.begin()
        return True

    def client_emptied(self) -> bool:
        """The client has taken what was written to it. Was that waited for here?"""
        if self.download is None:
            return False
        self.download.sink_emptied()
        return True

    def server_emptied(self) -> bool:
        """The same of the server."""
        if self.upload is None:
            return False
        self.upload.sink_emptied()
        return True

    @property
    def n_upward(self) -> int:
        return self.upload.pending if self.upload is not None else 0

    @property
    def n_downward(self) -> int:
        return self.download.pending if self.download is not None else 0

    def close(self) -> None:
        """Let go of both connections. What is on its way is lost."""
        for splice in (self.download, self.upload):
            if splice is not None:
                splice.close()
        self.download = self.upload = None
