"""The transport of every plain connection: a non-blocking socket, watched by the Poller.

It does what asyncio promises of a Transport, as far as protocols of lbproxy use it, with the fewest steps for short
connections (poller.py has the numbers). How it does that:

- `write` keeps what is small until the turn of the loop is over (turn_end.py says why) and sends the rest at once. What
  the kernel does not take is kept, and only then is writability watched.
- `connection_lost` comes when the callback that ended the connection is over, and its descriptor is still open then.
- Pausing is lazy: the descriptor leaves the epoll when something arrives while reading is paused. Pauses are short, and
  most see no event.
- Whoever must know that the peer is gone while nothing is read of it asks for that (`watch_end`). That needs no
  descriptor of its own: the entry in the epoll stays, and waits for the end only.
- An accepted connection is a descriptor, for which there is a socket object only when somebody asks for it.
- It leaves the epoll by being closed. Only where somebody asked for the socket, who may have duplicated its
  descriptor and so keep it open, is that said to the kernel (one system call more).
- Using a transport that is over does nothing; whether that was a defect its protocol knows better.

    reading     recv gives                              then
    on          bytes                                   data_received / buffer_updated
                nothing: the peer's FIN                 eof_received; reading is over; closed unless it returns True
                an error                                connection_lost with it
    paused      (an event, whatever it is)              unwatched until `resume_reading`, but for `watch_end`
    over        -
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from lbproxy.compiling import close_now, has_octets, mypyc_attr, read_now, shut_now, write_last, write_now
from lbproxy.dataplane.net.poller import EDGE, READABLE, WRITABLE, Pollable, Poller
from lbproxy.dataplane.net.unsent import Data, Unsent

FIRST_READ: Final = 96 * 1024  # a body of 64 KiB and its head come in one
LARGE_READ: Final = 256 * 1024  # after a read that filled FIRST_READ
HIGH_WATER: Final = 64 * 1024
SMALL: Final = 4 * 1024  # is kept until the end of the turn
MOST_HELD: Final = 64 * 1024
_MAY_WRITE: Final = WRITABLE | select.EPOLLHUP | select.EPOLLERR
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_POLL_FIN: Final = select.POLLRDHUP | select.POLLHUP
# What each connection needs of modules, looked up once: an attribute of a module costs 280 instructions each time.
_PLAIN: Final = socket.SocketType
_BUFFERED: Final = asyncio.BufferedProtocol
_SHUT_WR: Final = int(socket.SHUT_WR)
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)  # so that Python knows that it does not block
_READABLE_ONLY: Final = select.EPOLLIN
# socket.socket is a Python class around this one, which adds files, context managers and enums; made and closed without
# them a socket costs 1.5 us less.
plain_socket: Final = cast(Callable[..., socket.socket], socket.SocketType)


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver(asyncio.Protocol):
    """A protocol that takes what was read as bytes. A base class, so that compiled code calls it directly."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol, as of the next two."""

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class SocketTransport(Pollable, asyncio.Transport):
    """See the module. `start` begins; from then on the transport owns the socket."""

    __slots__ = (
        "_buffer_updated",
        "_error",
        "_events",
        "_expects_nothing",
        "_family",
        "_fd",
        "_get_buffer",
        "_has_eof",
        "_held",
        "_high",
        "_is_behind",
        "_is_closing",
        "_is_lost",
        "_is_plain",
        "_is_reading",
        "_is_shared",
        "_is_write_paused",
        "_is_writing_ended",
        "_local",
        "_low",
        "_on_fin",
        "_peer",
        "_poller",
        "_protocol",
        "_read_size",
        "_receiver",
        "_sees_end",
        "_sock",
        "_turn_end",
        "_unsent",
    )

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket | None,
        peer: object = None,
        local: object = None,
        fd: int = -1,
        family: int = 0,
    ) -> None:
        """peer, local: the addresses, where they are known already. fd, family: in place of a socket, the descriptor of
        one that does not block."""
        self._poller = poller
        self._turn_end = poller.turn_end
        self._sock = sock
        self._fd = fd if sock is None else sock.fileno()
        self._family = family
        # read(2) and write(2) of a descriptor take far less than what Python does around those of a socket. Neither is
        # called after `_end`, so not for a number that is another's by then. What is no such socket is a stand-in.
        self._is_plain = sock is None or isinstance(sock, _PLAIN)
        self._peer = peer
        self._local = local
        self._protocol: Any = None  # a Protocol or BufferedProtocol
        self._receiver: Receiver | None = None
        self._get_buffer: Any = None
        self._buffer_updated: Any = None
        self._events = 0  # what is watched
        self._read_size = FIRST_READ
        self._held: bytes | None = None  # until the turn is over
        self._unsent: Unsent | None = None  # until the kernel has room
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._is_reading = True
        self._is_behind = False
        self._is_write_paused = False
        self._is_writing_ended = False
        self._expects_nothing = False
        self._has_eof = False
        self._is_closing = False
        self._is_lost = False
        self._is_shared = False  # somebody may have duplicated the descriptor
        self._sees_end = False  # also while nothing is read
        self._on_fin: Callable[[], None] | None = None
        self._error: Exception | None = None

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell the protocol of its connection, and begin to read."""
        self.set_protocol(protocol)
        receiver = self._receiver
        try:
            if receiver is not None:
                receiver.connection_made(self)
            else:
                protocol.connection_made(self)
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
        if self._is_reading and not self._events:
            self._watch(READABLE)

    # --- what the poller calls --------------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        if self._unsent is not None and events & _MAY_WRITE:
            self._send_unsent()
        if events == WRITABLE:
            return
        if not self._is_reading:
            if not self._is_closing:
                self._event_while_paused(events)
            return
        if self._get_buffer is not None:
            self._read_into()
        else:  # in line: a call more per read is 0.1 us
            try:
                data = read_now(self._fd, self._read_size) if self._is_plain else self._socket().recv(self._read_size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error)
                return
            if not data:
                self._eof()
                return
            if len(data) >= FIRST_READ:
                self._read_size = LARGE_READ
            elif self._read_size > FIRST_READ:
                self._read_size = FIRST_READ
            if self._receiver is not None:
                self._receiver.data_received(data)
        if events & _ENDED and self._is_reading:
            self.ready(_READABLE_ONLY)  # the end behind the last bytes, without another turn

    def crashed(self, error: Exception) -> None:
        self.abort()

    def _read_into(self) -> None:
        try:
            size = self._socket().recv_into(self._get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if size:
            self._buffer_updated(size)
        else:
            self._eof()

    def _eof(self) -> None:
        self._has_eof = True
        self._is_reading = False
        receiver = self._receiver
        if receiver.eof_received() if receiver is not None else self._protocol.eof_received():
            if not self._is_closing:
                self._rewatch()
        else:
            self.close()

    def _watch(self, events: int) -> None:
        """Wait for these events and no others. 0: out of the epoll, which reports errors whatever one asks for."""
        if events == self._events:
            return
        if not events:
            self._poller.forget(self._fd)
        elif self._events:
            self._poller.change(self._fd, events)
        else:
            try:
                self._poller.watch(self._fd, events, self)
            except OSError as error:  # the kernel has no memory, or no room (max_user_watches)
                self._fail(error)
                return
        self._events = events

    def _rewatch(self) -> None:
        """Wait for what is wanted now."""
        wanted = READABLE if self._is_reading else 0
        if self._sees_end and not wanted:
            # What is not read stays, and a hang-up too: each is told once. Room to write is told until it is used up.
            wanted = EDGE if self._unsent is None else 0
            if self._on_fin is not None:
                wanted |= select.EPOLLRDHUP
        self._watch(wanted | WRITABLE if self._unsent is not None else wanted)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read_at_most(self, size: int) -> None:
        """Give a Protocol so many bytes at once, fewer than FIRST_READ, until told otherwise. 0: as usual again."""
        self._read_size = size or FIRST_READ

    def stand_behind(self, *, is_behind: bool) -> None:
        """Read behind all others that are ready at the same time (poller.py), or among them again."""
        if is_behind != self._is_behind and not self._is_lost:
            self._is_behind = is_behind
            if is_behind:
                self._poller.stand_behind(self._fd)
            else:
                self._poller.stand_among(self._fd)

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading and not self._has_eof and not self._is_closing:
            self._is_reading = True
            self._sees_end = False
            self._on_fin = None
            self._rewatch()

    def watch_end(self, on_fin: Callable[[], None] | None) -> None:
        """Until `resume_reading`, or for good behind the peer's FIN: see the peer leave although nothing is read.

        A reset ends the connection at once, with what was not read (`connection_lost`). A FIN is told to `on_fin`,
        once; with None it is left where it is, behind what was not read.
        """
        self._sees_end = True
        self._on_fin = on_fin
        if not self._is_reading and not self._is_closing and not self._events & select.EPOLLIN:
            self._rewatch()  # else what is still watched tells the end, or that something is unread

    def _event_while_paused(self, events: int) -> None:
        if self._sees_end and events & _ENDED:
            ends = self._poller.ends(self._fd)
            error = self._socket().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ends & select.POLLERR else 0
            if error:
                self._fail(OSError(error, os.strerror(error)))
                return
            on_fin = self._on_fin
            if on_fin is not None and ends & _POLL_FIN:
                self._on_fin = None
                try:
                    on_fin()
                except Exception as defect:  # confined to this connection
                    self._defect(defect)
                if self._is_closing:
                    return
        self._rewatch()

    def is_reading(self) -> bool:
        return self._is_reading

    @property
    def has_unread(self) -> bool:
        """Has something arrived that was not read yet, or an end?"""
        return not self._is_lost and self._poller.has_unread(self._fd)

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: Data) -> None:
        if self._is_closing or self._is_writing_ended:
            return
        if self._unsent is not None:
            self._unsent.add(data)
            self._note_size()
            return
        held = self._held
        if isinstance(data, bytes) and (len(data) <= SMALL or self._poller.has_ends):
            if held is None:
                self._held = data
                self._turn_end.add(self)
            elif len(held) < MOST_HELD:
                self._held = held + data
            else:
                self._send_pieces([data])
        elif held is None:
            self._send_now(data)
        else:
            self._send_pieces([data])

    def _send_now(self, data: Data) -> None:
        try:
            sent = (
                write_now(self._fd, data) if self._is_plain and isinstance(data, bytes) else self._socket().send(data)
            )
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent < len(data):
            self._keep([data], sent)

    def _send_last(self, data: bytes) -> None:
        """The FIN follows at once: in the same segment, which saves the machine a packet, and the peer an event."""
        try:
            sent = write_last(self._fd, data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent < len(data):
            self._keep([data], sent)

    def flush(self) -> None:
        """The turn is over: send what it left."""
        held = self._held
        if held is not None and not self._is_lost:
            self._held = None
            if self._is_writing_ended and self._is_plain and not self._expects_nothing:
                self._send_last(held)
            else:
                self._send_now(held)
            if self._is_write_paused:
                self._resume_writing()
        if self._is_writing_ended and self._unsent is None and not self._is_lost:
            if self._expects_nothing and self._is_plain and not has_octets(self._fd):
                self.close()
            else:
                self._shut_down()

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        pieces = list(list_of_data)
        if self._unsent is not None or self._is_closing or self._is_writing_ended or self._poller.has_ends:
            for piece in pieces:
                self.write(piece)
        else:
            self._send_pieces(pieces)

    def _send_pieces(self, pieces: list[Data]) -> None:
        """At once, behind what is held."""
        if self._held is not None:
            pieces.insert(0, self._held)
            self._held = None
        try:
            sent = self._socket().sendmsg(pieces)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        self._keep(pieces, sent)

    def _keep(self, pieces: Sequence[Data], sent: int) -> None:
        unsent = Unsent()
        unsent.add_rest(pieces, sent)
        if unsent.size:
            self._unsent = unsent
            self._rewatch()
            self._note_size()

    def _send_unsent(self) -> None:
        unsent = self._unsent
        assert unsent is not None
        pieces = unsent.first()
        try:
            sock = self._socket()
            sent = sock.send(pieces[0]) if len(pieces) == 1 else sock.sendmsg(pieces)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        unsent.take(sent)
        if not unsent.size:
            self._unsent = None
            if self._is_closing:
                self._end(None)
                return
            if self._is_writing_ended:
                self._shut_down()
            self._rewatch()
        if self._is_write_paused:
            self._resume_writing()

    def _resume_writing(self) -> None:
        if not self._is_closing and self.get_write_buffer_size() <= self._low:
            self._is_write_paused = False
            try:
                self._protocol.resume_writing()
            except Exception as defect:  # confined to this connection
                self._defect(defect)

    def _note_size(self) -> None:
        if not self._is_write_paused and self.get_write_buffer_size() > self._high and not self._is_closing:
            self._is_write_paused = True
            try:
                self._protocol.pause_writing()
            except Exception as error:  # as above
                self._defect(error)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Behind what was written, at the end of the turn: who closes by then has sent the FIN with that."""
        if not self._is_writing_ended and not self._is_closing:
            self._is_writing_ended = True
            if self._unsent is None and self._held is None:
                self._turn_end.add(self)

    def expect_nothing(self) -> None:
        """Before `write_eof`: the peer has said all that it will say. If nothing more has come by the time the FIN is
        due, and nothing is left to be sent behind it, then this ends the connection, and nobody waits for the peer's
        FIN. What had come would make a reset of the end, which could cost the peer what it was sent."""
        self._expects_nothing = True

    def _shut_down(self) -> None:
        if self._is_plain:
            shut_now(self._fd)  # likewise
            return
        try:  # noqa: SIM105 - a context manager of Python costs more than the system call
            self._socket().shutdown(_SHUT_WR)
        except OSError:  # it was reset: reading will tell
            pass

    def get_write_buffer_size(self) -> int:
        if self._held is not None:
            return len(self._held)
        return self._unsent.size if self._unsent is not None else 0

    def taken(self, written: int) -> int:
        """How much the kernel has taken of so many bytes that were written. It grows when the peer makes room."""
        return written - self.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        if self._unsent is not None or self._held is not None:
            self._note_size()

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what is kept, then end; nothing is read any more."""
        if self._held is not None:
            self.flush()
        if not self._is_closing:
            self._is_closing = True
            self._is_reading = False
            if self._unsent is None:
                self._end(None)
            else:
                self._watch(WRITABLE)

    def abort(self) -> None:
        """End now. A reset only if the socket lingers (services.abort)."""
        if not self._is_lost:
            self._fail(None)

    def _fail(self, error: Exception | None) -> None:
        self._is_closing = True
        self._is_reading = False
        self._unsent = None  # what is held is not sent either, and may be asked for until `batch_ended`
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        if self._is_behind:
            self.stand_behind(is_behind=False)
        self._is_lost = True
        self._error = error
        if self._events:
            self._events = 0
            self._poller.drop(self._fd, is_shared=self._is_shared)
        self._poller.after_batch(self)

    def batch_ended(self) -> None:
        receiver = self._receiver
        try:
            if receiver is not None:
                receiver.connection_lost(self._error)
            else:
                self._protocol.connection_lost(self._error)
        finally:
            if self._sock is None:
                close_now(self._fd)
            else:
                self._sock.close()
            # Protocol and transport know each other: neither must wait for the collector.
            self._protocol = self._receiver = self._get_buffer = self._buffer_updated = self._on_fin = None
            self._error = None
            self._held = None

    def is_closing(self) -> bool:
        return self._is_closing

    def _defect(self, error: Exception) -> None:
        self._poller.defect("a connection", error)
        self.abort()

    # --- the rest ---------------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if self._is_lost and self._protocol is None:
            return
        self._protocol = protocol
        if isinstance(protocol, Receiver):  # asked first: that something is no instance takes Python much longer to say
            self._get_buffer = None
            self._receiver = protocol
        elif isinstance(protocol, _BUFFERED):
            self._receiver = None
            self._get_buffer = protocol.get_buffer
            self._buffer_updated = protocol.buffer_updated
        else:
            self._get_buffer = None
            self._receiver = cast(Receiver, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            self._is_shared = True
            return self._socket()
        if name == "peername":
            if self._peer is None:
                self._peer = self._name(self._socket().getpeername)
            return self._peer
        if name == "sockname":
            if self._local is None:
                self._local = self._name(self._socket().getsockname)
            return self._local
        return default

    def _socket(self) -> socket.socket:
        sock = self._sock
        if sock is None:
            sock = self._sock = plain_socket(self._family, _STREAM, 0, self._fd)
        return sock

    def _name(self, get: Callable[[], object]) -> object:
        try:
            return get()
        except OSError:  # it was reset already
            return None
