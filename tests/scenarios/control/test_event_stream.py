"""The stream of events of a running daemon: what readers see, and what readers cannot do to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbproxy.control.event_stream import READERS
from tests.support.daemon import Entry, LbProxy
from tests.support.origin import Origin
from tests.support.waiting import PATIENCE_S, wait_until

PATH = "/api/v1/events"
MANY = 500  # servers, so that a state is more than what sockets hold
SLOW_READERS = 100
SENT_BYTES = 64 << 20  # more than what sockets hold
MEMORY_BYTES = 48 << 20  # a state for each of READERS is 12 MB


@dataclass(frozen=True)
class Message:
    """kind: the name of the event. number: its id, "" if it has none."""

    kind: str
    data: Entry
    number: str


class Reader:
    """One connection to the stream."""

    def __init__(self, lb: LbProxy, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", lb.port("admin"), timeout=PATIENCE_S)
        self._connection.request("GET", PATH, headers=dict(headers or {}))
        self.response = self._connection.getresponse()

    def messages(self) -> Iterator[Message]:
        """Until the stream ends; comments are left out. Raises IncompleteRead where it was cut."""
        fields: dict[str, str] = {}
        while line := self.response.readline():
            name, colon, value = line.decode().rstrip("\n").partition(": ")
            if colon and name:
                fields[name] = value
            elif not colon:
                if "data" in fields:
                    yield Message(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}

    def wait(self, kind: str) -> Message:
        """The next message of this kind."""
        return next(message for message in self.messages() if message.kind == kind)

    def close(self) -> None:
        self.response.close()
        self._connection.close()


@contextmanager
def reading(lb: LbProxy, headers: Mapping[str, str] | None = None) -> Iterator[Reader]:
    with closing(Reader(lb, headers)) as reader:
        assert reader.response.status == 200
        yield reader


def config(*servers: str, admin: Mapping[str, object] | None = None) -> dict[str, object]:
    return {
        "admin": {"bind": "127.0.0.1:0", **(admin or {})},
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": list(servers), "health_check": "off"}},
    }


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    with Origin() as origin, LbProxy(config(origin.address, "127.0.0.1:1"), tmp_path_factory.mktemp("lb")) as running:
        yield running


def change(lb: LbProxy, admin: str, server: str = "127.0.0.1:1") -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("admin"), timeout=PATIENCE_S)
    with closing(connection):
        path, body = f"/api/v1/pools/p/servers/{server}", json.dumps({"admin": admin})
        connection.request("PATCH", path, body=body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()


def recent(state: Message) -> list[Entry]:
    """The events that a state holds."""
    events = state.data["recent"]
    assert isinstance(events, list)
    return events


def test_the_head_says_that_it_is_a_stream_and_not_to_keep_it(lb: LbProxy) -> None:
    with reading(lb) as reader:
        head = reader.response
        assert head.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        assert head.getheader("Cache-Control") == "no-store"
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("admin"), timeout=PATIENCE_S)
    with closing(connection):
        connection.request("HEAD", PATH)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")


def test_the_first_message_is_the_status_and_what_was_before(lb: LbProxy) -> None:
    change(lb, "maint")
    change(lb, "ready")
    with reading(lb) as reader:
        first = next(reader.messages())
    assert first.kind == "state"
    assert set(first.data) == {*lb.status(), "recent", "history"}
    assert [event for event in recent(first) if "admin: maint -> ready" in str(event["text"])]


def test_a_drain_is_seen_at_the_next_turn(lb: LbProxy) -> None:
    """A turn is a second, and every turn has its rates, so nothing here depends on the time that the test takes."""
    with reading(lb) as reader:
        messages = reader.messages()
        assert next(messages).kind == "state"
        change(lb, "drain")
        later: list[str] = []
        happened = None
        for message in messages:
            if message.kind == "event" and message.data["kind"] == "live":
                happened = message
                assert message.number
            t = message.data.get("t")
            if message.kind == "rates":
                later.append(f"rates {t}")
            if message.kind == "servers":
                break
        pools = message.data["pools"]
        assert isinstance(pools, list)
        [pool] = pools
        assert [(server["name"], server["state"]) for server in pool["servers"]] == [("127.0.0.1:1", "drain")]
        told = happened or reader.wait("event")
        assert told.data["text"] == "pool p: server 127.0.0.1:1: admin: ready -> drain"
        assert (told.data["by"], told.data["new"]) == ("127.0.0.1", {"admin": "drain"})
        drained_at = told.data["t"]
        assert isinstance(drained_at, float)
        assert [text for text in later if float(text.split()[1]) > drained_at + 0.5][1:] == []
    change(lb, "ready")


def test_rates_are_those_of_the_traffic(lb: LbProxy) -> None:
    with reading(lb) as reader:
        reader.wait("rates")
        connection = http.client.HTTPConnection("127.0.0.1", lb.port("in"), timeout=PATIENCE_S)
        with closing(connection):
            for _ in range(10):
                connection.request("GET", "/")
                assert connection.getresponse().read()
        rps = 0.0
        for message in reader.messages():
            if message.kind == "rates":
                pools = message.data["pools"]
                assert isinstance(pools, dict)
                pool = pools["p"]
                rps += pool["rps"]
                if pool["p50"] is not None and rps > 1.0:
                    break
        assert pool["error_ratio"] == 0.0


def test_who_comes_back_is_told_what_he_missed(lb: LbProxy) -> None:
    change(lb, "ready")
    with reading(lb) as reader:
        number = next(reader.messages()).number
    change(lb, "drain")
    change(lb, "ready")
    with reading(lb, {"Last-Event-ID": number}) as reader:
        messages = reader.messages()
        state = next(messages)
        changes = (message for message in messages if message.data.get("kind") == "live")
        missed = [next(changes), next(changes)]
    assert [event.data["new"] for event in missed] == [{"admin": "drain"}, {"admin": "ready"}]
    assert state.number == number
    seen = [event["t"] for event in recent(state)]
    assert [event for event in missed if event.data["t"] in seen] == [], "it is told twice"


def test_one_reader_too_many_is_told_so_and_may_come_later(tmp_path: Path) -> None:
    with LbProxy(config("127.0.0.1:1"), tmp_path / "lb") as lb, ExitStack() as stack:
        readers = [stack.enter_context(reading(lb)) for _ in range(READERS)]
        for reader in readers:
            assert next(reader.messages()).kind == "state"
        with closing(Reader(lb)) as refused:
            assert refused.response.status == 503
            assert refused.response.getheader("Retry-After") == "5"
            assert "readers of events are connected" in json.loads(refused.response.read())["detail"]
        assert lb.admin_get("/readyz")[0] in (200, 503)
        readers[0].close()

        def is_taken() -> bool:
            with closing(Reader(lb)) as reader:
                return reader.response.status == 200

        wait_until(is_taken, "the place of the one who left")


def test_who_may_not_read_the_status_may_not_read_events(tmp_path: Path) -> None:
    with LbProxy(config("127.0.0.1:1", admin={"token": "s3cret"}), tmp_path / "lb") as lb:
        with closing(Reader(lb, {"Authorization": "Bearer wrong"})) as reader:
            assert reader.response.status == 401
        with closing(Reader(lb, {"Host": "rebound.example"})) as reader:
            assert reader.response.status == 403
        with reading(lb, {"Authorization": "Bearer s3cret", "Host": "rebound.example"}) as reader:
            assert next(reader.messages()).kind == "state"


def test_the_end_of_the_process_is_the_last_message_and_nobody_waits_for_readers(tmp_path: Path) -> None:
    with Origin() as origin, ExitStack() as stack:
        lb = LbProxy(config(origin.address), tmp_path / "lb").start()
        stack.callback(lb.kill)
        readers = [stack.enter_context(reading(lb)) for _ in range(5)]
        followed = [reader.messages() for reader in readers]
        for messages in followed:
            assert next(messages).kind == "state"
        lb.signal(signal.SIGTERM)
        for messages in followed:
            *_, last = messages  # IncompleteRead, had it been cut
            assert (last.kind, last.data["kind"], last.data["new"]) == ("event", "process", "draining")
        wait_until(lambda: not lb.is_running, "the daemon to end")
        assert lb.exit_code == 0
        assert lb.error_lines() == []


def test_what_a_reader_sends_besides_is_not_collected(lb: LbProxy) -> None:
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", lb.port("admin"))) as sock:
        sock.settimeout(PATIENCE_S)
        sock.sendall(request)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        sock.settimeout(1.0)
        n_sent = 0
        with pytest.raises(TimeoutError):
            while n_sent < SENT_BYTES:
                n_sent += sock.send(request * 1000)
    with reading(lb) as reader:
        assert next(reader.messages()).kind == "state"


@pytest.mark.slow
def test_a_hundred_slow_readers_hold_up_nobody(tmp_path: Path) -> None:
    servers = [f"127.0.0.1:{port}-{port + 249}" for port in range(20000, 20000 + MANY, 250)]
    with LbProxy(config(*servers), tmp_path / "lb") as lb, ExitStack() as stack:
        with reading(lb) as reader:
            assert next(reader.messages()).kind == "state"
        before = lb.rss_bytes()
        for _ in range(SLOW_READERS):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(PATIENCE_S)
            sock.connect(("127.0.0.1", lb.port("admin")))
            sock.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lb.admin_get("/healthz")[0] == 200
        assert lb.admin_get("/metrics")[0] == 200
        assert lb.rss_bytes() - before < MEMORY_BYTES
        wait_until(lambda: "a reader of events took nothing for 10 s" in lb.stderr, "the slow ones to be dropped")
        assert lb.rss_bytes() - before < MEMORY_BYTES
        assert lb.admin_get("/healthz")[0] == 200

        def is_taken() -> bool:
            with closing(Reader(lb)) as reader:
                return reader.response.status == 200

        wait_until(is_taken, "a place for one who reads")
        stack.close()
