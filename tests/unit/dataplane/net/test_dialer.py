"""A dial that succeeds at once, one that takes its time, and what becomes of the socket in every other case."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, cast

import pytest

from lbproxy.address import parse_address
from lbproxy.dataplane.net.dialer import MOST_TARGETS, Dialer
from lbproxy.dataplane.net.poller import READABLE, WRITABLE, Pollable, Poller
from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.dataplane.net.turn_end import TurnEnd
from lbproxy.tasks import Tasks

V4, V6, UNIX = (parse_address(text) for text in ("127.0.0.1:80", "[::1]:80", "unix:@name"))


class FakeSocket:
    """connect(2) gives the next of `results`. meets_itself: the kernel chose the server's port for our end."""

    meets_itself = False

    def __init__(self, family: int, kind: int, results: list[int]) -> None:
        assert kind == socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        self.family = family
        self.targets: list[object] = []
        self.options: list[tuple[int, int, int]] = []
        self.is_closed = False
        self._results = results

    def fileno(self) -> int:
        return 7

    def connect_ex(self, target: object) -> int:
        self.targets.append(target)
        return self._results.pop(0)

    def getpeername(self) -> object:
        return self.targets[-1]

    def getsockname(self) -> object:
        return self.targets[-1] if self.meets_itself else ("127.0.0.1", 50000)

    def setsockopt(self, *option: int) -> None:
        self.options.append(cast(tuple[int, int, int], option))

    def recv(self, size: int) -> bytes:
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        self.is_closed = True


class FakePoller(Poller):
    def __init__(self) -> None:
        self.watched: dict[int, tuple[int, Any]] = {}
        self.turn_end = TurnEnd(cast(Any, None), lambda where, error: None)

    def watch(self, fd: int, events: int, pollable: Pollable) -> None:
        assert fd not in self.watched
        self.watched[fd] = events, pollable

    def forget(self, fd: int) -> None:
        self.watched.pop(fd, None)


class Recorder(Receiver):
    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


class NoLoop:
    """Where nothing is to wait."""

    def create_future(self) -> None:
        raise AssertionError


class Setting:
    """results: what connect(2) will say."""

    def __init__(self, *results: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.poller = FakePoller()
        self.results = list(results)
        self.made: list[FakeSocket] = []
        self.error: OSError | None = None
        self.dialer = Dialer(loop or cast(Any, NoLoop()), self.poller, cast(Any, self._make))
        self.tasks = Tasks()

    def _make(self, family: int, kind: int) -> FakeSocket:
        if self.error is not None:
            raise self.error
        self.made.append(FakeSocket(family, kind, self.results))
        return self.made[-1]

    async def connecting(self) -> asyncio.Task[Recorder]:
        """A dial that waits."""
        opening = self.dialer.begin(V4)
        assert not opening.is_open

        async def connect() -> Recorder:
            return await opening.connect(Recorder, b"")

        task = self.tasks.spawn(connect(), "dial")
        await asyncio.sleep(0)
        return task

    def ready(self) -> None:
        events, pollable = self.poller.watched[7]
        assert events == WRITABLE
        pollable.ready(WRITABLE)

    @property
    def sock(self) -> FakeSocket:
        (sock,) = self.made
        return sock


@pytest.mark.parametrize("address", [V4, V6])
def test_on_loopback_it_stands_at_once(address: Any) -> None:
    setting = Setting(errno.EINPROGRESS, 0)
    opening = setting.dialer.begin(address)
    assert opening.is_open
    protocol = opening.attach(Recorder())
    assert protocol.transport is not None
    assert setting.poller.watched == {7: (READABLE, protocol.transport)}
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in setting.sock.options
    assert setting.sock.family == (socket.AF_INET if address is V4 else socket.AF_INET6)


def test_a_unix_socket_has_no_segments() -> None:
    setting = Setting(0)
    assert setting.dialer.begin(UNIX).is_open
    assert setting.sock.options == [] and setting.sock.targets == ["\0name"]


async def test_one_that_takes_its_time() -> None:
    setting = Setting(errno.EINPROGRESS, errno.EALREADY, errno.EALREADY, 0, loop=asyncio.get_running_loop())
    task = await setting.connecting()
    setting.ready()  # for an earlier socket with this number
    setting.ready()
    protocol = await task
    assert protocol.transport is not None and not setting.sock.is_closed
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in setting.sock.options


@pytest.mark.parametrize("address", [V4, V6])
async def test_one_that_meets_itself_is_refused(address: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends are one socket, which would answer each request with that request."""
    monkeypatch.setattr(FakeSocket, "meets_itself", True)
    setting = Setting(errno.EINPROGRESS, 0)
    opening = setting.dialer.begin(address)
    assert not opening.is_open
    with pytest.raises(ConnectionRefusedError):
        await opening.connect(Recorder, b"")
    assert setting.sock.is_closed
    resets = [option for option in setting.sock.options if option[1] == socket.SO_LINGER]
    assert resets, "the port stays taken for a minute, and the server cannot come back"


async def test_one_that_meets_itself_later_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSocket, "meets_itself", True)
    setting = Setting(errno.EINPROGRESS, errno.EALREADY, 0, loop=asyncio.get_running_loop())
    task = await setting.connecting()
    setting.ready()
    with pytest.raises(ConnectionRefusedError):
        await task
    assert setting.sock.is_closed and not setting.poller.watched


async def test_one_that_fails_later() -> None:
    setting = Setting(errno.EINPROGRESS, errno.EALREADY, errno.ECONNREFUSED, loop=asyncio.get_running_loop())
    task = await setting.connecting()
    setting.ready()
    with pytest.raises(ConnectionRefusedError):
        await task
    assert setting.sock.is_closed and not setting.poller.watched


async def test_one_that_is_given_up() -> None:
    setting = Setting(errno.EINPROGRESS, errno.EALREADY, loop=asyncio.get_running_loop())
    task = await setting.connecting()
    _, waiting = setting.poller.watched[7]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting.ready(WRITABLE)
    assert setting.sock.is_closed and not setting.poller.watched


async def test_a_defect_while_it_waits() -> None:
    setting = Setting(errno.EINPROGRESS, errno.EALREADY, loop=asyncio.get_running_loop())
    task = await setting.connecting()
    _, waiting = setting.poller.watched[7]
    waiting.crashed(RuntimeError("defect"))
    waiting.crashed(RuntimeError("defect"))
    with pytest.raises(RuntimeError):
        await task
    assert setting.sock.is_closed


@pytest.mark.parametrize("numbers", [[errno.EINPROGRESS, errno.ECONNREFUSED], [errno.ECONNREFUSED]])
async def test_a_failure_that_is_known_at_once_shows_in_connect_only(numbers: list[int]) -> None:
    """Who begins a dial may be in the middle of the pool's books."""
    setting = Setting(*numbers)
    opening = setting.dialer.begin(V4)
    assert not opening.is_open
    with pytest.raises(ConnectionRefusedError):
        await opening.connect(Recorder, b"")
    assert setting.sock.is_closed


async def test_out_of_descriptors() -> None:
    setting = Setting()
    setting.error = OSError(errno.EMFILE, "too many")
    with pytest.raises(OSError, match="Too many open files") as caught:
        await setting.dialer.begin(V4).connect(Recorder, b"")
    assert caught.value.errno == errno.EMFILE


def test_addresses_are_read_once_and_not_kept_for_ever() -> None:
    setting = Setting()
    assert setting.dialer.target(V4) == setting.dialer.target(V4)
    assert len(setting.dialer._targets) == 1
    for port in range(1, MOST_TARGETS + 10):
        setting.dialer.target(parse_address(f"127.0.0.2:{port}"))
    assert len(setting.dialer._targets) <= MOST_TARGETS
