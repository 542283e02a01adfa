"""The door of the admin address: who comes is let in, heard and refused here, on a budget of the loop's time.

Who has shown no right gets little of the loop that serves requests. A caller that is refused is accepted, read, judged
(admin_gate.py), refused and closed in one piece of work, before anything is made that would remember it: some fifteen
microseconds, and three times as much where the loop slept before, as most of that is fetching code. It is one piece in
a turn of the loop, and all of them together take at most SHORT_SHARE of the time: then nobody is accepted nor heard for
a moment, and who comes waits in the kernel's queue. A call that is allowed costs nothing of that: what it took until
then is given back. Good callers can't be told from bad ones before their head is read: were the share much smaller, a
flood would keep probes and scrapers out.

What aiohttp does for a caller takes some hundred microseconds to milliseconds at once, which a request notices. Who has
a right gets that at any time. Heads that the gate can't read, and readers of events, whose first message is everything
there is, wait for a second budget, LONG_SHARE; the others do not wait behind them.

The connections are plain sockets in an epoll of their own, of which the loop watches only that: a transport would cost
more than all the rest. Who is let pass becomes a `GuardedConnection`. Callers over a unix socket are whoever its file's
mode admits, and wait for nothing. What is allowed to everybody has a budget behind the door (admin_turns.py).
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from lbproxy.control.admin_budget import Budget
from lbproxy.control.admin_gate import HEAD_BYTES, READER, UNIX, UNREAD, Verdict, peer_name, try_later
from lbproxy.control.admin_guard import HEAD_S, AdminGuard, GuardedConnection
from lbproxy.dataplane.net.acceptor import OF_THE_CONNECTION
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log import ThrottledLog

log = logging.getLogger(__name__)

SHORT_SHARE: Final = 0.01
SHORT_BURST_S: Final = 0.005
SHORT_STEP_S: Final = 0.002  # a hundred pieces, in as many turns; one by itself costs ten times as much
LONG_SHARE: Final = 0.003
LONG_BURST_S: Final = 0.003
LONG_STEP_S: Final = 0.0001
TURN_S: Final = 8e-6
"""What a turn of the loop costs that is not measured: the loop's own part of it."""
UNREAD_S: Final = 500e-6  # what aiohttp takes to refuse what the gate can't read
READ_BYTES: Final = 64 * 1024
FIRST_BYTES: Final = 4096  # nearly every head; the memory for READ_BYTES would cost more than the reading
WAITING_READERS: Final = 8
LINGER_S: Final = 5.0
"""After a refusal. A reset, which a close would be while octets come, could take the answer from its reader."""
DISCARDED_BYTES: Final = 4 * 1024 * 1024  # of a body that was refused; no more is read then, as reading costs too
RETRY_S: Final = 0.1  # after accept(2) failed for want of something
TOLD_S: Final = 1.0
_NOW: Final = int(socket.MSG_DONTWAIT)
_PEEK: Final = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_STREAM: Final = int(socket.SOCK_STREAM)
_MANY_READERS: Final = "Readers of events come faster than they can be told what there is. Try again in a moment."

Gate = Callable[[bytes, str], Verdict]
"""From a head and its peer: what is to become of it."""


class Guest:
    """A connection that was not let pass yet, or was refused. since: when it came, or was refused."""

    n_requests: Final = 0

    def __init__(self, door: Door, sock: socket.socket, peer: str, head: bytes) -> None:
        self._door = door
        self.socket = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.head = head
        self.cost_s = 0.0  # of the door's budget
        self.since = door.now()
        self.may_discard = DISCARDED_BYTES
        self.is_refused = False
        self.is_allowed = False

    @property
    def patience_s(self) -> float:
        """For how long it may go on like this."""
        return LINGER_S if self.is_refused else HEAD_S

    def end(self) -> None:
        self._door.end(self)


class Door:
    """See the module. guard: has the connections, and their bounds. make: aiohttp's protocol object for a new one.

    reader_s: what another reader of events is going to cost. cpu: seconds of this thread's processor time.
    """

    def __init__(
        self,
        guard: AdminGuard,
        gate: Gate,
        make: Callable[[], asyncio.BaseProtocol],
        *,
        tasks: Tasks,
        clock: Callable[[], float],
        reader_s: Callable[[], float],
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.short = Budget(SHORT_SHARE, SHORT_BURST_S, SHORT_STEP_S, clock)
        self.long = Budget(LONG_SHARE, LONG_BURST_S, LONG_STEP_S, clock)
        self.now = clock
        self.sockets: tuple[socket.socket, ...] = ()
        self._guard = guard
        self._gate = gate
        self._make = make
        self._reader_s = reader_s
        self._cpu = cpu
        self._log = ThrottledLog(log, clock=clock)
        self._epoll = select.epoll()
        self._listening: dict[int, socket.socket] = {}
        self._families: dict[int, int] = {}
        self._guests: dict[int, Guest] = {}
        self._readers: dict[Guest, None] = {}  # these wait for the long budget, in order
        self._unread: dict[Guest, None] = {}  # and so do these, behind all of those
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")
        self._long_pause: asyncio.TimerHandle | None = None
        self._tasks = tasks

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self, loop: asyncio.AbstractEventLoop, sockets: Sequence[socket.socket]) -> None:
        """Take charge of listening sockets. Nobody is accepted before `serve` is called."""
        self._loop = loop
        self.sockets = tuple(sockets)
        for sock in sockets:
            sock.setblocking(False)
        loop.add_reader(self._epoll.fileno(), self.turn)

    def serve(self) -> None:
        for sock in self.sockets:
            if sock.fileno() not in self._listening:
                self._listening[sock.fileno()] = sock
                self._families[sock.fileno()] = int(sock.family)
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Nobody is accepted any more, and who was not let pass goes."""
        if self._epoll.closed:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
        for handle in (self._pause, self._long_pause):
            if handle is not None:
                handle.cancel()
        for fd in self._listening:
            self._epoll.unregister(fd)  # another process may have that socket, too: closing it here is not its end
        for guest in list(self._guests.values()):
            self.end(guest)
        self._epoll.close()
        for sock in self.sockets:
            sock.close()
        self.sockets = ()

    def end(self, guest: Guest) -> None:
        """Close its connection."""
        if self._guests.pop(guest.fd, None) is not None:
            self._readers.pop(guest, None)
            self._unread.pop(guest, None)
            self._guard.closed(guest)
            guest.socket.close()  # which takes it out of the epoll

    # --- the short budget -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Something has come: one piece of work, in this turn of the loop."""
        began = self._cpu()
        guest: Guest | None = None
        try:
            for fd, _ in self._epoll.poll(0, 1):
                listening = self._listening.get(fd)
                if listening is not None:
                    guest = self._accept(listening)
                else:
                    guest = self._guests.get(fd)
                    if guest is not None:
                        self._read(guest)
        finally:
            wait_s = self._charge(guest, self._cpu() - began + TURN_S)
            if wait_s:
                self._tell()
                self._rest(wait_s)

    def _charge(self, guest: Guest | None, spent_s: float) -> float:
        """For how long to do nothing."""
        if guest is None:
            return self.short.spend(spent_s)
        if guest.peer == UNIX:
            return 0.0
        guest.cost_s += spent_s
        # What it has cost before is given back if it turns out to have a right.
        return self.short.spend(spent_s - guest.cost_s if guest.is_allowed else spent_s)

    def _tell(self) -> None:
        now = self.now()
        if now - self._told_at >= TOLD_S:
            self._told_at = now
            log.warning(
                "callers that are refused have taken their share of the time at the admin address (%g %%): "
                "who comes now waits a moment",
                100 * SHORT_SHARE,
            )

    def _rest(self, seconds: float) -> None:
        if self._loop is not None and self._pause is None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if self._loop is not None:
            self._loop.add_reader(self._epoll.fileno(), self.turn)

    def _accept(self, listening: socket.socket) -> Guest | None:
        try:
            # socket.accept() is this and Python code that asks the kernel for what is known.
            fd, address = listening._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):  # it has left, or another process was faster
            return None
        except OSError as error:
            if error.errno not in OF_THE_CONNECTION:
                self._log.warning("accept", "the admin address cannot accept: %s", error)
                self._rest(RETRY_S)
            return None
        family = self._families[listening.fileno()]
        peer = peer_name(family, address)
        sock = _socket.socket(family, _STREAM, 0, fd)  # that of Python costs more to make and to close
        head = _said(sock)
        if head == b"":  # it has left
            sock.close()
            return None
        verdict: Verdict | None = None
        if head is not None and (b"\r\n\r\n" in head or len(head) > HEAD_BYTES):
            try:
                verdict = self._gate(head, peer)
            except BaseException:
                sock.close()
                raise
            answer = self._refusal(verdict)
            if answer is not None and not verdict.has_body and family != socket.AF_UNIX:
                # As nearly every caller in a flood: it is gone before anything else is made for it.
                with contextlib.suppress(OSError):
                    sock.send(answer, _NOW)  # there is room in the kernel, unless it has left
                sock.close()
                return None
        guest = self._guests[fd] = Guest(self, socket.socket(family, _STREAM, 0, sock.detach()), peer, head or b"")
        self._epoll.register(fd, select.EPOLLIN)
        self._guard.opened(guest)
        if fd not in self._guests:  # there was no room
            return None
        if verdict is not None:
            self._hear(guest, verdict)
        return guest

    def _read(self, guest: Guest) -> None:
        try:
            data = guest.socket.recv(READ_BYTES, _NOW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.end(guest)
        elif guest.is_refused:
            guest.may_discard -= len(data)
            if guest.may_discard < 0:
                self._epoll.unregister(guest.fd)  # the guard's sweep ends it
        else:
            guest.head += data
            if b"\r\n\r\n" in guest.head or len(guest.head) > HEAD_BYTES:
                self._hear(guest, self._gate(guest.head, guest.peer))

    def _refusal(self, verdict: Verdict) -> bytes | None:
        """The answer to who is not let pass, nor waits."""
        if verdict.kind == READER and verdict.answer is None and len(self._readers) >= WAITING_READERS:
            return try_later(_MANY_READERS)
        return verdict.answer

    def _hear(self, guest: Guest, verdict: Verdict) -> None:
        """Its head is there: refuse it, let it pass, or have it wait for the long budget."""
        answer = self._refusal(verdict)
        if answer is not None:
            self._refuse(guest, answer, verdict.has_body)
            return
        if guest.peer == UNIX or verdict.kind not in (READER, UNREAD):
            guest.is_allowed = True
            self._pass(guest)
            return
        self._epoll.unregister(guest.fd)  # for now, nothing more is read
        (self._readers if verdict.kind == READER else self._unread)[guest] = None
        if self._long_pause is None:
            self._let_in()

    def _refuse(self, guest: Guest, answer: bytes, has_body: bool) -> None:
        try:
            is_whole = guest.socket.send(answer, _NOW) == len(answer)  # there is room in the kernel, unless it has left
        except OSError:
            is_whole = False
        if not is_whole or not has_body:
            self.end(guest)
            return
        with contextlib.suppress(OSError):  # it has left
            guest.socket.shutdown(socket.SHUT_WR)
        guest.head = b""
        guest.is_refused = True
        guest.since = self.now()
        self._guard.touch(guest)

    # --- the long budget --------------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        """The next one, if the budget allows it; the others in later turns."""
        self._long_pause = None
        for guest in [guest for guest in (*self._readers, *self._unread) if has_left(guest.socket)]:
            self.end(guest)  # it would cost as much as one that still wants an answer
        waiting = self._readers or self._unread
        if not waiting:
            return
        wait_s = self.long.wait_s
        self._wait(wait_s)
        if not wait_s:
            guest = next(iter(waiting))
            del waiting[guest]
            self.long.spend(self._reader_s() if waiting is self._readers else UNREAD_S)
            verdict = self._gate(guest.head, guest.peer)  # others may have come before it, and may call no longer
            if verdict.answer is None:
                self._pass(guest)
            else:
                self._epoll.register(guest.fd, select.EPOLLIN)
                self._refuse(guest, verdict.answer, verdict.has_body)

    def _wait(self, seconds: float) -> None:
        if self._loop is not None:
            self._long_pause = self._loop.call_later(seconds, self._let_in)

    def _pass(self, guest: Guest) -> None:
        """aiohttp answers."""
        del self._guests[guest.fd]
        with contextlib.suppress(OSError):
            self._epoll.unregister(guest.fd)
        self._guard.closed(guest)
        connection = GuardedConnection(self._guard, self._make, guest.head)
        self._guard.opened(connection)
        self._tasks.spawn(self._connect(guest.socket, connection), "a connection of the admin address")

    async def _connect(self, sock: socket.socket, connection: GuardedConnection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except BaseException as error:
            self._guard.closed(connection)
            sock.close()
            if not isinstance(error, OSError):  # it has left
                raise


def _said(sock: _socket.socket) -> bytes | None:
    """What a new one has said. None: nothing yet. Empty: it has left."""
    head: bytes | None = None
    try:
        head = sock.recv(FIRST_BYTES, _NOW)
        if len(head) == FIRST_BYTES:
            head += sock.recv(READ_BYTES, _NOW)
    except (BlockingIOError, InterruptedError):
        return head
    except OSError:
        return b""
    return head


def has_left(sock: socket.socket) -> bool:
    """Is its end the next thing to be read?"""
    try:
        return not sock.recv(1, _PEEK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
