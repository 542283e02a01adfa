"""Messages and descriptors without an event loop, over a real socket pair."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from lbproxy.process.upgrade import channel
from lbproxy.process.upgrade.channel import Broken, Gone
from lbproxy.process.upgrade.talk import Talk

Ends = tuple[Talk, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(60)
    with theirs:
        talk = Talk(ours)
        yield talk, theirs
        talk.close()


def test_messages_are_heard_whole_and_one_by_one(ends: Ends) -> None:
    talk, theirs = ends
    assert talk.hear() is None
    both = channel.packed("hello", pid=1) + channel.packed("failed", problems=["é" * 70_000])
    theirs.sendall(both[:9])
    assert talk.hear() is None
    sending = threading.Thread(target=theirs.sendall, args=(both[9:],))
    sending.start()
    found: list[object] = []
    while len(found) < 2:
        select.select([talk], [], [], 60)
        while (told := talk.hear()) is not None:
            found.append(told)
    sending.join()
    assert found == [{"say": "hello", "pid": 1}, {"say": "failed", "problems": ["é" * 70_000]}]


def test_more_than_the_kernel_takes_at_once_is_sent_when_it_is_read(ends: Ends) -> None:
    talk, theirs = ends
    pairs = [socket.socketpair() for _ in range(100)]
    fds = [item.fileno() for both in pairs for item in both]
    assert talk.events == select.POLLIN
    talk.say_sockets(fds, {"states": "x" * 2_000_000})
    assert talk.events == select.POLLIN | select.POLLOUT, "it did not wait"
    received: list[tuple[object, list[socket.socket]]] = []
    reading = threading.Thread(target=lambda: received.append(channel.receive_sockets(theirs)))
    reading.start()
    while talk.events != select.POLLIN:
        select.select([], [talk], [], 60)
        talk.flush()
    reading.join()
    [(told, found)] = received
    assert told == {"say": "sockets", "states": "x" * 2_000_000, "descriptors": 200}
    assert [os.fstat(item.fileno()).st_ino for item in found] == [os.fstat(fd).st_ino for fd in fds]
    for item in (*found, *(item for both in pairs for item in both)):
        item.close()


def test_a_message_that_is_too_long_or_none_is_broken(ends: Ends) -> None:
    talk, theirs = ends
    theirs.sendall(struct.pack("!I", channel.MOST_BYTES + 1))
    with pytest.raises(Broken):
        talk.hear()


def test_an_end_that_is_closed_is_gone(ends: Ends) -> None:
    talk, theirs = ends
    theirs.close()
    with pytest.raises(Gone):
        talk.hear()
    with pytest.raises(Gone):
        talk.say("hello")
