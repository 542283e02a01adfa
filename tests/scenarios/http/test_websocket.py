"""WebSocket tunnels with a real client and a real server on the two sides of lbproxy."""

from __future__ import annotations

import http
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve
from websockets.uri import parse_uri

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Peer, steps
from tests.support.rig import Rig, get, post
from tests.support.waiting import wait_until

MIB = 1 << 20
IDLE_S = 1.5  # timeouts.tunnel of the listener `idle`
FLOOD = 96  # messages of 1 MiB: above what the library (16) and the kernel (up to 32 + 4 a socket) hold together
BIG = os.urandom(5 * MIB)
SILENT = logging.getLogger("tests.silent")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

Handler = Callable[[ServerConnection], None]


@dataclass
class Stage:
    lb: LbProxy
    handlers: dict[str, Handler]
    closed: list[tuple[str, int | None]]  # path and close code, as the server saw them

    def url(self, path: str, listener: str = "main") -> str:
        return f"ws://127.0.0.1:{self.lb.port(listener)}{path}"

    def open(
        self, path: str, handler: Handler, listener: str = "main", compression: str | None = None
    ) -> ClientConnection:
        """A connection whose server side runs the handler."""
        self.handlers[path] = handler
        return connect(
            self.url(path, listener),
            compression=compression,
            max_size=None,
            proxy=None,
            ping_interval=None,
            logger=SILENT,
        )

    def wait_closed(self, path: str) -> int | None:
        """The close code that the server saw."""
        return wait_until(
            lambda: [code for name, code in self.closed if name == path], f"the server to see the end of {path}"
        )[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    handlers: dict[str, Handler] = {}
    closed: list[tuple[str, int | None]] = []

    def handle(socket: ServerConnection) -> None:
        assert socket.request is not None
        path = socket.request.path
        try:
            handlers[path](socket)
        except ConnectionClosed:
            pass
        finally:
            socket.close()
            closed.append((path, socket.close_code))

    def refuse(socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/refused-"):
            return socket.respond(http.HTTPStatus(int(request.path[9:12])), "refused\n")
        return socket.respond(http.HTTPStatus.OK, "plain\n") if request.path == "/plain" else None

    server = serve(handle, "127.0.0.1", 0, process_request=refuse, max_size=None, ping_interval=None, logger=SILENT)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    pool = {"servers": [f"127.0.0.1:{server.socket.getsockname()[1]}"], "health_check": "off"}
    config: dict[str, object] = {
        "listeners": [
            {"name": "main", "bind": "127.0.0.1:0", "pool": "main"},
            {"name": "idle", "bind": "127.0.0.1:0", "pool": "idle"},
        ],
        "pools": {"main": pool, "idle": {**pool, "timeouts": {"tunnel": f"{IDLE_S}s"}}},
    }
    try:
        with LbProxy(config, tmp_path_factory.mktemp("ws")) as lb:
            yield Stage(lb, handlers, closed)
    finally:
        server.shutdown()
        thread.join(60)


def echo(socket: ServerConnection) -> None:
    for message in socket:
        socket.send(message)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_frames_of_5_mb_both_ways(stage: Stage, compression: str | None) -> None:
    path = f"/echo-{compression}"
    with stage.open(path, echo, compression=compression) as socket:
        for message in (BIG, "text \N{SNOWMAN}", b"", BIG[: MIB + 1]):
            socket.send(message)
            assert socket.recv(timeout=60) == message
    entry = stage.lb.entry(path)
    assert (entry["status"], entry["end"]) == (101, "ok")
    bytes_out = entry["bytes_out"]
    assert isinstance(bytes_out, int) and bytes_out > len(BIG)


def test_both_ways_at_once(rig: Rig) -> None:
    """Neither direction waits for the other: each side sends everything while the other does so too.

    On raw sockets, because the library reads nothing while it writes.
    """
    up, down = BIG * 3, BIG[::-1] * 3
    heard: list[bytes] = []

    def duplex(c: Peer) -> None:
        c.read_request()
        c.send(SWITCHING)
        sender = threading.Thread(target=c.send, args=(down,))
        sender.start()
        heard.append(c.stream.take(len(up)))
        sender.join()

    rig.a.script(duplex)
    with rig.client() as client:
        client.send(get("/duplex", *UPGRADE))
        assert client.response().status == 101
        sender = threading.Thread(target=client.send, args=(up,))
        sender.start()
        assert client.take(len(down)) == down
        sender.join()
        wait_until(lambda: heard, "the server to get everything")
        assert heard == [up]
        assert client.wait_end() == "fin"


def test_the_client_closes(stage: Stage) -> None:
    with stage.open("/client-closes", echo) as socket:
        socket.send("x")
        assert socket.recv(timeout=60) == "x"
        socket.close(1000, "done")
    assert stage.wait_closed("/client-closes") == 1000
    assert (socket.close_code, stage.lb.entry("/client-closes")["end"]) == (1000, "ok")


def test_the_server_closes(stage: Stage) -> None:
    def goes_away(socket: ServerConnection) -> None:
        socket.send("last words")
        socket.close(1001, "going away")

    with stage.open("/server-closes", goes_away) as socket:
        assert socket.recv(timeout=60) == "last words"
        with pytest.raises(ConnectionClosedOK) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "going away")
    assert stage.lb.entry("/server-closes")["end"] == "ok"


def test_a_client_that_is_reset_resets_the_server(stage: Stage) -> None:
    with stage.open("/reset", echo) as socket:
        socket.send("x")
        socket.recv(timeout=60)
        before = stage.lb.metric("client_aborts_total", phase="tunnel")
        socket.socket.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: close means RST
        socket.socket.close()
        assert stage.wait_closed("/reset") == 1006
    assert stage.lb.entry("/reset")["end"] == "client_abort"
    stage.lb.wait_metric("client_aborts_total", before + 1, phase="tunnel")


def test_frames_right_behind_the_101_arrive(stage: Stage) -> None:
    def talks_first(socket: ServerConnection) -> None:
        for number in range(200):
            socket.send(str(number))

    for attempt in range(5):
        with stage.open(f"/talks-first-{attempt}", talks_first) as socket:
            assert [socket.recv(timeout=60) for _ in range(200)] == [str(number) for number in range(200)]


@pytest.mark.parametrize("size", [5, 100, 60_000, 3 * MIB])
def test_a_frame_right_behind_the_request_head_arrives(stage: Stage, size: int) -> None:
    """In one write with the handshake, before the server has agreed; also more than lbproxy reads ahead."""
    got: list[bytes | str] = []

    def reads_one(socket: ServerConnection) -> None:
        got.append(socket.recv())

    path = f"/eager-{size}"
    stage.handlers[path] = reads_one
    protocol = ClientProtocol(parse_uri(stage.url(path)), max_size=None, logger=SILENT)
    protocol.send_request(protocol.connect())
    handshake = b"".join(protocol.data_to_send())
    message = os.urandom(size)
    header = b"\x82" + (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2, "big")
        if size < 65536
        else b"\xff" + size.to_bytes(8, "big")
    )
    frame = header + b"\0\0\0\0" + message  # masked with zeros
    with Client(stage.lb.port("main")) as client:
        client.send(handshake + frame)
        assert client.response().status == 101
        wait_until(lambda: got, "the message to arrive")
    assert got == [message]


def slow_then_counts(held: threading.Event) -> Handler:
    def handler(socket: ServerConnection) -> None:
        held.wait(60)
        total = 0
        for message in socket:
            total += len(message)
            if total == FLOOD * MIB:
                socket.send(str(total))

    return handler


def test_back_pressure_when_the_client_reads_slowly(stage: Stage) -> None:
    sent = []

    def floods(socket: ServerConnection) -> None:
        for number in range(FLOOD):
            socket.send(bytes([number]) * MIB)
            sent.append(number)

    before = stage.lb.rss_bytes()
    stage.handlers["/slow-client"] = floods
    with Client(stage.lb.port("main"), receive_buffer=16 * 1024) as client:
        protocol = ClientProtocol(parse_uri(stage.url("/slow-client")), max_size=None, logger=SILENT)
        protocol.send_request(protocol.connect())
        client.send(b"".join(protocol.data_to_send()))
        assert client.response().status == 101
        settled(sent)
        assert len(sent) < FLOOD, "the server was never held back"
        assert stage.lb.rss_bytes() - before < 6 * MIB, "lbproxy took in what the client does not read"
        for number in range(FLOOD):
            header = client.take(10)
            assert (header[:2], int.from_bytes(header[2:], "big")) == (b"\x82\x7f", MIB)
            assert client.take(MIB) == bytes([number]) * MIB
            client.stream.record.clear()


def settled(sent: list[int]) -> None:
    """Wait until nothing was sent for a while."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.3:
        if len(sent) != seen:
            seen, since = len(sent), time.monotonic()
        time.sleep(0.02)


def test_back_pressure_when_the_server_reads_slowly(stage: Stage) -> None:
    held = threading.Event()
    sent: list[int] = []
    before = stage.lb.rss_bytes()
    with stage.open("/slow-server", slow_then_counts(held)) as socket:

        def floods() -> None:
            for number in range(FLOOD):
                socket.send(b"x" * MIB)
                sent.append(number)

        thread = threading.Thread(target=floods)
        thread.start()
        settled(sent)
        assert len(sent) < FLOOD, "the client was never held back"
        assert stage.lb.rss_bytes() - before < 6 * MIB, "lbproxy took in what the server does not read"
        held.set()
        assert socket.recv(timeout=60) == str(FLOOD * MIB)
        thread.join(60)


def test_an_idle_tunnel_ends_after_the_time_out(stage: Stage) -> None:
    with stage.open("/idle", echo, "idle") as socket:
        started = time.monotonic()
        socket.send("x")
        assert socket.recv(timeout=60) == "x"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)
        assert time.monotonic() - started >= IDLE_S
    assert stage.wait_closed("/idle") == 1006
    assert stage.lb.entry("/idle")["end"] == "tunnel_timeout"


def test_traffic_in_one_direction_keeps_a_tunnel_open(stage: Stage) -> None:
    def ticks(socket: ServerConnection) -> None:
        for number in range(6):
            time.sleep(IDLE_S / 4)
            socket.send(str(number))

    with stage.open("/ticking", ticks, "idle") as socket:
        assert [socket.recv(timeout=60) for _ in range(6)] == [str(number) for number in range(6)]
    assert stage.lb.entry("/ticking")["end"] == "ok"


@pytest.mark.parametrize("status", [200, 403])
def test_a_refused_upgrade_leaves_a_usable_connection(stage: Stage, status: int) -> None:
    path = f"/refused-{status}"
    with pytest.raises(InvalidStatus) as refused:
        stage.open(f"{path}?real", echo)
    assert refused.value.response.status_code == status
    with Client(stage.lb.port("main")) as client:
        for _ in range(2):
            answer = client.ask(get(path, *UPGRADE))
            assert (answer.status, answer.body, answer.is_kept_alive) == (status, b"refused\n", True)
            assert client.ask(get("/plain")).body == b"plain\n"


def test_a_101_that_nobody_asked_for_is_502(rig: Rig) -> None:
    rig.a.script(steps(SWITCHING + b"frames"))
    with rig.client() as client:
        answer = client.ask(get("/unasked"))
        assert answer.status == 502
        assert b"frames" not in client.stream.record
        assert client.ask(get("/after")).body == b"GET /after 0\n"
    assert rig.log("/unasked")["end"] == "bad_upgrade"
    assert rig.grown("upstream_errors_total", reason="bad_response") == 1


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(
    "body", [b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", BIG[:200_000]], ids=["request", "200 kB"]
)
def test_an_h2c_upgrade_with_a_body_is_a_plain_post(rig: Rig, body: bytes, is_chunked: bool) -> None:
    bodies: list[bytes] = []

    def keeps_body(c: Peer) -> None:
        request = c.read_request()
        bodies.append(request.body)
        c.send(c.origin.answer(request))
        c.serve()

    rig.a.script(keeps_body)
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    data = post("/h2c", body, *fields)
    if is_chunked:
        head = post("/h2c", b"", *fields).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with rig.client() as client:
        assert client.ask(data).body == b"POST /h2c %d\n" % len(body)
        assert client.ask(get("/after")).body == b"GET /after 0\n"
    assert bodies == [body]
    assert rig.requests == [("POST", "/h2c"), ("GET", "/after")]
    assert not rig.a.requests[0].all("upgrade") and not rig.a.requests[0].all("http2-settings")
