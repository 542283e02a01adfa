"""The transport between two fakes: a raw connection that the test carries bytes over, and an application that notes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from typing import Any, cast

import pytest

from lbproxy.config.certificates import client_context, server_context
from lbproxy.dataplane.net.record_reader import RecordReader
from lbproxy.dataplane.net.socket_transport import Receiver, SocketTransport
from lbproxy.dataplane.net.tls_transport import ANSWER_BYTES, BARREN_BYTES, PIECE, TlsTransport
from tests.support.certificates import Authority
from tests.support.collector import without_collector
from tests.support.key_updates import KeyUpdates

KIB = 1024


class Loop:
    """call_soon only."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def call_soon(self, function: Any) -> None:
        self.due.append(function)

    def run(self) -> None:
        while self.due:
            self.due.pop(0)()


class Raw(SocketTransport):
    """A raw transport that keeps what is written until the test delivers it."""

    def __init__(self, protocol: TlsTransport) -> None:
        self.protocol: asyncio.BaseProtocol = protocol
        self.out = b""
        self.n_writes = 0
        self.events: list[str] = []
        self.reads = True

    def write(self, data: Any) -> None:
        self.out += data
        self.n_writes += 1

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        self.events.append("fin")

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.events or "abort" in self.events

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return len(self.out)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.events.append(f"limits {high}")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 5)}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @property
    def is_read_in_bulk(self) -> bool:
        return isinstance(self.protocol, RecordReader)

    def deliver(self, data: bytes, piece: int = PIECE) -> None:
        """What the peer sent arrives, at most so much at once, as one or the other kind of protocol takes it."""
        while data:
            part = data[:piece]
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = memoryview(self.protocol.get_buffer(-1))
                part = part[: len(buffer)]
                buffer[: len(part)] = part
                self.protocol.buffer_updated(len(part))
            else:
                cast(asyncio.Protocol, self.protocol).data_received(part)
            data = data[len(part) :]


class App(Receiver):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.events: list[str] = []
        self.stays_open = False
        self.on_data: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(TlsTransport, transport)
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        if self.on_data is not None:
            self.on_data()

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__}" if exc else "lost")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    @property
    def data(self) -> bytes:
        return b"".join(self.received)


class Client:
    """A client of memory that sends key updates (support/key_updates.py)."""

    def __init__(self, authority: Authority, keylog: Path) -> None:
        files = authority.issue("updates", "localhost")
        context, _ = server_context(
            files.cert, files.key, min_version="1.3", alpn=(), client_ca=None, client_verify="off"
        )
        self.app = App()
        self.server = Server(self.app)
        self.raw = Raw(self.server)
        self.server.connection_made(cast(Any, self.raw))
        self.server.begin(context, is_server=True)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.trusting(keylog_filename=str(keylog)).wrap_bio(incoming, outgoing, server_hostname="localhost")
        while "made" not in self.app.events:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            self.server.data_received(outgoing.read())
            incoming.write(self.raw.out)
            self.raw.out = b""
        cipher = tls.cipher()
        assert cipher is not None
        self.records = KeyUpdates(keylog, cipher[0])

    @property
    def was_ended(self) -> bool:
        return "abort" in self.raw.events


class Server(TlsTransport):
    def __init__(self, app: App) -> None:
        super().__init__(cast(Any, Loop()), lambda where, error: pytest.fail(f"{where}: {error!r}"))
        self.waiting = app

    def _handshake_done(self) -> None:
        self.start(self.waiting)


class Buffered(asyncio.BufferedProtocol):
    """Stands in for an App, as a BulkReader does."""

    def __init__(self, size: int) -> None:
        self.buffer = memoryview(bytearray(size))
        self.sizes: list[int] = []
        self.data = b""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.sizes.append(nbytes)
        self.data += bytes(self.buffer[:nbytes])


class End(TlsTransport):
    __slots__ = ("app", "defects", "failure")

    def __init__(self, loop: Loop) -> None:
        super().__init__(cast(asyncio.AbstractEventLoop, loop), self._note)
        self.defects: list[BaseException] = []
        self.app = App()
        self.failure: Exception | None = None

    def _note(self, where: str, error: BaseException) -> None:
        self.defects.append(error)

    def _handshake_done(self) -> None:
        self.start(self.app)

    def _handshake_failed(self, error: Exception) -> None:
        self.failure = error


class Bench:
    """Both ends, connected."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.loop = Loop()
        self.server, self.client = End(self.loop), End(self.loop)
        self.server_raw, self.client_raw = Raw(self.server), Raw(self.client)
        self.server.connection_made(cast(asyncio.BaseTransport, self.server_raw))
        self.client.connection_made(cast(asyncio.BaseTransport, self.client_raw))
        self.server.begin(server, is_server=True)
        self.client.begin(client, is_server=False, name="localhost")
        self.carry()

    def carry(self, piece: int = PIECE) -> None:
        """Deliver until both are quiet."""
        while self.server_raw.out or self.client_raw.out or self.loop.due:
            self.to_server(piece)
            out, self.server_raw.out = self.server_raw.out, b""
            self.client_raw.deliver(out, piece)
            self.loop.run()

    def to_server(self, piece: int = PIECE) -> None:
        self.loop.run()
        out, self.client_raw.out = self.client_raw.out, b""
        self.server_raw.deliver(out, piece)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def contexts(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    files = authority.issue("server", "localhost")
    server, _ = server_context(
        files.cert, files.key, min_version="1.2", alpn=["http/1.1"], client_ca=None, client_verify="off"
    )
    return server, client_context(verify=True, ca=authority.ca, cert=None, key=None)


@pytest.fixture
def bench(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Bench:
    return Bench(*contexts)


def test_the_application_comes_after_the_handshake(bench: Bench) -> None:
    assert bench.server.app.events == bench.client.app.events == ["made"]
    assert bench.server.ssl_object.version() == "TLSv1.3"
    assert bench.server.get_extra_info("peername") == ("10.0.0.1", 5)
    assert bench.server.get_extra_info("ssl_object") is bench.server.ssl_object
    assert bench.client.get_extra_info("peercert")["subjectAltName"] == (("DNS", "localhost"),)
    bench.server.set_write_buffer_limits(high=7)
    assert bench.server_raw.events == ["limits 7"]


@pytest.mark.parametrize("piece", [1, 100, PIECE])
def test_small_messages(bench: Bench, piece: int) -> None:
    bench.client.write(b"hello")
    bench.carry(piece)
    assert bench.server.app.received == [b"hello"]
    bench.server.write(memoryview(b"good day"))
    bench.server.write(b"")
    bench.carry(piece)
    assert bench.client.app.received == [b"good day"]


@pytest.mark.parametrize("size", [16 * KIB, 16 * KIB + 1, 100 * KIB, PIECE, PIECE + 1, 700 * KIB + 3])
@pytest.mark.parametrize("piece", [1000, 20 * KIB, PIECE, 250 * KIB])
def test_long_messages(bench: Bench, size: int, piece: int) -> None:
    data = os.urandom(size)
    bench.client.write(data)
    bench.carry(piece)
    assert bench.server.app.data == data


def test_records_that_come_together_are_one_piece(bench: Bench) -> None:
    """The application sees that a body is large by what it gets at once."""
    bench.client.write(os.urandom(100 * KIB))
    bench.carry()
    assert max(map(len, bench.server.app.received)) >= 48 * KIB


@pytest.mark.parametrize("room", [10 * KIB, 64 * KIB, 250 * KIB])
def test_a_buffered_protocol(bench: Bench, room: int) -> None:
    data = os.urandom(500 * KIB + 17)
    reader = Buffered(room)
    bench.server.set_protocol(reader)
    bench.client.write(data)
    bench.carry()
    assert reader.data == data
    assert max(reader.sizes) <= room
    bench.server.set_protocol(bench.server.app)
    bench.client.write(b"after")
    bench.carry()
    assert bench.server.app.received == [b"after"]


def test_what_was_decrypted_waits_while_reading_is_paused(bench: Bench) -> None:
    """Several requests in one segment: the first one pauses, the others must come afterwards."""
    app = bench.server.app
    app.on_data = bench.server.pause_reading
    bench.server.set_protocol(app)
    for number in range(20):
        bench.client.write(b"%d" % number * 16 * KIB)
    bench.to_server()
    assert not bench.server_raw.reads
    first = len(app.data)
    assert first < 200 * KIB
    app.on_data = None
    bench.server.resume_reading()
    bench.loop.run()
    assert app.data == b"".join(b"%d" % number * 16 * KIB for number in range(20))
    assert bench.server_raw.reads


def test_an_end_behind_data_that_waits(bench: Bench) -> None:
    app = bench.server.app
    app.on_data = bench.server.pause_reading
    bench.client.write(b"x" * 200 * KIB)
    bench.client.close()
    bench.to_server()
    assert "eof" not in app.events
    app.on_data = None
    bench.server.resume_reading()
    bench.loop.run()
    assert app.data == b"x" * 200 * KIB
    assert app.events == ["made", "eof"]
    assert bench.server.has_close_notify


def test_close_sends_close_notify(bench: Bench) -> None:
    bench.client.write(b"bye")
    bench.client.close()
    bench.client.close()
    assert bench.client_raw.events == ["close"]
    assert bench.client.is_closing()
    bench.carry()
    assert bench.server.app.received == [b"bye"]
    assert bench.server.has_close_notify
    assert bench.server.app.events == ["made", "eof"]
    assert bench.server_raw.events == ["close"]  # the application did not want to stay


def test_an_abort_sends_nothing(bench: Bench) -> None:
    bench.client.abort()
    assert bench.client_raw.out == b""
    assert bench.client_raw.events == ["abort"]
    bench.client.write(b"too late")
    assert bench.client_raw.out == b""


def test_a_fin_without_close_notify_shows(bench: Bench) -> None:
    bench.server.app.stays_open = True
    assert bench.server.eof_received()
    assert bench.server.app.events == ["made", "eof"]
    assert not bench.server.has_close_notify


def test_one_direction_ends_and_the_other_goes_on(bench: Bench) -> None:
    bench.server.app.stays_open = True
    assert bench.client.can_write_eof()
    bench.client.write(b"question")
    bench.client.write_eof()
    bench.client.write(b"ignored")
    bench.carry()
    assert bench.client_raw.events == ["fin"]
    assert bench.server.app.data == b"question"
    assert bench.server.app.events == ["made", "eof"]
    bench.server.write(b"answer" * 10_000)
    bench.carry()
    assert bench.client.app.data == b"answer" * 10_000
    bench.server.close()
    bench.carry()
    assert bench.client.has_close_notify
    assert bench.client.app.events == ["made", "eof"]


def test_an_end_while_data_is_on_its_way_loses_nothing(bench: Bench) -> None:
    bench.client.app.stays_open = True
    bench.server.write(b"a" * 300 * KIB)
    bench.client.write_eof()
    bench.carry()
    assert bench.client.app.data == b"a" * 300 * KIB


def test_a_forged_record_ends_the_connection(bench: Bench) -> None:
    bench.client.write(b"hello")
    bench.loop.run()
    forged = bytearray(bench.client_raw.out)
    forged[-1] ^= 1
    bench.server_raw.deliver(bytes(forged))
    assert bench.server_raw.events == ["abort"]
    assert bench.server_raw.out  # the alert
    bench.server.connection_lost(None)
    assert bench.server.app.events == ["made", "lost SSLError"]
    assert bench.server.app.received == []


def test_what_ended_it_does_not_keep_it(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """An exception knows, by its traceback, the frames that it passed, and they know the connection."""
    with without_collector() as gone:
        bench = Bench(*contexts)
        bench.server_raw.deliver(b"GET / HTTP/1.1\r\n\r\n")
        bench.server.connection_lost(None)
        assert bench.server.app.events == ["made", "lost SSLError"]
        # What knows it in this test only.
        bench.server_raw.protocol = bench.server.app.transport = bench.server._defect = cast(Any, None)
        gone.watch(bench.server)
        del bench


def test_plain_text_behind_the_handshake_ends_the_connection(bench: Bench) -> None:
    bench.server_raw.deliver(b"GET / HTTP/1.1\r\n\r\n")
    assert bench.server_raw.events == ["abort"]


def test_the_end_of_the_raw_connection_is_passed_on_once(bench: Bench) -> None:
    bench.server.connection_lost(ConnectionResetError())
    bench.server.connection_lost(None)
    assert bench.server.app.events == ["made", "lost ConnectionResetError"]
    assert bench.server.is_closing()
    bench.server.write(b"ignored")
    bench.server.close()


def test_nothing_holds_openssl_s_memory_after_the_end(bench: Bench) -> None:
    bench.server.connection_lost(None)
    assert bench.server.ssl_object is None
    assert bench.server._app is None


def test_back_pressure_is_passed_on(bench: Bench) -> None:
    bench.server.pause_writing()
    bench.server.resume_writing()
    assert bench.server.app.events == ["made", "pause", "resume"]
    assert bench.server.get_write_buffer_size() == len(bench.server_raw.out)


def test_bytes_on_the_wire_are_counted(bench: Bench) -> None:
    before = bench.client.wire_written
    bench.client.write(b"x" * 100)
    bench.loop.run()
    assert bench.client.wire_written - before == len(bench.client_raw.out) > 100


@pytest.mark.parametrize("how", ["eof", "lost", "garbage"])
def test_a_failed_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext], how: str) -> None:
    server = End(Loop())
    raw = Raw(server)
    server.connection_made(cast(asyncio.BaseTransport, raw))
    server.begin(contexts[0], is_server=True)
    server.pause_writing()
    if how == "eof":
        server.eof_received()
    elif how == "lost":
        server.connection_lost(None)
    else:
        raw.deliver(b"\0" * 100)
    assert isinstance(server.failure, ssl.SSLError if how == "garbage" else ConnectionResetError)
    assert server.app.events == []


def test_nothing_is_written_behind_our_own_end(bench: Bench) -> None:
    bench.client.app.stays_open = True
    bench.client.write_eof()
    bench.client_raw.out = b""
    bench.client_raw.deliver(b"\x17\x03\x03\x00\x20" + b"\0" * 32)  # no record of this session: an alert is due
    assert bench.client_raw.out == b""
    assert bench.client_raw.events == ["fin", "abort"]


def test_a_defect_is_confined_to_its_connection(bench: Bench) -> None:
    def breaks() -> None:
        raise ZeroDivisionError

    bench.server.app.on_data = breaks
    bench.client.write(b"hello")
    bench.to_server()
    assert [type(error) for error in bench.server.defects] == [ZeroDivisionError]
    assert bench.server_raw.events == ["abort"]


def test_what_comes_after_the_end_is_not_kept(bench: Bench) -> None:
    bench.server.abort()
    bench.server_raw.deliver(b"x" * 1000)
    assert bench.server._incoming.pending == 0


def test_large_reads_go_into_a_buffer_that_is_shared_until_they_are_small(bench: Bench) -> None:
    bench.client.write(b"small")
    bench.to_server()
    assert not bench.server_raw.is_read_in_bulk
    bench.client.write(os.urandom(650 * KIB))
    bench.to_server(250 * KIB)
    assert bench.server_raw.is_read_in_bulk
    bench.client.write(b"small")
    bench.to_server()
    assert not bench.server_raw.is_read_in_bulk
    bench.client.write(b"small")
    bench.to_server()
    assert bench.server.app.received[-2:] == [b"small", b"small"]


def test_a_connection_that_ends_at_a_large_read_is_left_alone(bench: Bench) -> None:
    bench.server_raw.close()
    bench.client.write(os.urandom(100 * KIB))
    bench.to_server(250 * KIB)
    assert not bench.server_raw.is_read_in_bulk


def test_the_rest_of_a_large_read_waits_while_reading_is_paused(bench: Bench) -> None:
    """It is kept as it came: OpenSSL's buffer would keep the size that it once had."""
    app, data = bench.server.app, os.urandom(400 * KIB)
    app.on_data = bench.server.pause_reading
    bench.client.write(data)
    out = bench.client_raw.out
    bench.client_raw.out = b""
    bench.server_raw.deliver(out[: 250 * KIB], 250 * KIB)
    assert len(app.data) <= PIECE
    assert bench.server._incoming.pending <= PIECE
    while len(app.data) < 200 * KIB:  # the application takes a piece and pauses again
        before = len(app.data)
        bench.server.resume_reading()
        bench.loop.run()
        assert before < len(app.data) <= before + 2 * PIECE
    app.on_data = None
    bench.server.resume_reading()
    bench.loop.run()
    assert bench.server_raw.reads
    bench.server_raw.deliver(out[250 * KIB :], 250 * KIB)
    assert app.data == data


def test_what_follows_close_notify_is_not_kept(bench: Bench) -> None:
    bench.server.app.stays_open = True
    bench.client.write_eof()
    bench.carry()
    assert bench.server.has_close_notify
    for size in (100, 250 * KIB):
        bench.server_raw.deliver(os.urandom(size), 250 * KIB)
    assert bench.server._incoming.pending == 0
    assert bench.server_raw.events == []


# --- records without data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_request", [True, False])
@pytest.mark.parametrize("piece", [100, PIECE])
def test_key_updates_in_a_row_are_bounded(authority: Authority, tmp_path: Path, is_request: bool, piece: int) -> None:
    client = Client(authority, tmp_path / "keys")
    flood = b"".join(client.records.update(is_request=is_request) for _ in range(8000))
    for at in range(0, len(flood), piece):
        if client.was_ended:
            break
        client.raw.deliver(flood[at : at + piece], piece)
        client.raw.out = b""  # it reads
    assert client.was_ended and at <= BARREN_BYTES + 2 * piece


def test_their_answers_are_bounded_while_the_client_does_not_read(authority: Authority, tmp_path: Path) -> None:
    """Data between them is no excuse."""
    client = Client(authority, tmp_path / "keys")
    while not client.was_ended:
        client.raw.deliver(client.records.update() + client.records.record(b"x"))
        assert len(client.raw.out) <= ANSWER_BYTES + 100
    assert len(client.app.data) > 100


@pytest.mark.parametrize("size", [1, 50_000])
def test_key_updates_between_data_are_answered(authority: Authority, tmp_path: Path, size: int) -> None:
    client = Client(authority, tmp_path / "keys")
    for _ in range(1500):
        client.raw.deliver(client.records.update(), 10)
        for _ in range(0, size, 10_000):
            client.raw.deliver(client.records.record(b"y" * min(size, 10_000)), 2000)
        client.server.write(b"a")  # OpenSSL answers with this, or with the next update
        assert len(client.raw.out) >= 50
        client.raw.out = b""
    assert not client.was_ended and len(client.app.data) == 1500 * size


def test_an_answer_to_a_key_update_is_no_progress(authority: Authority, tmp_path: Path) -> None:
    client = Client(authority, tmp_path / "keys")
    client.server.write(b"z" * 1000)
    taken = client.server.taken(1000)
    for _ in range(3):
        client.raw.deliver(client.records.update())
        assert client.server.taken(1000) == taken
    client.raw.out = client.raw.out[100:]
    assert client.server.taken(1000) == taken + 100
