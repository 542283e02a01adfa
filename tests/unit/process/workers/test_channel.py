from __future__ import annotations

import pickle
import struct

import pytest

from lbproxy.process.workers import channel
from lbproxy.process.workers.channel import Channel


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.state = "open"

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"


class End:
    """A channel and what it tells."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.failures: list[str] = []
        self.ended: list[Channel] = []
        self.wire = Wire()
        self.channel = Channel(self._hear, self.ended.append, lambda where, error: self.failures.append(repr(error)))

    def _hear(self, message: object) -> None:
        if message == "bad":
            raise ValueError("bad")
        self.heard.append(message)

    def connect(self) -> None:
        self.channel.connection_made(self.wire)  # type: ignore[arg-type]


def packed(*messages: object) -> bytes:
    bodies = [pickle.dumps(message) for message in messages]
    return b"".join(struct.pack("!I", len(body)) + body for body in bodies)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_are_whole_however_they_come(size: int) -> None:
    end = End()
    end.connect()
    data = packed("one", {"two": 2}, None)
    for start in range(0, len(data), size):
        end.channel.data_received(data[start : start + size])
    assert end.heard == ["one", {"two": 2}, None]


def test_what_is_said_is_what_is_heard() -> None:
    here, there = End(), End()
    here.connect()
    here.channel.send("one")
    here.channel.send([2])
    there.channel.data_received(bytes(here.wire.written))
    assert there.heard == ["one", [2]]


def test_a_message_that_cannot_be_handled_does_not_end_the_channel() -> None:
    end = End()
    end.channel.data_received(packed("bad", "good"))
    assert end.heard == ["good"]
    assert end.failures == ["ValueError('bad')"]


def test_nothing_is_said_before_there_is_a_connection_or_after() -> None:
    end = End()
    end.channel.send("lost")
    end.connect()
    end.channel.close()
    end.channel.send("lost")
    end.channel.connection_lost(None)
    end.channel.send("lost")
    assert end.wire.written == b""
    assert end.ended == [end.channel]


def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MOST_BYTES", 1000)
    end = End()
    end.connect()
    end.channel.send("x" * 900)
    assert end.wire.state == "open"
    end.channel.send("x" * 900)
    assert end.wire.state == "aborted"


def test_a_message_that_is_too_long_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="a message of 1001 bytes"):
        End().channel.data_received(struct.pack("!I", 1001))
