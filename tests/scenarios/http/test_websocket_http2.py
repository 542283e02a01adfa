"""WebSockets over HTTP/2 (RFC 8441) by others: a client of h2 and wsproto, and Hypercorn, which speaks both."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_http1
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage

from lbproxy.protocol.h2.codes import GOAWAY, PING
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.websocket_server import hypercorn

BIG = os.urandom(3_000_000)


class WebSocket:
    """A stream of extended CONNECT, and what came on it. status: of the answer; has_ended: END_STREAM came."""

    def __init__(self, channel: Channel, number: int) -> None:
        self.channel = channel
        self.number = number
        self.status = 0
        self.fields: dict[str, str] = {}
        self.data = b""
        self.has_ended = False
        self.reset: int | None = None
        self.frames = Connection(ConnectionType.CLIENT)
        self.events: list[Event] = []

    def heard(self, data: bytes) -> None:
        if self.status != 200 or not data:
            self.data += data
            return
        self.frames.receive_data(data)
        self.events.extend(self.frames.events())

    def send(self, event: Event) -> None:
        self.channel.send(self.number, self.frames.send(event))

    def message(self) -> str | bytes:
        """The next one, whole."""
        whole: list[str | bytes] = []
        while True:
            self.channel.wait(lambda: bool(self.events) or self.reset is not None, "a message")
            assert self.events, f"the stream was reset with {self.reset}"
            event = self.events.pop(0)
            if isinstance(event, Message):
                whole.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    return "".join(whole) if isinstance(whole[0], str) else b"".join(whole)  # type: ignore[arg-type]
            elif isinstance(event, Ping):
                self.send(event.response())
            else:
                assert isinstance(event, CloseConnection), event
                return f"closed with {event.code}"

    def text(self, text: str) -> None:
        self.send(TextMessage(data=text))


class Channel:
    """A connection of HTTP/2 by h2."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(PATIENCE_S)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams: dict[int, WebSocket] = {}
        self.is_told_to_go = False
        self._unread = b""
        self.flush()
        self.wait(lambda: self.h2.remote_settings.enable_connect_protocol == 1, "the setting")

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def wait(self, is_there: Callable[[], bool], what: str) -> None:
        while not is_there():
            data = self.sock.recv(65536)
            assert data, f"the connection ended, and there was not {what}"
            for event in self.h2.receive_data(self._without_the_end(data)):
                self._note(event)
            self.flush()

    def _without_the_end(self, data: bytes) -> bytes:
        """Whole frames. h2 takes GOAWAY for the end of everything, and the PING behind it for an error."""
        self._unread += data
        frames = b""
        while len(self._unread) >= 9 and len(self._unread) >= (size := 9 + int.from_bytes(self._unread[:3], "big")):
            frame, self._unread = self._unread[:size], self._unread[size:]
            if frame[3] == GOAWAY:
                self.is_told_to_go = True
            elif frame[3] != PING or not self.is_told_to_go:
                frames += frame
        return frames

    def _note(self, event: h2.events.Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.fields = {str(name): str(value) for name, value in event.headers}
            stream.status = int(stream.fields[":status"])
        elif isinstance(event, h2.events.DataReceived):
            stream.heard(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def send(self, number: int, data: bytes, *, is_end: bool = False) -> None:
        while data:
            self.wait(lambda: self.h2.local_flow_control_window(number) > 0, "a window")
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data))
            self.h2.send_data(number, data[:size])
            data = data[size:]
            self.flush()
        if is_end:
            self.h2.end_stream(number)
            self.flush()

    def open(self, path: str, *fields: tuple[str, str], protocol: str = "websocket") -> WebSocket:
        number = self.h2.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("sec-websocket-version", "13"),
            *fields,
        ]
        self.h2.send_headers(number, head)
        stream = self.streams[number] = WebSocket(self, number)
        self.flush()
        self.wait(lambda: stream.status != 0, "an answer")
        return stream


@dataclass
class Stage:
    lb: LbProxy

    def channel(self) -> Channel:
        return Channel(self.lb.port("web"))


def config(port: int, workers: int) -> dict[str, object]:
    server = {"servers": [f"127.0.0.1:{port}"], "health_check": "off"}
    routes = [
        {"match": {"path_prefix": "/old"}, "pool": "old"},
        {"match": {"path_prefix": "/new"}, "pool": "new"},
        {"match": {"path_prefix": "/off"}, "pool": "old", "upgrade": "off"},
    ]
    return {
        "workers": workers,
        "listeners": [{"name": "web", "bind": "127.0.0.1:0", "routes": routes}],
        "pools": {"old": server, "new": {**server, "protocol": "h2"}},
        "shutdown": {"grace": "60s"},
    }


@pytest.fixture(scope="module", params=[1, 2])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("websocket")
    with hypercorn(folder) as (_, port), LbProxy(config(port, request.param), folder) as lb:
        yield Stage(lb)


@pytest.mark.parametrize(("pool", "version"), [("old", "1.1"), ("new", "2")])
def test_a_client_of_http_2(stage: Stage, pool: str, version: str) -> None:
    path = f"/{pool}/chat-{stage.lb.port('web')}"
    with stage.channel() as channel:
        one = channel.open(path, ("sec-websocket-protocol", "chat"))
        assert one.status == 200 and one.fields["sec-websocket-protocol"] == "chat"
        assert "sec-websocket-accept" not in one.fields
        assert one.message() == version
        other = channel.open(f"/{pool}/other")
        assert other.message() == version
        one.text("hello")
        other.text("there")
        assert (other.message(), one.message()) == ("there", "hello")
        other.send(BytesMessage(data=BIG))
        assert other.message() == BIG
        one.text("bye")
        assert one.message() == "closed with 4000"
        one.send(CloseConnection(code=4000))
        channel.send(one.number, b"", is_end=True)
        channel.wait(lambda: one.has_ended or one.reset is not None, "the end of the stream")
        assert one.has_ended and one.reset is None
        entry = stage.lb.entry(path)
        assert (entry["protocol"], entry["status"]) == ("HTTP/2", 200)
        if pool == "old":  # Hypercorn ends a connection of HTTP/2 as soon as one WebSocket on it is closed
            assert entry["end"] == "ok"
            other.text("still")
            assert other.message() == "still"


@pytest.mark.parametrize(("pool", "version"), [("old", "1.1"), ("new", "2")])
def test_a_client_of_http_1(stage: Stage, pool: str, version: str) -> None:
    url = f"ws://127.0.0.1:{stage.lb.port('web')}/{pool}/one"
    with connect_http1(url, proxy=None, max_size=None, ping_interval=None) as websocket:
        assert websocket.recv() == version
        websocket.send(BIG)
        assert websocket.recv() == BIG


@pytest.mark.parametrize("pool", ["old", "new"])
def test_a_server_that_refuses(stage: Stage, pool: str) -> None:
    with stage.channel() as channel:
        assert channel.open(f"/{pool}/refused").status == 403
        assert channel.open(f"/{pool}/again").message() in ("1.1", "2")
    with pytest.raises(InvalidStatus) as raised:
        connect_http1(f"ws://127.0.0.1:{stage.lb.port('web')}/{pool}/refused", proxy=None)
    assert raised.value.response.status_code == 403


def test_what_is_no_websocket(stage: Stage) -> None:
    with stage.channel() as channel:
        assert channel.open("/old/a", protocol="webtransport").status == 501
        assert channel.open("/off/a").status == 501
        assert stage.lb.entry("/off/a")["end"] == "connect_protocol"


@pytest.mark.parametrize("pool", ["old", "new"])
def test_a_reload_leaves_it_alone(stage: Stage, pool: str) -> None:
    with stage.channel() as channel:
        one = channel.open(f"/{pool}/reloaded")
        one.message()
        stage.lb.signal(signal.SIGHUP)
        with Client(stage.lb.port("web")) as client:
            assert client.ask(b"GET /old/after HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        one.text("still")
        assert one.message() == "still"


def test_the_status_says_how_many_connections_requests_share(stage: Stage) -> None:
    with stage.channel() as channel:
        for _ in range(3):
            channel.open("/new/shown").message()

        def shown() -> bool:
            [server] = stage.lb.server_status("new")
            connections = cast(dict[str, int], server["connections"])
            # another worker may have an idle one, of a test before
            return server["inflight"] == 3 and connections["active"] == 1 and connections["idle"] <= 1

        wait_until(shown, "the status of all workers")
        assert [stage.lb.pool_status(name)["protocol"] for name in ("old", "new")] == ["h1", "h2"]
        assert stage.lb.server_status("old")[0]["connections"] is None


def test_a_client_that_dies_is_gone_at_once(stage: Stage) -> None:
    path = f"/new/dies-{stage.lb.port('web')}"
    with stage.channel() as channel:
        channel.open(path).message()
    assert stage.lb.entry(path)["end"] == "client_abort"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_waits_for_it(tmp_path: Path, workers: int) -> None:
    with hypercorn(tmp_path) as (_, port):
        lb = LbProxy(config(port, workers), tmp_path).start()
        try:
            with Channel(lb.port("web")) as channel:
                one = channel.open("/new/stopped")
                one.message()
                lb.signal(signal.SIGTERM)
                channel.wait(lambda: channel.is_told_to_go, "GOAWAY")
                one.text("bye")
                assert one.message() == "closed with 4000"
                # Hypercorn ends its connection with that and lbproxy, told to stop, the client's
            wait_until(lambda: not lb.is_running, "the end")
            assert lb.exit_code == 0 and lb.entry("/new/stopped")["status"] == 200
        finally:
            lb.kill()
