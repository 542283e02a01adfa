"""Messages and descriptors between two processes, over a real socket pair."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from lbproxy.process.upgrade import channel
from lbproxy.process.upgrade.channel import Broken, Gone, Line

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def test_more_sockets_than_the_kernel_takes_at_once(pair: Pair) -> None:
    ours, theirs = pair
    sockets = [socket.socketpair() for _ in range(150)]
    fds = [item.fileno() for both in sockets for item in both]
    sending = threading.Thread(target=channel.send_sockets, args=(ours, fds, {"states": {"a": "x" * 500_000}}))
    sending.start()
    told, found = channel.receive_sockets(theirs)
    sending.join()
    assert told["states"] == {"a": "x" * 500_000} and len(found) == 300
    assert [os.fstat(item.fileno()).st_ino for item in found] == [os.fstat(fd).st_ino for fd in fds]
    assert not any(item.get_inheritable() for item in found)
    for item in (*found, *(item for both in sockets for item in both)):
        item.close()


def test_a_message_takes_not_an_octet_of_the_next(pair: Pair) -> None:
    ours, theirs = pair
    channel.send(ours, "hello", pid=1)
    channel.send(ours, "failed", problems=["é"])
    assert channel.receive(theirs) == {"say": "hello", "pid": 1}
    assert channel.receive(theirs) == {"say": "failed", "problems": ["é"]}


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("!I", 0),
        struct.pack("!I", channel.MOST_BYTES + 1),
        struct.pack("!I", 2) + b"{]",
        struct.pack("!I", 2) + b"{}",
        struct.pack("!I", 2) + b"[]",
        channel.packed("sockets", descriptors=-1),
        channel.packed("sockets", descriptors=channel.MOST_SOCKETS + 1),
        channel.packed("sockets", descriptors="many"),
        channel.packed("sockets", descriptors=1) + b".",
    ],
)
def test_what_can_t_be_understood_is_told_and_bounded(pair: Pair, octets: bytes) -> None:
    ours, theirs = pair
    ours.sendall(octets)
    with pytest.raises(Broken):
        channel.receive_sockets(theirs)


def test_the_end_in_the_middle(pair: Pair) -> None:
    ours, theirs = pair
    for octets in (b"", b"\0\0", channel.packed("hello")[:-1], channel.packed("sockets", descriptors=1)):
        one, other = socket.socketpair()
        with one, other:
            one.sendall(octets)
            one.shutdown(socket.SHUT_WR)
            with pytest.raises(Gone):
                channel.receive_sockets(other)
    theirs.close()
    with pytest.raises(Gone):
        channel.send(ours, "hello")
    with pytest.raises(Gone):
        channel.send_sockets(ours, [0], {})


async def test_the_same_on_the_loop() -> None:
    ours, theirs = socket.socketpair()
    line, other = await Line.on(ours), await Line.on(theirs)
    await line.say("ready", taken=["a"])
    assert await other.hear() == {"say": "ready", "taken": ["a"]}
    other.last_word("abort", why="late")
    assert await line.hear() == {"say": "abort", "why": "late"}
    with pytest.raises(Gone):
        await line.hear()
    line.close()
