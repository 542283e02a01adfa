"""A stream as the transport of a tunnel: what its relay hears, and what the stream is asked."""

from __future__ import annotations

import inspect
from typing import cast

import pytest

from lbproxy.dataplane.net.framed_transport import HIGH_WATER, Carried, FramedTransport
from lbproxy.dataplane.net.socket_transport import Receiver
from tests.support.fake_transport import FakeClock, FakeLoop

pytestmark = pytest.mark.skipif(
    not inspect.isfunction(Carried.send), reason="only compiled classes derive from a compiled trait"
)


class Stream(Carried):
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bool]] = []
        self.n_unsent = 0
        self.credit = 0
        self.ends: list[bool] = []

    def send(self, data: bytes, *, is_end: bool) -> None:
        self.sent.append((data, is_end))

    def taken_back(self, n_flow: int) -> None:
        self.credit += n_flow

    def unsent_size(self) -> int:
        return self.n_unsent

    def sent_size(self) -> int:
        return 7

    def let_go_of_stream(self, *, is_abort: bool) -> None:
        self.ends.append(is_abort)


class End(Receiver):
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.pauses: FramedTransport | None = None

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        if data == b"defect":
            raise RuntimeError("a defect")
        if self.pauses is not None:
            self.pauses.pause_reading()

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


class Rig:
    def __init__(self) -> None:
        self.loop = FakeLoop(FakeClock())
        self.stream, self.end = Stream(), End()
        self.defects: list[BaseException] = []
        self.transport = FramedTransport(cast("object", self.loop), self.stream, self._defect)  # type: ignore[arg-type]
        self.transport.set_protocol(self.end)

    def _defect(self, where: str, error: BaseException) -> None:
        self.defects.append(error)


def test_what_comes_goes_on_and_its_credit_back() -> None:
    rig = Rig()
    rig.transport.received(b"ab", 5, is_end=False)
    rig.transport.received(b"", 3, is_end=True)
    assert rig.end.heard == [b"ab", "eof"] and rig.stream.credit == 8
    assert rig.transport.get_protocol() is rig.end and rig.transport.is_reading()


def test_a_pause_keeps_what_comes_in_its_order() -> None:
    rig = Rig()
    rig.transport.pause_reading()
    for data, is_end in ((b"a", False), (b"b", False), (bytes(HIGH_WATER), False), (b"", True)):
        rig.transport.received(data, len(data), is_end=is_end)
    assert rig.end.heard == [] and rig.stream.credit == 0 and rig.transport.n_kept == 2 + HIGH_WATER
    rig.transport.resume_reading()
    rig.transport.received(b"", 0, is_end=True)
    assert rig.end.heard == [], "from the loop: who resumes may be in the middle of something"
    rig.loop.run()
    assert b"".join(item for item in rig.end.heard if isinstance(item, bytes)) == b"ab" + bytes(HIGH_WATER)
    assert rig.end.heard[-1] == "eof" and rig.end.heard.count("eof") == 1
    assert rig.stream.credit == 2 + HIGH_WATER and rig.transport.n_kept == 0


def test_octet_by_octet_costs_no_object_for_each() -> None:
    rig = Rig()
    rig.transport.pause_reading()
    for _ in range(1000):
        rig.transport.received(b"x", 1, is_end=False)
    assert len(rig.transport._kept) == 1 and rig.transport.n_kept == 1000


def test_a_receiver_that_takes_no_more_holds_back_the_credit_of_what_it_got() -> None:
    rig = Rig()
    rig.end.pauses = rig.transport
    rig.transport.received(b"a", 1, is_end=False)
    rig.transport.received(b"b", 1, is_end=False)
    assert rig.end.heard == [b"a"] and rig.stream.credit == 0
    rig.transport.resume_reading()
    assert rig.stream.credit == 1
    rig.loop.run()
    assert rig.end.heard == [b"a", b"b"] and rig.stream.credit == 1


def test_writing_waits_above_the_mark_and_goes_on_when_all_is_sent() -> None:
    rig = Rig()
    rig.transport.set_write_buffer_limits(high=10)
    rig.stream.n_unsent = 10
    rig.transport.write(b"a")
    assert rig.end.heard == []
    rig.stream.n_unsent = 11
    rig.transport.write(bytearray(b"b"))
    rig.transport.write(memoryview(b"c"))
    assert rig.end.heard == ["pause"] and rig.transport.get_write_buffer_size() == 11
    rig.transport.emptied()
    rig.transport.emptied()
    assert rig.end.heard == ["pause", "resume"] and rig.transport.taken(100) == 7
    assert rig.transport.can_write_eof()
    rig.transport.write_eof()
    rig.transport.write_eof()
    rig.transport.write(b"d")
    assert rig.stream.sent == [(b"a", False), (b"b", False), (b"c", False), (b"", True)]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_end_is_said_once_and_gives_everything_back(end: str) -> None:
    rig = Rig()
    rig.transport.pause_reading()
    rig.transport.received(b"abc", 3, is_end=False)
    getattr(rig.transport, end)()
    rig.transport.close()
    rig.transport.abort()
    assert rig.stream.ends == [end == "abort"] and rig.stream.credit == 3
    rig.transport.write(b"late")
    rig.transport.write_eof()
    rig.transport.resume_reading()
    rig.transport.received(b"late", 4, is_end=True)
    rig.transport.emptied()
    rig.loop.run()
    assert rig.end.heard == [] and rig.stream.sent == [] and rig.transport.is_closing()
    assert (rig.transport.get_write_buffer_size(), rig.transport.taken(5)) == (0, 5)


def test_a_stream_that_is_gone_is_told_and_not_asked() -> None:
    rig = Rig()
    error = ConnectionResetError()
    rig.transport.lost(error)
    rig.transport.lost(error)
    assert rig.end.heard == [error] and rig.stream.ends == []


def test_a_defect_in_what_was_kept_ends_it() -> None:
    rig = Rig()
    rig.transport.pause_reading()
    rig.transport.received(b"defect", 6, is_end=False)
    rig.transport.resume_reading()
    rig.loop.run()
    assert rig.defects and rig.end.heard == [b"defect", rig.defects[0]] and rig.transport.is_closing()
    assert rig.stream.ends == [True], "its peer hears of it, too"


def test_it_has_no_socket_for_the_kernel() -> None:
    rig = Rig()
    assert rig.transport.get_extra_info("socket") is None and rig.transport.get_extra_info("peername", "?") == "?"
    rig.transport.watch_end(None)
