from __future__ import annotations

import socket

import pytest

from lbproxy.process.workers import neighbours
from lbproxy.process.workers.neighbours import Post

PEER = ("192.0.2.1", 4711)


class FakeEnd:
    """One end of a mailbox: what is sent is there to be read."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.messages: list[tuple[bytes, int]] = []

    def recvmsg(self, _bytes: int, _space: int, _flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        if not self.messages:
            raise BlockingIOError
        name, fd = self.messages.pop(0)
        return name, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))], 0, None


class FakeSocket:
    def __init__(self, fileno: int) -> None:
        self.fd = fileno
        self.is_closed = False

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_fds(end: FakeEnd, buffers: list[bytes], fds: list[int]) -> None:
        if len(end.messages) >= end.most:
            raise BlockingIOError
        end.messages.append((buffers[0], fds[0]))

    monkeypatch.setattr(socket, "send_fds", send_fds)
    monkeypatch.setattr(socket, "socket", FakeSocket)


def posts(*, most: int = 10, can_take: bool = True) -> tuple[Post, Post, list[tuple[str, FakeSocket]]]:
    boxes = [(end, end) for end in (FakeEnd(most), FakeEnd(most))]
    taken: list[tuple[str, FakeSocket]] = []

    def take(name: str, connection: object, peer: object) -> bool:
        assert isinstance(connection, FakeSocket) and peer == PEER
        taken.append((name, connection))
        return name != "gone"

    first, second = (Post(boxes, number, lambda worker: can_take, take) for number in range(2))  # type: ignore[arg-type]
    first.is_on = second.is_on = True
    return first, second, taken


def test_a_connection_comes_with_the_name_of_its_listener() -> None:
    first, second, taken = posts()
    assert first.hand(1, "web", 77, PEER)
    assert (second.receive(), first.receive()) == (1, 0)
    assert [(name, connection.fd, connection.is_closed) for name, connection in taken] == [("web", 77, False)]


def test_one_of_a_listener_that_is_no_more_is_closed() -> None:
    first, second, taken = posts()
    first.hand(1, "gone", 77, PEER)
    second.receive()
    assert taken[0][1].is_closed


def test_nothing_is_handed_over_to_who_cannot_take_it_or_has_no_room_or_by_who_ends() -> None:
    assert not posts(can_take=False)[0].hand(1, "web", 77, PEER)
    first, _, _ = posts(most=1)
    assert [first.hand(1, "web", 77, PEER), first.hand(1, "web", 78, PEER)] == [True, False]
    first, _, _ = posts()
    first.is_on = False
    assert not first.hand(1, "web", 77, PEER)


def test_many_are_taken_in_several_turns() -> None:
    first, second, _ = posts(most=100)
    for _ in range(neighbours.AT_ONCE + 3):
        first.hand(1, "web", 7, PEER)
    assert [second.receive(), second.receive(), second.receive()] == [neighbours.AT_ONCE, 3, 0]
