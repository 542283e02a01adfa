"""Bytes from one socket to another without passing through this process: os.splice() through a pipe (Linux).

A Flow works on duplicates that the loop watches, while the source's transport is paused and the destination's has an
empty write buffer; then the two never mix. Two consequences:

- A duplicate keeps the connection open. Whoever aborts a transport ends the flow in the same turn of the loop, or the
  reset is not sent; `close` is what releases everything.
- An error that splice reports (a reset) is reported once; the transport would then read it as a clean end. So errors go
  to the owner, and only a clean end is left for the transport to find.

    waits for   while                                       next
    READ        the pipe is empty                           fill and drain
    WRITE       the pipe has bytes the sink does not take   drain, then READ
    TURN        as much was moved as one turn of the loop   fill and drain
                may take, and the source has an error

Never both at once, so a flow has one registration, made only when something would block. EPOLLERR and EPOLLHUP end in a
system call that returns the error or 0, after which nothing is registered any more: they can't spin. After EPOLLERR
uvloop's watcher is dead, and nobody says so; hence a flow never goes on waiting for READ without having asked the
source once more.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import sys
from typing import Final, Protocol

from lbproxy.compiling import mypyc_attr

CAN_SPLICE: Final = sys.platform == "linux" and hasattr(os, "splice")

PIPE_SIZES: Final[tuple[int, ...]] = (1 << 20, 1 << 18, 1 << 16)  # bytes; a smaller pipe is slower than copying
MOST_FLOWS: Final = 256
FDS_PER_FLOW: Final = 4
POOLED_PIPES: Final = 16
UNBOUNDED: Final = 1 << 62
LARGE_FILL: Final = 512 * 1024
SMALL_FILL: Final = 64 * 1024  # for a sink that is slower than its source: what waits in the pipe is kernel memory
TURN_BYTES: Final = 512 * 1024  # about 0.1 ms; a hundred flows may begin in the same turn
FRUITLESS_WAKES: Final = 4

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if CAN_SPLICE else 0

_READ: Final = 0
_WRITE: Final = 1
_TURN: Final = 2
_END: Final = 3
_FAILED: Final = 4
_IDLE: Final = 5


class Pipe:
    """Both ends of a kernel pipe."""

    __slots__ = ("read", "write")

    def __init__(self, read: int, write: int) -> None:
        self.read = read
        self.write = write

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


@mypyc_attr(allow_interpreted_subclasses=True)
class PipePool:
    """Empty pipes for the next flow, and the bound on flows at once. `limit` 0 turns splicing off."""

    __slots__ = ("_free", "_is_out", "_spare", "limit", "n_flows")

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.n_flows = 0
        self._free: list[Pipe] = []
        self._spare = 0  # the fewest free pipes since the last sweep
        self._is_out = False  # of descriptors or pipe memory, so nobody asks again before the next sweep

    @property
    def has_room(self) -> bool:
        return self.n_flows < self.limit and not self._is_out

    def take(self) -> Pipe | None:
        """A pipe for one flow; None when there are enough, or no descriptors or pipe memory left."""
        if not self.has_room:
            return None
        pipe = self._free.pop() if self._free else make_pipe()
        self._spare = min(self._spare, len(self._free))
        if pipe is None:
            self._is_out = True
        else:
            self.n_flows += 1
        return pipe

    def open_flow(
        self,
        loop: asyncio.AbstractEventLoop,
        source: asyncio.Transport,
        sink: asyncio.Transport,
        owner: Owner,
        left: int = UNBOUNDED,
    ) -> Flow | None:
        """See `open_flow` below."""
        return open_flow(loop, self, source, sink, owner, left)

    def give_back(self, pipe: Pipe, *, is_empty: bool) -> None:
        """The flow is over. A pipe with bytes of a dead connection in it is never used again."""
        self.n_flows -= 1
        if is_empty and len(self._free) < POOLED_PIPES:
            self._free.append(pipe)
        else:
            pipe.close()

    def sweep(self, now: float) -> None:
        """Close the pipes that nobody needed since the last sweep."""
        self._is_out = False
        for _ in range(self._spare):
            self._free.pop().close()
        self._spare = len(self._free)

    def ran_out(self) -> None:
        """There is no descriptor left for a flow."""
        self._is_out = True

    def close(self) -> None:
        """Close what is pooled."""
        self._spare = 0
        while self._free:
            self._free.pop().close()


def make_pipe() -> Pipe | None:
    """A pipe as large as this user may have, or None when that is too small to pay or there is none."""
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return None
    try:
        for size in PIPE_SIZES:
            if _resize(pipe, size):
                break
        if fcntl.fcntl(pipe.write, fcntl.F_GETPIPE_SZ) >= PIPE_SIZES[-1]:
            return pipe
    except OSError:
        pass
    pipe.close()
    return None


def _resize(pipe: Pipe, size: int) -> bool:
    """False over pipe-max-size, or when the user's share of pipe memory is used up."""
    try:
        fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        return False
    return True


def flow_limit(open_files: int, connections: int, reserve: int) -> int:
    """How many flows the limit of open files allows beside two descriptors a connection and `reserve`."""
    return max(0, min(MOST_FLOWS, (open_files - 2 * connections - reserve) // FDS_PER_FLOW))


def is_plain(transport: asyncio.Transport) -> bool:
    """Are the bytes on this transport's socket the ones that its protocol sees? Not with TLS."""
    return transport.get_extra_info("ssl_object") is None and transport.get_extra_info("socket") is not None


def is_reset(transport: asyncio.Transport) -> bool:
    """Was this TCP connection reset? For one that is not being read: a paused transport would not notice.

    After True nobody else learns of it (SO_ERROR is told once). A connection that both sides have shut down is in the
    same state without an error, and what it received may still be unread.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX or not CAN_SPLICE:
        return False
    try:
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            return False
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except (OSError, ValueError):
        return False


_TCP_CLOSE: Final = 7  # net/tcp_states.h


class Owner(Protocol):
    """Whose connection it is. Each call may close the flow."""

    def flow_moved(self, size: int, *, is_blocked: bool) -> None:
        """`size` bytes, or none, were taken from the source. is_blocked: the sink does not take what is there."""
        ...

    def flow_ended(self) -> None:
        """The flow is closed and lost nothing: the last byte was moved, or the source's end is there to be read."""
        ...

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        """The flow is closed; one of the two connections is dead."""
        ...

    def flow_crashed(self, error: Exception) -> None:
        """A defect; the flow is closed."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Flow:
    """One direction of a connection. left: bytes still to take from the source; pending: taken and not yet sent."""

    __slots__ = (
        "_error",
        "_fill",
        "_fruitless",
        "_handle",
        "_is_at_source",
        "_is_closed",
        "_loop",
        "_owner",
        "_pipe",
        "_poll",
        "_pool",
        "_sink",
        "_source",
        "_waits_for",
        "left",
        "pending",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: PipePool,
        pipe: Pipe,
        source: int,
        sink: int,
        owner: Owner,
        left: int,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._pipe = pipe
        self._source = source
        self._sink = sink
        poller = select.poll()
        poller.register(source, select.POLLIN)
        self._poll = poller.poll  # is there more, an end or an error? Half the cost of an EAGAIN
        self._owner = owner
        self.left = left
        self.pending = 0
        self._fill = LARGE_FILL
        self._fruitless = 0
        self._waits_for = _IDLE
        self._handle: asyncio.Handle | None = None
        self._error = OSError()
        self._is_at_source = False
        self._is_closed = False

    # --- what its owner asks ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Move what can be moved now, and wait for more. Called by the loop, and once to begin."""
        before = self.left
        try:
            verdict = self._pump()
            moved = before - self.left
            if moved:
                self._fruitless = 0
            elif verdict == _READ == self._waits_for:
                # Woken again and again without a byte (urgent data does that): the transport can deal with it.
                self._fruitless += 1
                if self._fruitless >= FRUITLESS_WAKES:
                    verdict = _END
            if verdict == _WRITE:
                self._fill = SMALL_FILL
            if verdict >= _END:
                self.close()
            else:
                self._wait(verdict)
            if moved or verdict < _END:
                self._owner.flow_moved(moved, is_blocked=verdict == _WRITE)
            if verdict == _END:
                self._owner.flow_ended()
            elif verdict == _FAILED:
                self._owner.flow_failed(self._error, at_source=self._is_at_source)
        except Exception as error:  # a defect: confined to this connection
            self.close()
            self._owner.flow_crashed(error)

    def give_up(self) -> bool:
        """Close it if it holds nothing; False if bytes are under way."""
        if not self.pending:
            self.close()
        return not self.pending

    def close(self) -> None:
        """Release everything. Bytes in the pipe are lost."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wait(_IDLE)
        os.close(self._source)
        os.close(self._sink)
        self._pool.give_back(self._pipe, is_empty=not self.pending)

    # --- the work ---------------------------------------------------------------------------------------------------

    def _pump(self) -> int:
        """Move bytes until something would block; what to wait for then.

        A short count is taken for a full sink without asking for an EAGAIN: the loop's poll is level-triggered, and an
        exception costs more than the system call.
        """
        pipe, source, sink = self._pipe, self._source, self._sink
        enough = self.left - TURN_BYTES
        is_short = False
        try:
            while True:
                if not self.pending:
                    if not self.left:
                        return _END
                    if is_short and not self._poll(0):
                        return _READ
                    if self.left <= enough:
                        return self._after_turn()
                    self._is_at_source = True
                    wanted = min(self.left, self._fill)
                    size = os.splice(source, pipe.write, wanted, flags=_FLAGS)
                    if not size:
                        return _END
                    self.pending = size
                    self.left -= size
                    is_short = size < wanted
                self._is_at_source = False
                self.pending -= os.splice(pipe.read, sink, self.pending, flags=_FLAGS)
                if self.pending:
                    return _WRITE
                if self._fill < LARGE_FILL:
                    self._fill *= 2
        except BlockingIOError:
            return _READ if self._is_at_source else _WRITE
        except OSError as error:
            self._error = error.with_traceback(None)  # with it, this flow would refer to itself
            return _FAILED

    def _after_turn(self) -> int:
        """Enough for now: the loop comes back for what is there, unless its watcher may be dead."""
        return _READ if all(event == select.POLLIN for _, event in self._poll(0)) else _TURN

    def _wait(self, what: int) -> None:
        now = self._waits_for
        if what == now and what != _TURN:
            return
        if now == _READ:
            self._loop.remove_reader(self._source)
        elif now == _WRITE:
            self._loop.remove_writer(self._sink)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if what == _READ:
            self._loop.add_reader(self._source, self.run)
        elif what == _WRITE:
            self._loop.add_writer(self._sink, self.run)
        elif what == _TURN:
            self._handle = self._loop.call_soon(self.run)
        self._waits_for = what


def open_flow(
    loop: asyncio.AbstractEventLoop,
    pool: PipePool,
    source: asyncio.Transport,
    sink: asyncio.Transport,
    owner: Owner,
    left: int = UNBOUNDED,
) -> Flow | None:
    """A flow of `left` bytes between two transports, or None when out of pipes or descriptors. Begin with `run`.

    The source must be paused and the sink's write buffer empty, and both stay so until the flow is closed.
    """
    pipe = pool.take()
    if pipe is None:
        return None
    fds: list[int] = []
    try:
        for transport in (source, sink):
            fds.append(os.dup(transport.get_extra_info("socket").fileno()))
    except (OSError, AttributeError):
        for fd in fds:
            os.close(fd)
        pool.give_back(pipe, is_empty=True)
        pool.ran_out()
        return None
    return Flow(loop, pool, pipe, fds[0], fds[1], owner, left)
