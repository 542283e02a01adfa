"""What a protocol sees of its connection. The socket is a script, the poller only keeps the books."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from lbproxy.dataplane.net.poller import EDGE, READABLE, WRITABLE, Pollable, Poller
from lbproxy.dataplane.net.socket_transport import (
    FIRST_READ,
    HIGH_WATER,
    LARGE_READ,
    MOST_HELD,
    SMALL,
    Receiver,
    SocketTransport,
)
from lbproxy.dataplane.net.turn_end import TurnEnd, Writer

ERROR = select.EPOLLERR | select.EPOLLHUP
FIN = object()


class FakeTurnEnd(TurnEnd):
    """Each write is a turn of its own until `is_turning`."""

    def __init__(self) -> None:
        self.is_turning = False
        self.due: list[Writer] = []

    def add(self, writer: Writer) -> None:
        self.due.append(writer)
        if not self.is_turning:
            self.end()

    def end(self) -> None:
        self.is_turning = False
        due, self.due = self.due, []
        for writer in due:
            writer.flush()


class FakePoller(Poller):
    def __init__(self) -> None:
        self.turns = self.turn_end = FakeTurnEnd()
        self.defect = self._note
        self.is_ending = False
        self.watched: dict[int, int] = {}
        self.later: list[Pollable] = []
        self.defects: list[BaseException] = []
        self.calls: list[str] = []
        self.is_full = False
        self.behind: set[int] = set()
        self.now = 0  # what `ends` says

    def stand_behind(self, fd: int) -> None:
        self.behind.add(fd)

    def stand_among(self, fd: int) -> None:
        self.behind.remove(fd)

    def ends(self, fd: int) -> int:
        return self.now

    def watch(self, fd: int, events: int, pollable: Pollable) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "max_user_watches")
        assert fd not in self.watched
        self.watched[fd] = events

    def change(self, fd: int, events: int) -> None:
        assert self.watched[fd] != events
        self.watched[fd] = events

    def forget(self, fd: int) -> None:
        self.calls.append("forget")
        del self.watched[fd]

    def drop(self, fd: int, *, is_shared: bool) -> None:
        self.calls.append("drop shared" if is_shared else "drop")
        del self.watched[fd]

    def after_batch(self, pollable: Pollable) -> None:
        self.later.append(pollable)

    @property
    def has_ends(self) -> bool:
        return self.is_ending

    def _note(self, where: str, error: BaseException) -> None:
        self.defects.append(error)


class FakeSocket:
    """recv gives what `arriving` has, in its order; send takes `room` bytes."""

    def __init__(self) -> None:
        self.arriving: list[bytes | object | OSError] = []
        self.sizes: list[int] = []
        self.taken = b""
        self.room = 1 << 30
        self.send_error: OSError | None = None
        self.calls: list[str] = []
        self.error = 0

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        error, self.error = self.error, 0
        return error

    def fileno(self) -> int:
        return 7

    def recv(self, size: int) -> bytes:
        self.sizes.append(size)
        if not self.arriving:
            raise BlockingIOError
        item = self.arriving.pop(0)
        if isinstance(item, OSError):
            raise item
        if item is FIN:
            return b""
        data = cast(bytes, item)
        if data[size:]:
            self.arriving.insert(0, data[size:])
        return data[:size]

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.send_error is not None:
            raise self.send_error
        if not self.room:
            raise BlockingIOError
        sent = bytes(data[: self.room])
        self.room -= len(sent)
        self.taken += sent
        return len(sent)

    def sendmsg(self, pieces: Iterable[bytes]) -> int:
        self.calls.append("sendmsg")
        return self.send(b"".join(pieces))

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.calls.append("shutdown")
        if self.send_error is not None:
            raise self.send_error

    def getpeername(self) -> tuple[str, int]:
        self.calls.append("getpeername")
        return ("192.0.2.1", 1)

    def getsockname(self) -> tuple[str, int]:
        raise OSError(errno.EINVAL, "gone")

    def close(self) -> None:
        self.calls.append("close")


class Recorder(Receiver):
    def __init__(self) -> None:
        self.events: list[object] = []
        self.keeps_open = False
        self.on_data: Callable[[], object] = lambda: None
        self.on_made: Callable[[SocketTransport], object] = lambda transport: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.on_made(cast(SocketTransport, transport))

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        self.on_data()

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(("lost", exc))


class Setting:
    def __init__(self, protocol: Recorder | None = None, *, is_full: bool = False) -> None:
        self.sock = FakeSocket()
        self.poller = FakePoller()
        self.poller.is_full = is_full
        self.protocol = protocol or Recorder()
        self.transport = SocketTransport(self.poller, cast(socket.socket, self.sock))
        self.transport.start(self.protocol)

    @property
    def watched(self) -> int:
        return self.poller.watched.get(7, 0)

    @property
    def events(self) -> list[object]:
        """What the protocol saw since the last look."""
        events, self.protocol.events = self.protocol.events, []
        return events

    def arrives(self, *items: bytes | object | OSError, events: int = select.EPOLLIN) -> None:
        self.sock.arriving += items
        self.transport.ready(events)

    def batch_ends(self) -> None:
        later, self.poller.later = self.poller.later, []
        for pollable in later:
            pollable.batch_ended()


@pytest.fixture
def setting() -> Setting:
    setting = Setting()
    assert setting.events == ["made"] and setting.watched == READABLE
    return setting


def test_bytes_go_to_the_protocol(setting: Setting) -> None:
    setting.arrives(b"one")
    setting.arrives(b"two")
    assert setting.events == [b"one", b"two"]


def test_an_event_that_was_meant_for_somebody_else_is_nothing(setting: Setting) -> None:
    setting.arrives(events=ERROR | READABLE | WRITABLE)
    assert setting.events == [] and setting.watched == READABLE


def test_large_reads_follow_one_that_filled_its_buffer(setting: Setting) -> None:
    setting.arrives(b"x" * 500_000)
    setting.transport.ready(select.EPOLLIN)
    setting.transport.ready(select.EPOLLIN)
    setting.arrives(b"small")
    setting.transport.ready(select.EPOLLIN)
    assert setting.sock.sizes == [FIRST_READ, LARGE_READ, LARGE_READ, LARGE_READ, FIRST_READ]


def test_less_is_read_until_it_is_told_otherwise(setting: Setting) -> None:
    setting.transport.read_at_most(1000)
    setting.arrives(b"x" * 2000)
    setting.transport.ready(select.EPOLLIN)
    setting.transport.read_at_most(0)
    setting.arrives(b"small")
    assert setting.sock.sizes == [1000, 1000, FIRST_READ]


def test_a_fin_closes_unless_the_protocol_wants_to_write_on(setting: Setting) -> None:
    setting.arrives(b"last", FIN, events=READABLE)
    assert setting.events == [b"last", "eof"]
    assert setting.transport.is_closing() and not setting.watched
    setting.batch_ends()
    assert setting.events == [("lost", None)]
    assert setting.sock.calls == ["close"] and setting.poller.calls == ["drop"]


def test_half_closed_it_is_out_of_the_epoll_which_would_report_the_hang_up_for_ever(setting: Setting) -> None:
    setting.protocol.keeps_open = True
    setting.arrives(FIN, events=READABLE)
    assert setting.events == ["eof"] and not setting.watched and not setting.transport.is_reading()
    setting.transport.pause_reading()
    setting.transport.resume_reading()
    assert not setting.watched
    setting.transport.write(b"answer")
    setting.transport.write_eof()
    setting.transport.close()
    setting.batch_ends()
    assert setting.sock.taken == b"answer" and setting.events == [("lost", None)]


def test_half_closed_it_still_waits_for_room(setting: Setting) -> None:
    setting.protocol.keeps_open = True
    setting.arrives(FIN, events=READABLE)
    setting.sock.room = 2
    setting.transport.write(b"answer")
    assert setting.watched == WRITABLE
    setting.sock.room = 100
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"answer" and not setting.watched


def test_a_reset_is_told_with_its_error(setting: Setting) -> None:
    error = ConnectionResetError(errno.ECONNRESET, "reset")
    setting.arrives(b"before", error, events=READABLE | ERROR)
    assert setting.events == [b"before"]
    setting.batch_ends()
    assert setting.events == [("lost", error)]


def test_the_descriptor_is_open_while_the_protocol_is_told(setting: Setting) -> None:
    setting.protocol.connection_lost = lambda exc: setting.sock.calls.append("told")  # type: ignore[method-assign]
    setting.transport.abort()
    setting.transport.abort()
    setting.batch_ends()
    assert setting.sock.calls == ["told", "close"] and not setting.poller.later


# --- pausing --------------------------------------------------------------------------------------------------------


def test_a_short_pause_costs_nothing(setting: Setting) -> None:
    setting.transport.pause_reading()
    assert setting.watched == READABLE
    setting.transport.resume_reading()
    setting.arrives(b"on")
    assert setting.events == [b"on"]


def test_what_arrives_during_a_pause_is_left_in_the_kernel(setting: Setting) -> None:
    setting.transport.pause_reading()
    setting.arrives(b"later", FIN, events=READABLE | ERROR)
    assert setting.events == [] and not setting.watched and setting.sock.sizes == []
    setting.transport.resume_reading()
    assert setting.watched == READABLE
    setting.transport.ready(READABLE)
    assert setting.events == [b"later", "eof"]


def test_a_protocol_that_pauses_gets_no_second_piece(setting: Setting) -> None:
    setting.protocol.on_data = setting.transport.pause_reading
    setting.arrives(b"one", FIN, events=READABLE)
    assert setting.events == [b"one"]


def test_one_stands_behind_the_others_until_told_otherwise_whether_it_reads_or_not(setting: Setting) -> None:
    setting.transport.stand_behind(is_behind=False)
    for _ in range(2):
        setting.transport.stand_behind(is_behind=True)
    setting.transport.pause_reading()
    setting.transport.ready(READABLE)
    setting.transport.resume_reading()
    assert setting.poller.behind == {7}
    setting.transport.stand_behind(is_behind=False)
    assert not setting.poller.behind


@pytest.mark.parametrize("is_paused", [False, True])
def test_whoever_gets_its_number_next_does_not_stand_behind_for_that(setting: Setting, is_paused: bool) -> None:
    setting.transport.stand_behind(is_behind=True)
    if is_paused:
        setting.transport.pause_reading()
        setting.transport.ready(READABLE)
    setting.transport.close()
    assert not setting.poller.behind
    setting.transport.stand_behind(is_behind=True)
    assert not setting.poller.behind


def test_a_paused_one_still_writes(setting: Setting) -> None:
    setting.sock.room = 0
    setting.transport.pause_reading()
    setting.transport.write(b"x")
    assert setting.watched == WRITABLE
    setting.sock.room = 1
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"x" and not setting.watched


def test_a_protocol_may_pause_or_end_it_from_the_start() -> None:
    paused, ended = Recorder(), Recorder()
    paused.on_made = lambda transport: transport.pause_reading()
    ended.on_made = lambda transport: transport.abort()
    assert not Setting(paused).watched
    assert not Setting(ended).watched


RESET = select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLIN


def paused(setting: Setting, *, tells_fin: bool) -> list[str]:
    """Pause, with the end watched, and let something arrive; what is told is in the list."""
    told: list[str] = []
    setting.transport.pause_reading()
    setting.transport.watch_end((lambda: told.append("fin")) if tells_fin else None)
    assert setting.watched == READABLE, "a short pause costs nothing"
    setting.arrives(b"unread")
    return told


def test_the_fin_of_a_paused_one_is_told_once(setting: Setting) -> None:
    told = paused(setting, tells_fin=True)
    assert setting.watched == EDGE | select.EPOLLRDHUP
    setting.arrives(events=READABLE)  # it was another socket's
    assert told == []
    setting.poller.now = select.POLLRDHUP
    setting.transport.ready(select.EPOLLRDHUP)
    setting.transport.ready(select.EPOLLRDHUP | select.EPOLLHUP)
    assert told == ["fin"] and setting.watched == EDGE and setting.events == []
    setting.transport.resume_reading()
    assert setting.watched == READABLE
    setting.arrives(FIN, events=READABLE)
    assert setting.events == [b"unread", "eof"]


def test_a_fin_that_is_not_asked_for_stays_behind_what_is_unread(setting: Setting) -> None:
    paused(setting, tells_fin=False)
    setting.poller.now = select.POLLRDHUP | select.POLLHUP  # both directions are shut down, which is no reset
    setting.transport.ready(RESET)
    assert setting.watched == EDGE and setting.events == [] and not setting.transport.is_closing()


@pytest.mark.parametrize("tells_fin", [True, False])
def test_the_reset_of_a_paused_one_ends_it(setting: Setting, tells_fin: bool) -> None:
    told = paused(setting, tells_fin=tells_fin)
    setting.poller.now = select.POLLERR | select.POLLHUP | select.POLLRDHUP
    setting.sock.error = errno.ECONNRESET
    setting.transport.ready(RESET)
    setting.batch_ends()
    ((what, error),) = cast(list[tuple[str, OSError]], setting.events)
    assert (what, error.errno, told) == ("lost", errno.ECONNRESET, [])


def test_the_reset_behind_a_fin_ends_it(setting: Setting) -> None:
    setting.protocol.keeps_open = True
    setting.transport.watch_end(None)
    setting.arrives(FIN, events=READABLE)
    assert setting.watched == EDGE
    setting.poller.now, setting.sock.error = select.POLLERR, errno.ECONNRESET
    setting.transport.ready(RESET)
    setting.batch_ends()
    assert setting.transport.is_closing() and len(setting.events) == 2


def test_a_paused_one_that_is_watched_still_writes(setting: Setting) -> None:
    """Room to write is told again and again, until it is used up."""
    paused(setting, tells_fin=True)
    setting.sock.room = 0
    setting.transport.write(b"x")
    assert setting.watched == WRITABLE | select.EPOLLRDHUP
    setting.sock.room = 1
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"x"
    setting.transport.ready(select.EPOLLIN)
    assert setting.watched == EDGE | select.EPOLLRDHUP


def test_one_that_is_paused_and_writes_comes_to_be_watched(setting: Setting) -> None:
    setting.transport.pause_reading()
    setting.arrives(b"unread")
    setting.sock.room = 0
    setting.transport.write(b"x")
    assert setting.watched == WRITABLE
    setting.transport.watch_end(lambda: None)
    assert setting.watched == WRITABLE | select.EPOLLRDHUP


def test_one_that_is_paused_and_out_of_the_epoll_comes_back_to_be_watched(setting: Setting) -> None:
    setting.transport.pause_reading()
    setting.arrives(b"unread")
    assert not setting.watched
    setting.transport.watch_end(None)
    assert setting.watched == EDGE


def test_a_defect_of_who_is_told_ends_it(setting: Setting) -> None:
    def fail() -> None:
        raise RuntimeError("defect")

    setting.transport.pause_reading()
    setting.transport.watch_end(fail)
    setting.poller.now = select.POLLRDHUP
    setting.transport.ready(select.EPOLLRDHUP)
    setting.batch_ends()
    assert len(setting.poller.defects) == 1 and setting.transport.is_closing()


# --- writing --------------------------------------------------------------------------------------------------------


def test_what_the_kernel_does_not_take_follows_when_it_does(setting: Setting) -> None:
    setting.sock.room = 3
    setting.transport.write(b"hello ")
    setting.transport.write(b"world")
    assert setting.sock.taken == b"hel" and setting.watched == READABLE | WRITABLE
    assert setting.transport.get_write_buffer_size() == 8
    setting.sock.room = 4
    setting.transport.ready(WRITABLE)
    setting.transport.ready(WRITABLE)  # no room after all
    assert setting.transport.get_write_buffer_size() == 4
    setting.sock.room = 100
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"hello world" and setting.watched == READABLE
    assert setting.transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("room", range(9))
def test_several_pieces_are_one_system_call(setting: Setting, room: int) -> None:
    setting.sock.room = room
    setting.transport.writelines((b"head", b"body"))
    assert setting.sock.taken == b"headbody"[:room] and setting.sock.calls == ["sendmsg"]
    setting.sock.room = 100
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"headbody"


def test_several_pieces_behind_what_is_kept(setting: Setting) -> None:
    setting.sock.room = 0
    setting.transport.write(b"1")
    setting.transport.writelines((b"2", b"3"))
    setting.sock.room = 9
    setting.transport.ready(WRITABLE)
    assert setting.sock.taken == b"123"


def test_back_pressure(setting: Setting) -> None:
    setting.sock.room = 0
    setting.transport.write(bytes(HIGH_WATER))
    assert setting.events == []
    setting.transport.write(b"1")
    setting.transport.write(b"2")
    assert setting.events == ["pause"]
    setting.sock.room = HIGH_WATER // 4 * 3 + 1
    setting.transport.ready(WRITABLE)
    assert setting.events == []
    setting.sock.room = 1
    setting.transport.ready(WRITABLE)
    assert setting.events == ["resume"]


def test_a_limit_of_nothing_tells_when_all_is_sent(setting: Setting) -> None:
    """Splicing begins then."""
    setting.sock.room = 0
    setting.transport.write(b"123")
    setting.transport.set_write_buffer_limits(high=0)
    assert setting.events == ["pause"]
    setting.sock.room = 2
    setting.transport.ready(WRITABLE)
    assert setting.events == []
    setting.sock.room = 1
    setting.transport.ready(WRITABLE)
    assert setting.events == ["resume"]


def test_closing_sends_what_is_kept_and_reads_nothing(setting: Setting) -> None:
    setting.sock.room = 1
    setting.transport.write(b"12")
    setting.transport.close()
    setting.transport.write(b"too late")
    assert setting.watched == WRITABLE and not setting.poller.later
    setting.sock.room = 9
    setting.arrives(b"not read", events=READABLE | WRITABLE)
    setting.batch_ends()
    assert setting.sock.taken == b"12" and setting.events == [("lost", None)]


def test_a_fin_goes_behind_what_is_kept(setting: Setting) -> None:
    setting.sock.room = 1
    setting.transport.write(b"12")
    setting.transport.write_eof()
    setting.transport.write(b"too late")
    assert setting.transport.can_write_eof() and setting.sock.calls == []
    setting.sock.room = 9
    setting.transport.ready(WRITABLE)
    setting.transport.write_eof()
    assert setting.sock.taken == b"12" and setting.sock.calls == ["shutdown"]
    assert setting.watched == READABLE


def test_a_fin_to_a_peer_that_is_gone(setting: Setting) -> None:
    setting.sock.send_error = OSError(errno.ENOTCONN, "gone")
    setting.transport.write_eof()
    assert not setting.transport.is_closing()


@pytest.mark.parametrize("how", ["write", "writelines", "later"])
def test_a_write_that_fails_ends_the_connection(setting: Setting, how: str) -> None:
    error = BrokenPipeError(errno.EPIPE, "broken")
    if how == "later":
        setting.sock.room = 0
        setting.transport.write(b"x")
    setting.sock.send_error = error
    if how == "write":
        setting.transport.write(b"x")
    elif how == "writelines":
        setting.transport.writelines((b"x", b"y"))
    else:
        setting.transport.ready(ERROR)  # without EPOLLOUT
    assert setting.transport.is_closing() and setting.events == [] and not setting.watched
    setting.batch_ends()
    assert setting.events == [("lost", error)]


def test_aborting_drops_what_is_kept(setting: Setting) -> None:
    setting.sock.room = 0
    setting.transport.write(b"x")
    setting.transport.abort()
    assert setting.transport.get_write_buffer_size() == 0
    setting.batch_ends()
    assert setting.events == [("lost", None)] and setting.sock.taken == b""


# --- the rest -------------------------------------------------------------------------------------------------------


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(4))
        self.got: list[object] = []

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got.append(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> bool:
        self.got.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.got.append(("lost", exc))


def test_a_protocol_with_a_buffer_and_back(setting: Setting) -> None:
    buffered = Buffered()
    setting.transport.set_protocol(buffered)
    setting.transport.ready(READABLE)  # nothing there
    setting.arrives(b"123456", events=READABLE)
    assert buffered.got == [b"1234", b"56"]
    setting.transport.set_protocol(setting.protocol)
    setting.arrives(b"plain")
    assert setting.events == [b"plain"]
    setting.transport.set_protocol(buffered)
    setting.arrives(FIN)
    setting.batch_ends()
    assert buffered.got[2:] == ["eof", ("lost", None)]


def test_a_reset_while_a_buffer_is_filled(setting: Setting) -> None:
    buffered = Buffered()
    setting.transport.set_protocol(buffered)
    error = ConnectionResetError()
    setting.arrives(error)
    setting.batch_ends()
    assert buffered.got == [("lost", error)]


def test_what_is_known_of_the_connection(setting: Setting) -> None:
    info = setting.transport.get_extra_info
    assert info("peername") == info("peername") == ("192.0.2.1", 1)
    assert setting.sock.calls == ["getpeername"]
    assert info("sockname") is None  # it was reset
    assert info("ssl_object") is None and info("client_subject", "nobody") == "nobody"
    assert cast(Any, info("socket")) is setting.sock
    known = SocketTransport(cast(Poller, setting.poller), cast(socket.socket, setting.sock), ("a", 1), ("b", 2))
    assert (known.get_extra_info("peername"), known.get_extra_info("sockname")) == (("a", 1), ("b", 2))


def test_whoever_has_the_socket_may_have_duplicated_it(setting: Setting) -> None:
    setting.transport.get_extra_info("socket")
    setting.transport.close()
    assert setting.poller.calls == ["drop shared"]


def test_when_it_is_over_nothing_happens_any_more(setting: Setting) -> None:
    setting.transport.abort()
    setting.batch_ends()
    setting.protocol.events = []
    for act in (
        setting.transport.close,
        setting.transport.abort,
        setting.transport.write_eof,
        setting.transport.pause_reading,
        setting.transport.resume_reading,
    ):
        act()
    setting.transport.write(b"x")
    setting.transport.set_protocol(setting.protocol)
    setting.transport.ready(READABLE | WRITABLE)
    assert setting.events == [] and not setting.watched and not setting.poller.later and setting.sock.taken == b""


def test_a_defect_of_the_protocol_ends_the_connection(setting: Setting) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("defect")

    starting = Recorder()
    starting.on_made = fail
    other = Setting(starting)
    assert other.transport.is_closing() and len(other.poller.defects) == 1
    setting.protocol.pause_writing = fail  # type: ignore[method-assign]
    setting.sock.room = 0
    setting.transport.write(bytes(HIGH_WATER + 1))
    assert setting.transport.is_closing() and len(setting.poller.defects) == 1
    setting.batch_ends()
    assert setting.events == [("lost", None)]


def test_the_poller_s_report_of_a_defect_ends_it(setting: Setting) -> None:
    setting.transport.crashed(RuntimeError("defect"))
    setting.batch_ends()
    assert setting.events == [("lost", None)]


def test_no_room_in_the_epoll_ends_it() -> None:
    setting = Setting(is_full=True)
    setting.batch_ends()
    (made, lost) = setting.events
    assert made == "made" and isinstance(cast(Any, lost)[1], OSError)


# --- small writes wait for the end of the turn ---------------------------------------------------------------------


@pytest.fixture
def turning(setting: Setting) -> Setting:
    setting.poller.turns.is_turning = True
    return setting


def test_small_writes_of_one_turn_are_one_system_call(turning: Setting) -> None:
    turning.transport.write(b"head")
    turning.transport.write(b"body")
    assert (turning.sock.taken, turning.transport.get_write_buffer_size()) == (b"", 8)
    assert len(turning.poller.turns.due) == 1
    turning.poller.turns.end()
    assert (turning.sock.taken, turning.transport.get_write_buffer_size()) == (b"headbody", 0)
    turning.transport.flush()
    assert turning.sock.taken == b"headbody"


def test_nothing_overtakes_what_is_held(turning: Setting) -> None:
    large = b"x" * (SMALL + 1)
    turning.transport.write(b"1")
    turning.transport.write(large)
    assert turning.sock.taken == b"1" + large
    turning.transport.write(b"2")
    turning.transport.writelines([b"3", b"4"])
    assert turning.sock.taken == b"1" + large + b"234"
    turning.poller.turns.end()
    assert turning.sock.taken == b"1" + large + b"234"


def test_what_is_not_bytes_may_change_and_is_sent_at_once(turning: Setting) -> None:
    turning.transport.write(memoryview(b"view"))
    assert turning.sock.taken == b"view"


def test_what_is_held_is_bounded(turning: Setting) -> None:
    piece = b"x" * SMALL
    for _ in range(MOST_HELD // SMALL + 1):
        turning.transport.write(piece)
    assert len(turning.sock.taken) == MOST_HELD + SMALL


def test_the_end_goes_behind_what_is_held(turning: Setting) -> None:
    turning.transport.write(b"last")
    turning.transport.close()
    assert turning.sock.taken == b"last"
    turning.batch_ends()
    assert turning.events == [("lost", None)]


@pytest.mark.parametrize("held", [b"last", b""])
def test_a_fin_leaves_at_the_end_of_the_turn_behind_what_is_held(turning: Setting, held: bytes) -> None:
    if held:
        turning.transport.write(held)
    turning.transport.write_eof()
    assert "shutdown" not in turning.sock.calls
    turning.poller.turns.end()
    assert turning.sock.taken == held and turning.sock.calls.count("shutdown") == 1
    assert turning.events == []


def test_whoever_closes_in_the_same_turn_needs_no_fin_of_its_own(turning: Setting) -> None:
    turning.transport.write_eof()
    turning.transport.close()
    turning.batch_ends()
    turning.poller.turns.end()
    assert "shutdown" not in turning.sock.calls and "close" in turning.sock.calls


def test_aborting_drops_what_is_held(turning: Setting) -> None:
    turning.transport.write(b"never")
    turning.transport.abort()
    turning.transport.close()
    turning.poller.turns.end()
    assert turning.sock.taken == b""
    assert turning.transport.get_write_buffer_size() == 5, "its protocol cannot tell that nothing was sent"
    turning.batch_ends()
    assert turning.transport.get_write_buffer_size() == 0


def test_a_limit_of_nothing_tells_when_what_is_held_is_sent(turning: Setting) -> None:
    turning.transport.write(b"last")
    turning.transport.set_write_buffer_limits(high=0)
    assert turning.events[-1] == "pause"
    turning.poller.turns.end()
    assert turning.events == ["resume"]


def test_what_the_kernel_does_not_take_at_the_end_of_the_turn_follows(turning: Setting) -> None:
    turning.sock.room = 2
    turning.transport.write(b"four")
    turning.poller.turns.end()
    assert (turning.sock.taken, turning.transport.get_write_buffer_size()) == (b"fo", 2)
    turning.sock.room = 10
    turning.transport.ready(select.EPOLLOUT)
    assert turning.sock.taken == b"four"


def test_while_another_one_waits_to_be_closed_nothing_is_sent_at_once(turning: Setting) -> None:
    """Its reset goes first: a server with one slot must not see the next request before it."""
    large = b"x" * (SMALL + 1)
    turning.poller.is_ending = True
    turning.transport.write(large)
    turning.transport.writelines([large, b"!"])
    assert turning.sock.taken == b""
    for _ in range(MOST_HELD // SMALL):
        turning.transport.write(large)
    turning.poller.turns.end()
    assert turning.sock.taken.startswith(large + large + b"!" + large)
    assert len(turning.sock.taken) == len(large) * (2 + MOST_HELD // SMALL) + 1
