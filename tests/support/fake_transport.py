"""The data plane without sockets and without a loop: a client, servers and a clock that a test moves by hand.

The transports behave as those of uvloop where lbproxy depends on it: `connection_lost` comes a turn later, a finished
transport raises, bytes behind a pause stay in the kernel. Everything runs in the test's own thread, so each
interleaving can be written down as a transcript:

    with FakeLb() as lb:
        client = lb.connect()
        client.send(b"GET / HTTP/1.1 ...")
        server = lb.accept()                  # the dial succeeds
        assert server.got().startswith(b"GET / ")
        server.send(b"HTTP/1.1 200 OK ...")
        assert client.got().startswith(b"HTTP/1.1 200 OK")

Leaving the block closes the clients and checks the books: no lease is out, nothing is swept any more, every connection
is counted, and no defect was reported.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import heapq
import json
import os
import random
import socket
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Self, cast

from lbproxy.address import Address
from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.listener import Listener
from lbproxy.dataplane.net.dialer import Dialer, Opening
from lbproxy.dataplane.net.socket_transport import SocketTransport
from lbproxy.dataplane.runtime import PoolRuntime, ServerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.errors import CONNECT_REFUSED, Fault
from lbproxy.process.wiring import Wiring
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.slots import LISTENER, POOL, PROCESS, SERVER, Slots

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app: {servers: ["127.0.0.1:9001", "127.0.0.1:9002"], strategy: round_robin, health_check: off}
"""
CLIENT = ("192.0.2.7", 40000)
BACKOFF_S = 0.25  # the longest pause before a retry


class FakeClock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLoop:
    """As much of a loop as the data plane uses. Exceptions of callbacks reach the test."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.dials: list[Dial] = []
        self._ready: list[Callable[[], object]] = []
        self._timers: list[tuple[float, int, FakeHandle]] = []
        self._readers: dict[int, Callable[[], object]] = {}
        self._order = 0

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self._ready.append(functools.partial(callback, *args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> FakeHandle:
        handle = FakeHandle(functools.partial(callback, *args))
        self._order += 1
        heapq.heappush(self._timers, (self.clock.now + delay, self._order, handle))
        return handle

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:
        self._readers[fd] = functools.partial(callback, *args)

    def remove_reader(self, fd: int) -> bool:
        return self._readers.pop(fd, None) is not None

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], address: object
    ) -> tuple[FakeTransport, asyncio.Protocol]:
        dial = Dial(self, factory, address)
        self.dials.append(dial)
        try:
            return await dial
        except BaseException:
            # A dial that is cancelled after the connection was made closes it.
            if dial in self.dials:
                self.dials.remove(dial)
            if dial.transport is not None:
                dial.transport.close()
            raise

    def turn(self) -> None:
        """One turn: what is ready now, and readers; what becomes ready meanwhile waits for the next turn."""
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()
        for reader in list(self._readers.values()):
            reader()

    def run(self) -> None:
        """Turn until nothing is ready."""
        self.turn()
        for _ in range(10_000):
            if not self._ready:
                return
            self.turn()
        raise AssertionError("the loop never becomes idle")

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the timers on the way."""
        end = self.clock.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, handle = heapq.heappop(self._timers)
            self.clock.now = max(self.clock.now, at)
            if not handle.is_cancelled:
                handle.callback()
            self.run()
        self.clock.now = end


class FakeHandle:
    """What `call_later` returns."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeTask:
    """A coroutine that only ever waits for a Dial."""

    def __init__(self, loop: FakeLoop, coroutine: Coroutine[Any, Any, Any], crashed: Callable[[BaseException], None]):
        self._loop = loop
        self._coroutine = coroutine
        self._crashed = crashed
        self._must_cancel = False
        self.is_done = False
        loop.call_soon(self.step)

    def cancel(self) -> bool:
        if self.is_done:
            return False
        self._must_cancel = True
        self._loop.call_soon(self.step)
        return True

    def step(self) -> None:
        if self.is_done:
            return
        try:
            dial = self._coroutine.throw(asyncio.CancelledError()) if self._must_cancel else self._coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            self.is_done = True
        except Exception as error:
            self.is_done = True
            self._crashed(error)
        else:
            dial.waiter = self


class FakeTasks(Tasks):
    """Stands for lbproxy.tasks.Tasks."""

    def __init__(self, loop: FakeLoop, crashed: Callable[[BaseException], None]) -> None:
        super().__init__(crashed)
        self._loop = loop
        self._crashed = crashed

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return cast("asyncio.Task[Any]", FakeTask(self._loop, coroutine, self._crashed))


class FakeSocket:
    """The read end of a pipe: it can be polled and duplicated, and `hang_up` shows in both."""

    def __init__(self) -> None:
        self.family = socket.AF_INET
        self._read, self._write = os.pipe()
        self.options: list[tuple[int, int, object]] = []
        self.bytes_acked = 1  # the SYN
        self.is_reset = False

    def fileno(self) -> int:
        return self._read

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.options.append((level, option, value))

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        if option == socket.SO_ERROR and level == socket.SOL_SOCKET:
            return errno.ECONNRESET if self.is_reset else 0
        if self.is_reset:
            return bytes([7]) + bytes(size)  # TCP_CLOSE
        return bytes(120) + self.bytes_acked.to_bytes(8, "little") + bytes(size - 128)

    def hang_up(self) -> None:
        """The kernel has the peer's FIN; the loop has not read it."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        self.hang_up()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1


class FakeTransport(SocketTransport):
    """Records what a protocol does to its connection."""

    def __init__(
        self,
        loop: FakeLoop,
        protocol: asyncio.Protocol,
        peer: object,
        local: object,
        *,
        sock: FakeSocket | None = None,
    ) -> None:
        self._loop = loop
        self.sock = sock or FakeSocket()
        self._info = {"peername": peer, "sockname": local, "socket": self.sock}
        self._is_closing = False
        self._inbox: list[bytes | None] = []
        self.protocol: asyncio.Protocol | asyncio.BufferedProtocol = protocol
        self.calls: list[str] = []  # pause_reading, resume_reading, write_eof, close, abort
        self.written: list[bytes] = []
        self.unsent = 0  # what get_write_buffer_size says
        self.is_lost = False
        self.reads_at_most = 0
        self.is_behind = False
        self.has_eof = False
        self.sees_end = False  # watch_end was called
        self.on_fin: Callable[[], None] | None = None

    @property
    def is_paused(self) -> bool:
        switches = [call for call in self.calls if call.endswith("_reading")]
        return switches[-1:] == ["pause_reading"]

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return self._info.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol | asyncio.BufferedProtocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def _ensure_alive(self) -> None:
        if self.is_lost:
            raise RuntimeError("the handler is closed")

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self._ensure_alive()
        if "write_eof" in self.calls:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self._is_closing:
            self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[int]]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ensure_alive()
        if not self._is_closing:
            self.calls.append("write_eof")

    def expect_nothing(self) -> None:
        self._ensure_alive()
        self.calls.append("expect_nothing")

    def get_write_buffer_size(self) -> int:
        return 0 if self.is_lost else self.unsent

    def taken(self, written: int) -> int:
        return written - self.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._ensure_alive()

    def close(self) -> None:
        self._over("close")

    def abort(self) -> None:
        self.unsent = 0
        self._over("abort")

    def _over(self, call: str) -> None:
        if not self._is_closing:
            self.calls.append(call)
            self._is_closing = True
            self._loop.call_soon(self.lose, None)

    def lose(self, error: Exception | None) -> None:
        """The connection is over; the protocol hears of it once."""
        if not self.is_lost:
            self._is_closing = True
            try:
                self.protocol.connection_lost(error)
            finally:
                self.is_lost = True
                self.sock.close()
                self.protocol = asyncio.Protocol()  # a transport that is lost knows its protocol no more

    # --- reading ----------------------------------------------------------------------------------------------------

    def stand_behind(self, *, is_behind: bool) -> None:
        self.is_behind = is_behind

    def read_at_most(self, size: int) -> None:
        self._ensure_alive()
        self.reads_at_most = size

    def pause_reading(self) -> None:
        self._ensure_alive()
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self._ensure_alive()
        self.calls.append("resume_reading")
        self.sees_end, self.on_fin = False, None
        self._loop.call_soon(self._deliver)

    @property
    def has_unread(self) -> bool:
        return bool(self._inbox)

    def watch_end(self, on_fin: Callable[[], None] | None) -> None:
        self._ensure_alive()
        self.sees_end, self.on_fin = True, on_fin

    def receive(self, data: bytes | None) -> None:
        """Bytes arrive, or a FIN (None)."""
        self._inbox.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and not self.is_paused and not self._is_closing:
            data = self._inbox.pop(0)
            if data is None:
                self.has_eof = True
                if not self.protocol.eof_received():
                    self.close()
            elif isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = memoryview(self.protocol.get_buffer(-1))
                size = min(len(data), len(buffer))
                buffer[:size] = data[:size]
                if data[size:]:
                    self._inbox.insert(0, data[size:])
                self.protocol.buffer_updated(size)
            else:
                if self.reads_at_most and data[self.reads_at_most :]:
                    self._inbox.insert(0, data[self.reads_at_most :])
                    data = data[: self.reads_at_most]
                self.protocol.data_received(data)


class Dial:
    """A connection attempt that waits for the test's verdict."""

    def __init__(self, loop: FakeLoop, factory: Callable[[], asyncio.Protocol], address: object) -> None:
        self._loop = loop
        self._factory = factory
        self.address = address
        self.waiter: FakeTask | None = None
        self.transport: FakeTransport | None = None
        self._result: tuple[FakeTransport, asyncio.Protocol] | None = None
        self._error: OSError | None = None

    def __await__(self) -> Generator[Dial, None, tuple[FakeTransport, asyncio.Protocol]]:
        while self._result is None and self._error is None:
            yield self
        if self._result is None:
            assert self._error is not None
            try:
                raise self._error
            finally:
                self._error = None  # its traceback knows this object
        return self._result

    def succeed(self) -> Peer:
        """The kernel has the connection: `connection_made` is called, and the dialling task runs a turn later."""
        protocol = self._factory()
        self.transport = FakeTransport(self._loop, protocol, self.address, ("127.0.0.1", 50000))
        protocol.connection_made(self.transport)
        self._result = self.transport, protocol
        self._wake()
        return Peer(self._loop, self.transport)

    def fail(self, number: int) -> None:
        self._error = OSError(number, os.strerror(number))
        self._wake()

    def _wake(self) -> None:
        self._loop.dials.remove(self)
        if self.waiter is not None:
            self._loop.call_soon(self.waiter.step)


class FakeOpening(Opening):
    """Stands for dialer.Opening. At once: the kernel has connected it already."""

    def __init__(self, loop: FakeLoop, address: Address, accepted: list[Peer] | None) -> None:
        self._loop = loop
        self._target = address.sock_path if address.is_unix else (address.host, address.port)
        self._accepted = accepted
        self.is_open = accepted is not None

    def attach(self, protocol: Any) -> Any:
        assert self._accepted is not None
        transport = FakeTransport(self._loop, protocol, self._target, ("127.0.0.1", 50000))
        self._accepted.append(Peer(self._loop, transport))
        protocol.connection_made(transport)
        return protocol

    async def connect(self, factory: Callable[[], Any], header: bytes) -> Any:
        _, protocol = await self._loop.connect(factory, self._target)
        return protocol


class FakeDialer(Dialer):
    """Stands for dialer.Dialer. With `at_once` dials succeed in the turn in which they begin, into that list."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.at_once: list[Peer] | None = None

    def begin(self, address: Address) -> FakeOpening:
        return FakeOpening(self._loop, address, self.at_once)


class Peer:
    """The other end of a FakeTransport. Each act lets the loop run until it is idle, unless `turns` is False."""

    def __init__(self, loop: FakeLoop, transport: FakeTransport) -> None:
        self._loop = loop
        self.transport = transport
        self._seen = 0

    def _acted(self, turns: bool) -> None:
        if turns:
            self._loop.run()

    def send(self, *pieces: bytes, turns: bool = True) -> None:
        """Send segments, one after the other."""
        for piece in pieces:
            self.transport.receive(piece)
            self._acted(turns)

    def fin(self, *, turns: bool = True) -> None:
        """Shut down writing."""
        self.transport.receive(None)
        self._acted(turns)

    def reset(self, *, turns: bool = True) -> None:
        """Send RST."""
        self.transport.lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        self._acted(turns)

    def leave_unseen(self, *, by_reset: bool = False) -> None:
        """Leave while the transport is paused, or behind a FIN: only who watches the end can tell."""
        transport = self.transport
        assert transport.is_paused or transport.has_eof, "this is seen by reading"
        if transport.sees_end and by_reset:
            transport.lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif transport.sees_end and transport.on_fin is not None:
            on_fin, transport.on_fin = transport.on_fin, None
            on_fin()
        self._loop.run()

    def stop_reading(self, unsent: int = 1 << 20) -> None:
        """The other side's write buffer fills up."""
        self.transport.unsent = unsent
        self.transport.protocol.pause_writing()
        self._loop.run()

    def read_again(self) -> None:
        self.transport.unsent = 0
        self.transport.protocol.resume_writing()
        self._loop.run()

    def got(self) -> bytes:
        """What arrived since the last call."""
        new = self.transport.written[self._seen :]
        self._seen += len(new)
        return b"".join(new)

    @property
    def everything(self) -> bytes:
        return b"".join(self.transport.written)

    @property
    def is_open(self) -> bool:
        """Neither closed nor aborted by lbproxy."""
        return not self.transport.is_closing()

    @property
    def saw_fin(self) -> bool:
        """lbproxy ended its side cleanly."""
        calls = self.transport.calls
        return "write_eof" in calls or ("close" in calls and not self.saw_reset)

    @property
    def saw_reset(self) -> bool:
        calls = self.transport.calls
        lingers = [option for option in self.transport.sock.options if option[1] == socket.SO_LINGER]
        return "abort" in calls and bool(lingers)


class FakeWriter(LogWriter):
    """Stands for the access log's writer."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.recent = None

    def append(self, line: str) -> None:
        self.lines.append(line)

    def flush_soon(self) -> None:
        pass


@functools.lru_cache
def _config(text: str) -> Config:
    return load_text(text, "test.yaml", {}).config


class FakeLb:
    """A listener, its pools and their servers, wired as the daemon wires them."""

    def __init__(self, config: str = CONFIG) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.writer = FakeWriter()
        self.dial_faults: list[tuple[str, Fault]] = []
        self.strategy_errors: list[Exception] = []
        self.clients: list[Peer] = []
        self.servers: list[Peer] = []
        loaded = _config(config)
        slots = Slots()
        self.services = Services(
            cast(asyncio.AbstractEventLoop, self.loop),
            slots.allocate(PROCESS),
            access_writer=self.writer,
            buffered_limit=loaded.limits.buffered_bytes,
            clock=self.clock,
        )
        self.services.dialer = FakeDialer(self.loop)
        self.services.tasks = FakeTasks(self.loop, self.services.task_crashed)
        self.wiring = Wiring(
            loaded,
            slots,
            Registry("test"),
            rng=random.Random(1),
            dial_failed=self._dial_failed,
            strategy_failed=lambda pool, error: self.strategy_errors.append(error),
            base_dir=".",
        )
        self.wiring.build_pools()
        self.gate = ConnectionGate(1000)
        self.listener = Listener(self.services, self.wiring.build_listener(loaded.listeners[0]), self.gate)
        self.services.on_sweep.append(self.wiring.sweep)
        self.services.start()

    def _dial_failed(self, pool: Pool, server: Server, fault: Fault) -> None:
        """What the controller does at once: a refusal is believed."""
        self.dial_faults.append((server.name, fault))
        if fault is CONNECT_REFUSED:
            pool.server_refused(server, self.clock())

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            for peer in self.clients + self.servers:
                peer.transport.sock.close()
            self.services.poller.close()

    def check(self) -> None:
        """End all clients, then the books must be even."""
        for client in self.clients:
            if not client.transport.is_lost:
                client.reset()
        for dial in list(self.loop.dials):  # a dial that nobody waits for any more ends by being cancelled
            raise AssertionError(f"a dial to {dial.address} was forgotten")
        self.loop.run()
        row = self.services.row
        assert row[PROCESS.column("internal_errors_total")] == 0, "a defect was reported"
        assert not self.services.swept, self.services.swept
        assert self.listener.n_connections == 0
        assert self.listener.n_streams == 0
        assert self.gate.n_connections == 0
        for runtime in self.runtimes:
            name = runtime.server.name
            assert runtime.server.inflight == 0, f"{name}: {runtime.server.inflight} leases are out"
            assert runtime.n_active == 0, f"{name}: {runtime.n_active} connections are neither idle nor closed"
        open_servers = [peer for peer in self.servers if not peer.transport.is_lost]
        assert len(open_servers) == sum(runtime.n_idle for runtime in self.runtimes)

    # --- acts -------------------------------------------------------------------------------------------------------

    def connect(self, peer: object = CLIENT) -> Peer:
        """A client connects."""
        self.listener._count()
        ip = peer[0] if isinstance(peer, tuple) else ""
        protocol = cast(asyncio.Protocol, self.listener._protocol(None, self.listener.admit(ip)))
        transport = FakeTransport(self.loop, protocol, peer, ("127.0.0.1", 5000))
        client = Peer(self.loop, transport)
        self.clients.append(client)
        protocol.connection_made(transport)
        self.loop.run()
        return client

    def accept(self, *, turns: bool = True) -> Peer:
        """The oldest dial succeeds; one that waits for a retry's back-off is given that time."""
        if not self.loop.dials:
            self.advance(BACKOFF_S)
        assert self.loop.dials, "nobody is dialling"
        server = self.loop.dials[0].succeed()
        self.servers.append(server)
        if turns:
            self.loop.run()
        return server

    def refuse(self, number: int = errno.ECONNREFUSED) -> None:
        """The oldest dial fails."""
        assert self.loop.dials, "nobody is dialling"
        self.loop.dials[0].fail(number)
        self.loop.run()

    def exchange(self, client: Peer, request: bytes) -> Peer:
        """The client sends a request that needs a new connection; the server that gets it."""
        client.send(request)
        return self.accept()

    def advance(self, seconds: float) -> None:
        """Time passes, with the sweeps that belong to it."""
        self.loop.advance(seconds)
        self.loop.run()

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def pool(self) -> PoolRuntime:
        return next(iter(self.wiring.pools.values()))

    @property
    def runtimes(self) -> list[ServerRuntime]:
        return [runtime for pool in self.wiring.pools.values() for runtime in pool.servers.values()]

    @property
    def inflight(self) -> int:
        return sum(runtime.server.inflight for runtime in self.runtimes)

    @property
    def n_idle(self) -> int:
        return sum(len(runtime.idle) for runtime in self.runtimes)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.writer.lines]

    @property
    def ends(self) -> list[str]:
        """The `end` of every request so far."""
        return [entry["end"] for entry in self.log]

    def of_pool(self, family: str, *labels: str) -> int:
        return self.pool.row[POOL.column(family, *labels)]

    def of_servers(self, family: str, *labels: str) -> int:
        return sum(runtime.row[SERVER.column(family, *labels)] for runtime in self.runtimes)

    def of_listener(self, family: str, *labels: str) -> int:
        return self.listener.runtime.row[LISTENER.column(family, *labels)]


def post(body: bytes = b"hello", *fields: str, target: str = "/a") -> bytes:
    """A POST with Content-Length; its body may be cut off by the test."""
    lines = [f"POST {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def ok(body: bytes = b"hi", *fields: str, status: str = "200 OK") -> bytes:
    """An answer with Content-Length, and a Date as every framework sends it."""
    lines = [f"HTTP/1.1 {status}", "Date: Sun, 06 Nov 1994 08:49:37 GMT", *fields, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def status_of(answer: bytes) -> int:
    """The status of the first answer in some bytes, 0 if there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def body_of(message: bytes) -> bytes:
    """What follows the first head."""
    return message.partition(b"\r\n\r\n")[2]


def answered(lb: FakeLb, client: Peer, reply: bytes = b"") -> bytes:
    """What a client gets for a request that it has sent; by a connection to a server that is there, or a new one."""
    if lb.loop.dials:
        lb.accept()
    server = next(peer for peer in lb.servers if not peer.transport.is_lost and peer.got())
    server.send(reply or ok())
    got = client.got()
    assert status_of(got), got
    return got
