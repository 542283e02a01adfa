"""One flow between two descriptors, which here are pipes; and how many flows there may be."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from lbproxy.dataplane.net import splice
from lbproxy.dataplane.net.splice import (
    FDS_PER_FLOW,
    FRUITLESS_WAKES,
    MOST_FLOWS,
    POOLED_PIPES,
    SMALL_FILL,
    TURN_BYTES,
    Flow,
    Pipe,
    PipePool,
    flow_limit,
    is_plain,
    is_reset,
    make_pipe,
    open_flow,
)

BIG = 1 << 20


class Loop:
    """Says what a flow waits for; the test runs it."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.writers: dict[int, Callable[[], None]] = {}
        self.soon: list[Callable[[], None]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> None:
        del self.writers[fd]

    def call_soon(self, callback: Callable[[], None]) -> SimpleNamespace:
        self.soon.append(callback)
        return SimpleNamespace(cancel=self.soon.clear)

    @property
    def waits_for(self) -> str:
        kinds = {"read": self.readers, "write": self.writers, "turn": self.soon}
        return " ".join(kind for kind, registered in kinds.items() if registered)

    def wake(self) -> None:
        """Run what is registered, as the real loop would once it is ready."""
        soon, self.soon = self.soon, []
        for callback in (*self.readers.values(), *self.writers.values(), *soon):
            callback()


class Bench:
    """A flow from one pipe to another, and what its owner was told."""

    def __init__(self, left: int = splice.UNBOUNDED) -> None:
        self.loop = Loop()
        self.pool = PipePool(1)
        self.source, self.sink = pipe(), pipe()
        self.told: list[str] = []
        self.moved = 0
        self.fails_with: Exception | None = None
        taken = self.pool.take()
        assert taken is not None
        self.flow = Flow(
            cast(asyncio.AbstractEventLoop, self.loop),
            self.pool,
            taken,
            os.dup(self.source.read),
            os.dup(self.sink.write),
            self,
            left,
        )

    def flow_moved(self, size: int, *, is_blocked: bool) -> None:
        if self.fails_with is not None:
            raise self.fails_with
        self.moved += size
        if is_blocked:
            self.told.append("blocked")

    def flow_ended(self) -> None:
        self.told.append("ended")

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        self.told.append(f"{errno.errorcode[error.errno or 0]} at {'source' if at_source else 'sink'}")

    def flow_crashed(self, error: Exception) -> None:
        self.told.append(f"crashed: {error!r}")

    def send(self, data: bytes) -> None:
        assert os.write(self.source.write, data) == len(data)

    def received(self) -> bytes:
        try:
            return os.read(self.sink.read, BIG)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.flow.close()
        self.pool.close()
        for fd in (self.source.read, self.source.write, self.sink.read, self.sink.write):
            try:
                os.close(fd)
            except OSError as error:
                assert error.errno == errno.EBADF


def pipe() -> Pipe:
    made = Pipe(*os.pipe2(os.O_NONBLOCK))
    fcntl.fcntl(made.write, fcntl.F_SETPIPE_SZ, BIG)
    return made


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(left: int = splice.UNBOUNDED) -> Bench:
        made.append(Bench(left))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def n_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_bytes_pass_and_the_flow_waits_for_more(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.flow.run()
    assert bench.loop.waits_for == "read"
    for text in (b"one", b"two" * 1000):
        bench.send(text)
        bench.loop.wake()
        assert bench.received() == text
        assert bench.loop.waits_for == "read"
    assert bench.moved == 3003 and bench.told == []


def test_not_a_byte_more_than_it_was_told(benches: Callable[..., Bench]) -> None:
    bench = benches(5)
    bench.send(b"bodynext")
    bench.flow.run()
    assert bench.received() == b"bodyn" and bench.told == ["ended"]
    assert os.read(bench.source.read, 100) == b"ext"
    assert bench.loop.waits_for == "" and bench.pool.n_flows == 0


def test_the_end_of_the_source_is_left_for_others_to_read(benches: Callable[..., Bench]) -> None:
    bench = benches(100)
    bench.send(b"half")
    os.close(bench.source.write)
    bench.flow.run()
    assert bench.received() == b"half" and bench.told == ["ended"]
    assert bench.flow.left == 96
    assert os.read(bench.source.read, 1) == b""


def test_a_full_sink_is_waited_for_and_then_goes_on(benches: Callable[..., Bench]) -> None:
    bench = benches()
    filler = bytes(BIG - 4096)
    assert os.write(bench.sink.write, filler) == len(filler)
    bench.send(b"x" * 4096 + b"y" * 4096)
    bench.flow.run()
    assert bench.loop.waits_for == "write"
    assert bench.flow.pending == 4096 and bench.told == ["blocked"]
    assert not bench.flow.give_up(), "it holds bytes"
    bench.send(b"z")
    bench.loop.wake()  # in vain
    assert bench.loop.waits_for == "write" and bench.flow.pending == 4096
    bench.received()
    bench.loop.wake()
    assert bench.received() == b"y" * 4096 + b"z"
    assert bench.loop.waits_for == "read"
    assert bench.moved == 8193


def test_a_slow_sink_gets_smaller_pieces(benches: Callable[..., Bench]) -> None:
    bench = benches()
    os.write(bench.sink.write, bytes(BIG))
    bench.send(bytes(900_000))
    bench.flow.run()
    first = bench.flow.pending
    assert first > 2 * SMALL_FILL
    bench.received()
    os.write(bench.sink.write, bytes(BIG - first))  # room for what is under way only
    bench.loop.wake()
    assert bench.loop.waits_for == "write" and 0 < bench.flow.pending <= 2 * SMALL_FILL


def test_a_dead_sink_is_told_apart_from_a_dead_source(benches: Callable[..., Bench]) -> None:
    bench = benches()
    os.close(bench.sink.read)
    bench.send(b"to nobody")
    before = n_fds()
    bench.flow.run()
    assert bench.told == ["EPIPE at sink"]
    assert n_fds() == before - 4, "a pipe with bytes of a dead connection is not kept"
    assert bench.loop.waits_for == ""


def test_a_reset_behind_the_last_bytes_is_not_waited_for(
    benches: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's watcher is dead after EPOLLERR; waiting for it would be for ever."""
    real = os.splice

    def resets(source: int, sink: int, count: int, *, flags: int) -> int:
        if bench.moved == 0 and bench.flow.pending == 0 and bench.flow.left < splice.UNBOUNDED:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        return real(source, sink, count, flags=flags)

    bench = benches()
    bench.send(b"last")
    monkeypatch.setattr(bench.flow, "_poll", lambda timeout: [(0, 8)])
    monkeypatch.setattr(os, "splice", resets)
    bench.flow.run()
    assert bench.received() == b"last"
    assert bench.told == ["ECONNRESET at source"] and bench.moved == 4


def test_others_have_their_turn(benches: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = benches()
    monkeypatch.setattr(os, "splice", lambda source, sink, count, flags: count)
    bench.flow.run()
    assert bench.loop.waits_for == "read"
    assert bench.moved == TURN_BYTES
    bench.loop.wake()
    assert bench.loop.waits_for == "read" and bench.moved == 2 * TURN_BYTES
    monkeypatch.setattr(bench.flow, "_poll", lambda timeout: [(0, select.POLLIN | select.POLLERR)])
    bench.loop.wake()
    assert bench.loop.waits_for == "turn" and bench.moved == 3 * TURN_BYTES
    bench.loop.wake()
    assert bench.loop.waits_for == "turn" and bench.moved == 4 * TURN_BYTES
    bench.flow.close()
    assert bench.loop.waits_for == ""


def test_waking_up_for_nothing_is_not_done_for_ever(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.flow.run()
    for _ in range(FRUITLESS_WAKES - 1):
        bench.loop.wake()
    assert bench.told == []
    bench.send(b"x")
    bench.loop.wake()
    for _ in range(FRUITLESS_WAKES - 1):
        bench.loop.wake()
    assert bench.told == []
    bench.loop.wake()
    assert bench.told == ["ended"] and bench.loop.waits_for == ""


def test_a_defect_of_the_owner_closes_the_flow(benches: Callable[..., Bench]) -> None:
    bench = benches()
    bench.fails_with = ZeroDivisionError("on purpose")
    bench.send(b"x")
    bench.flow.run()
    assert bench.told == ["crashed: ZeroDivisionError('on purpose')"]
    assert bench.loop.waits_for == "" and bench.pool.n_flows == 0


def test_closing_releases_everything_once(benches: Callable[..., Bench]) -> None:
    before = n_fds()
    bench = benches()
    bench.flow.run()
    assert bench.flow.give_up()
    bench.flow.close()
    assert bench.loop.waits_for == "" and bench.pool.n_flows == 0
    bench.pool.close()
    assert n_fds() == before + 4  # the test's own two pipes


# --- how many ---


def test_the_pool_bounds_the_flows_and_keeps_empty_pipes() -> None:
    pool = PipePool(2)
    one, two = pool.take(), pool.take()
    assert one is not None and two is not None
    assert not pool.has_room and pool.take() is None
    pool.give_back(one, is_empty=True)
    assert pool.has_room and pool.take() is one
    pool.give_back(two, is_empty=False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(two.read)
    pool.give_back(one, is_empty=True)
    pool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one.read)


def test_no_limit_means_no_flow() -> None:
    assert PipePool().take() is None


def test_the_pool_keeps_no_more_than_it_needs() -> None:
    before = n_fds()
    pool = PipePool(100)
    taken = [pipe for pipe in (pool.take() for _ in range(POOLED_PIPES + 4)) if pipe is not None]
    for pipe in taken:
        pool.give_back(pipe, is_empty=True)
    assert n_fds() == before + 2 * POOLED_PIPES
    pool.sweep(0.0)  # they were in use since the last one
    used = [pool.take() for _ in range(3)]
    pool.sweep(0.2)
    assert n_fds() == before + 2 * 3, "what nobody took is closed"
    for made in used:
        assert made is not None
        pool.give_back(made, is_empty=True)
    pool.sweep(0.4)
    assert n_fds() == before + 2 * 3
    pool.sweep(0.6)
    assert n_fds() == before


def test_after_running_out_nobody_asks_before_the_next_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def none_left(flags: int) -> tuple[int, int]:
        asked.append(flags)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", none_left)
    pool = PipePool(5)
    assert pool.take() is None and not pool.has_room
    assert pool.take() is None and len(asked) == 1
    pool.sweep(0.0)
    assert pool.has_room and pool.take() is None and len(asked) == 2


def test_without_descriptors_for_both_ends_there_is_no_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    before = n_fds()
    pool = PipePool(5)
    real, calls = os.dup, list[int]()

    def dup(fd: int) -> int:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(fd)

    monkeypatch.setattr(os, "dup", dup)
    transport = cast(
        asyncio.Transport,
        SimpleNamespace(get_extra_info=lambda name: SimpleNamespace(fileno=lambda: 0)),
    )
    owner = cast(splice.Owner, None)
    assert open_flow(cast(asyncio.AbstractEventLoop, Loop()), pool, transport, transport, owner) is None
    assert pool.n_flows == 0 and not pool.has_room
    pool.close()
    assert n_fds() == before


@pytest.mark.parametrize(("most", "size"), [(1 << 20, 1 << 20), (1 << 19, 1 << 18), (1 << 16, 1 << 16)])
def test_a_pipe_is_as_large_as_allowed(monkeypatch: pytest.MonkeyPatch, most: int, size: int) -> None:
    real = fcntl.fcntl

    def limited(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ and argument > most:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", limited)
    made = make_pipe()
    assert made is not None
    assert real(made.write, fcntl.F_GETPIPE_SZ) == size
    made.close()


def test_a_pipe_of_a_page_or_two_is_worse_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user gets whose share of pipe memory is used up (pipe(7), pipe-user-pages-soft)."""
    before = n_fds()
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command, argument=0: 8192)
    assert make_pipe() is None
    monkeypatch.undo()
    assert n_fds() == before


@pytest.mark.parametrize(
    ("files", "connections", "reserve", "limit"),
    [
        (1_048_576, 10_000, 1064, MOST_FLOWS),
        (20_000, 9_000, 1064, (20_000 - 18_000 - 1064) // FDS_PER_FLOW),
        (100, 20, 48, 3),
        (64, 16, 40, 0),
        (1024, 10_000, 40, 0),
    ],
)
def test_connections_come_first(files: int, connections: int, reserve: int, limit: int) -> None:
    assert flow_limit(files, connections, reserve) == limit


# --- which connections ---


def transport(**info: object) -> asyncio.Transport:
    return cast(asyncio.Transport, SimpleNamespace(get_extra_info=info.get))


def test_tls_is_never_spliced() -> None:
    sock = SimpleNamespace()
    assert is_plain(transport(socket=sock))
    assert not is_plain(transport(socket=sock, ssl_object=SimpleNamespace()))
    assert not is_plain(transport())


@pytest.mark.parametrize(
    ("state", "error", "is_gone"),
    [
        (7, errno.ECONNRESET, True),
        (7, 0, False),  # both sides have shut down, and what was received may be unread
        (1, 0, False),
        (8, 0, False),
    ],
)
def test_a_reset_connection(state: int, error: int, is_gone: bool) -> None:
    def getsockopt(level: int, option: int, size: int = 0) -> int | bytes:
        return bytes([state]) if option == socket.TCP_INFO else error

    sock = SimpleNamespace(family=socket.AF_INET, getsockopt=getsockopt)
    assert is_reset(transport(socket=sock)) is is_gone
    assert not is_reset(transport(socket=SimpleNamespace(family=socket.AF_UNIX)))
    assert not is_reset(transport())
