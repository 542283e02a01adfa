"""Conversations of HTTP/2 without sockets: against the library `h2`, cut anywhere, and with octets that are wrong.

A case is a seed of a few octets, from which all of it follows.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings

from lbproxy.protocol.h2.codes import PREFACE
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.settings import OwnSettings
from tests.fuzz.oracle import Verdict, differ
from tests.support.h2_ends import RecordingEnd

OFF = OwnSettings(resets=0, control_frames=0)
_STEPS = 60
Message = list[object]
"""What one side of a stream said: heads, octets, trailers, "end", ("reset", code)."""


def _add(messages: dict[int, Message], stream: int, *said: object) -> None:
    """DATA that follows DATA is one piece: frames are no part of a message."""
    message = messages.setdefault(stream, [])
    for one in said:
        if isinstance(one, bytes) and message and isinstance(message[-1], bytes):
            message[-1] += one
        elif one != b"":
            message.append(one)


def heard_by(end: RecordingEnd) -> dict[int, Message]:
    """What the hooks were told, by stream."""
    messages: dict[int, Message] = {}
    for word, *rest in end.seen:
        if word == "head":
            stream, *start, lines, is_end = rest
            head: tuple[object, ...] = (*start, lines)
            _add(messages, _number(stream), head, *(["end"] if is_end else []))
        elif word == "data":
            _add(messages, _number(rest[0]), rest[1], *(["end"] if rest[2] else []))
        elif word == "trailers":
            _add(messages, _number(rest[0]), rest[1], "end")
        elif word == "reset":
            _add(messages, _number(rest[0]), ("reset", rest[1]))
    return messages


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


class _Library:
    """The library's end, and what it heard."""

    def __init__(self, is_client: bool, rng: random.Random) -> None:
        config = h2.config.H2Configuration(client_side=is_client, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.connection.update_settings(
            {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: rng.choice((500, 5_000, 65_535))}
        )
        self.heard: dict[int, Message] = {}
        self.said: dict[int, Message] = {}
        self.open: set[int] = set()  # streams that it may still send on
        self._owed: list[tuple[int, int]] = []

    def received(self, octets: bytes, rng: random.Random) -> None:
        for event in self.connection.receive_data(octets):
            if isinstance(event, h2.events.RequestReceived):
                fields = dict(event.headers)
                lines = _lines(event.headers)
                _add(self.heard, event.stream_id, (fields[b":method"], fields[b":path"], lines))
                self.open.add(event.stream_id)
            elif isinstance(event, h2.events.ResponseReceived):
                status = int(dict(event.headers)[b":status"])
                _add(self.heard, event.stream_id, (status, _lines(event.headers)))
            elif isinstance(event, h2.events.DataReceived):
                _add(self.heard, event.stream_id, event.data)
                self._owed.append((event.stream_id, event.flow_controlled_length))
            elif isinstance(event, h2.events.TrailersReceived):
                _add(self.heard, event.stream_id, tuple((bytes(n), bytes(v)) for n, v in event.headers))
            elif isinstance(event, h2.events.StreamEnded):
                _add(self.heard, event.stream_id, "end")
            elif isinstance(event, h2.events.StreamReset):
                _add(self.heard, event.stream_id, ("reset", int(event.error_code)))
                self.open.discard(event.stream_id)
        rng.shuffle(self._owed)
        while self._owed and rng.random() < 0.9:
            stream, amount = self._owed.pop()
            if amount:
                self.connection.acknowledge_received_data(amount, stream)

    def settle(self) -> None:
        for stream, amount in self._owed:
            if amount:
                self.connection.acknowledge_received_data(amount, stream)
        self._owed.clear()

    def say_something(self, rng: random.Random) -> None:
        """More of a body, its end, trailers, or a reset, on one of its open streams."""
        stream = rng.choice(sorted(self.open))
        kind = rng.random()
        if kind < 0.6:
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            octets = rng.randbytes(min(room, rng.choice((0, 1, 100, 9_000))))
            padding = rng.choice((None, None, 0, 7)) if room > len(octets) + 8 else None
            is_end = rng.random() < 0.2
            self.connection.send_data(stream, octets, end_stream=is_end, pad_length=padding)
            _add(self.said, stream, octets, *(["end"] if is_end else []))
            if is_end:
                self.open.discard(stream)
        elif kind < 0.9:
            self.connection.send_headers(stream, [(b"x-end", b"%d" % stream)], end_stream=True)
            _add(self.said, stream, ((b"x-end", b"%d" % stream),), "end")
            self.open.discard(stream)
        else:
            self.connection.reset_stream(stream, 8)
            _add(self.said, stream, ("reset", 8))
            self.open.discard(stream)


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % (name, value) for name, value in headers if not name.startswith(b":")])


class _Sender:
    """Says something on streams of our end; what windows hold back is kept, and goes on when they open."""

    def __init__(self, end: RecordingEnd) -> None:
        self.end = end
        self.said: dict[int, Message] = {}
        self.open: set[int] = set()
        self.waiting: dict[int, tuple[bytes, bool]] = {}

    def say_something(self, rng: random.Random) -> None:
        stream = rng.choice(sorted(self.open))
        if not self.end.has_stream(stream):
            self.open.discard(stream)
            self.waiting.pop(stream, None)
            return
        kind = rng.random()
        if kind < 0.7 or stream in self.waiting:
            if stream not in self.waiting:
                self.waiting[stream] = (rng.randbytes(rng.choice((0, 1, 500, 40_000))), rng.random() < 0.2)
            self.go_on(stream)
        elif kind < 0.9:
            self.end.send_trailers(stream, b"X-End: %d\r\n" % stream)
            _add(self.said, stream, ((b"x-end", b"%d" % stream),), "end")
            self.open.discard(stream)
        else:
            self.end.reset(stream, 8)
            _add(self.said, stream, ("reset", 8))
            self.open.discard(stream)

    def go_on(self, stream: int) -> None:
        octets, is_end = self.waiting.pop(stream)
        if not self.end.has_stream(stream):
            self.open.discard(stream)
            return
        taken = self.end.send_data(stream, octets, is_end)
        done = taken == len(octets)
        _add(self.said, stream, octets[:taken], *(["end"] if done and is_end else []))
        if not done:
            self.waiting[stream] = (octets[taken:], is_end)
        elif is_end:
            self.open.discard(stream)

    def settle(self) -> None:
        for stream in list(self.waiting):
            self.go_on(stream)


def check_conversation(data: bytes) -> Verdict:
    """Both ends hear what the other said, until it was reset by either; nobody finds a fault."""
    rng = random.Random(data)
    is_server = rng.random() < 0.5
    end = RecordingEnd(is_server, OFF)
    library = _Library(is_server, rng)
    sender = _Sender(end)
    answered: set[int] = set()

    def carry() -> None:
        octets = library.connection.data_to_send()
        cut = rng.randint(0, len(octets))
        end.received(octets[:cut], 0.0)
        end.received(octets[cut:], 0.0)
        library.received(end.take_output(), rng)

    def begin() -> None:
        number = rng.randrange(3)
        if is_server:
            stream = library.connection.get_next_available_stream_id()
            library.connection.send_headers(
                stream,
                [
                    (b":method", b"POST"),
                    (b":scheme", b"http"),
                    (b":authority", b"a"),
                    (b":path", b"/p"),
                    (b"n", b"%d" % number),
                ],
            )
            _add(library.said, stream, (b"POST", b"/p", b"n: %d\r\n" % number))
            library.open.add(stream)
        else:
            stream = end.open_stream()
            end.send_request(stream, b"POST", b"http", b"a", b"/p", b"N: %d\r\n" % number, b"", False)
            _add(sender.said, stream, (b"POST", b"/p", b"n: %d\r\n" % number))
            sender.open.add(stream)

    def answer() -> None:
        lines = b"a: %d\r\n" % rng.randrange(3)
        if is_server:
            for stream in [stream for stream in heard_by(end) if stream not in answered and end.has_stream(stream)][:1]:
                answered.add(stream)
                end.send_answer(stream, 200, lines, b"", False)
                _add(sender.said, stream, (200, lines))
                sender.open.add(stream)
        else:
            for stream in sorted(library.open - answered)[:1]:
                answered.add(stream)
                library.connection.send_headers(stream, [(b":status", b"200"), (b"a", lines[3:-2])])
                _add(library.said, stream, (200, lines))

    def say() -> None:
        if sender.open:
            sender.say_something(rng)
        mine = library.open if is_server else library.open & answered
        if mine:
            kept, library.open = library.open, set(mine)
            library.say_something(rng)
            library.open = {stream for stream in kept if stream not in mine or stream in library.open}

    carry()
    carry()
    steps: list[Callable[[], None]] = [begin, answer, say, say, say, carry, carry]
    for _ in range(_STEPS):
        rng.choice(steps)()
        if end.is_failed:
            break
    idle = 0
    for _ in range(1_000):
        carry()
        library.settle()
        sender.settle()
        idle = 0 if sender.waiting else idle + 1
        if idle == 4:
            break
    differ("a fault", [entry for entry in end.seen if entry[0] in ("failed", "malformed")], [], data)
    _compare("the library heard", library.heard, sender.said, library.said, data)
    _compare("lbproxy heard", heard_by(end), library.said, sender.said, data)
    return Verdict(True, True)


def _compare(
    what: str, heard: dict[int, Message], said: dict[int, Message], answers: dict[int, Message], data: bytes
) -> None:
    """A stream that the listener has reset may have heard less; and a reset that crosses another is not told."""
    for stream, message in said.items():
        got = list(heard.get(stream, []))
        own = answers.get(stream, [])
        if ("reset", 8) in own:
            got = [part for part in got if part != ("reset", 8)]
            sent = [part for part in message if part != ("reset", 8)]
            flat, wanted = _flat(got), _flat(sent)
            differ(f"{what} on {stream}", flat, wanted[: len(flat)], data)
        elif ("reset", 8) in message:
            # What was under way may be gone with it, but the reset is told.
            flat, wanted = _flat([part for part in got if part != ("reset", 8)]), _flat(message)
            differ(f"{what} on {stream}", flat, wanted[: len(flat)], data)
            if "end" not in own or "end" not in message:
                differ(f"{what} on {stream} that it is reset", ("reset", 8) in got, True, data)
        else:
            differ(f"{what} on {stream}", got, message, data)


def _flat(message: Message) -> list[object]:
    """DATA octet by octet."""
    return [one for part in message for one in (list(part) if isinstance(part, bytes) else [part])]


# --- octets that are wrong ------------------------------------------------------------------------------------------


def sound_octets(rng: random.Random) -> bytes:
    """What a client says in a conversation that nothing is wrong with."""
    library = _Library(True, rng)
    for _ in range(rng.randint(1, 25)):
        kind = rng.random()
        if kind < 0.3 or not library.open:
            stream = library.connection.get_next_available_stream_id()
            fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
            fields += [(b"n", b"%d" % rng.randrange(9)), (b"cookie", b"a=b")][: rng.randrange(3)]
            is_end = rng.random() < 0.3
            library.connection.send_headers(stream, fields, end_stream=is_end)
            if not is_end:
                library.open.add(stream)
        elif kind < 0.4:
            library.connection.ping(rng.randbytes(8))
        elif kind < 0.5:
            library.connection.increment_flow_control_window(
                rng.randint(1, 1_000), rng.choice((None, min(library.open)))
            )
        elif kind < 0.55:
            library.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: rng.randint(0, 9_000)})
        else:
            library.say_something(rng)
    return library.connection.data_to_send()


class _Talker(RecordingEnd):
    """Answers each request, so that both halves of a connection are at work."""

    def head_received(self, stream_id: int, head: object, is_end: bool) -> None:
        super().head_received(stream_id, head, is_end)  # type: ignore[arg-type]
        self.send_answer(stream_id, 200, b"A: b\r\n", b"x-id: 1\r\n", False)
        self.send_data(stream_id, b"x" * 100, stream_id % 4 == 1)


def check_cuts(data: bytes) -> Verdict:
    """A sequence that is sound or not, in one piece, octet by octet, and in some pieces: the same hooks and output."""
    rng = random.Random(data)
    octets = sound_octets(rng)
    is_sound = rng.random() < 0.3
    if not is_sound:
        octets = broken(rng, octets)
    words = in_pieces(rng, octets, lambda: _Talker(True, OFF))
    if is_sound:
        differ("a fault", [word for word in words if word in ("failed", "malformed")], [], octets)
    return Verdict("failed" not in words and "malformed" not in words, is_sound)


def in_pieces(rng: random.Random, octets: bytes, make: Callable[[], RecordingEnd]) -> list[object]:
    """The words of what an end makes of them, which are the same however they are cut. Raises Disagreement."""
    whole = make()
    whole.received(octets, 0.0)
    for size in (1, rng.randint(2, 50)):
        end = make()
        for at in range(0, len(octets), size):
            end.received(octets[at : at + size], 0.0)
        differ(f"hooks in pieces of {size}", end.seen, whole.seen, octets)
        differ(f"output in pieces of {size}", end.take_output(), _copy(whole), octets)
    at = rng.randint(0, len(octets))
    end = make()
    end.received(octets[:at], 0.0)
    end.received(octets[at:], 0.0)
    differ(f"hooks, cut at {at}", end.seen, whole.seen, octets)
    words = whole.words()
    differ("failures", words.count("failed"), int(whole.is_failed), octets)
    if whole.is_failed:
        differ("what comes after a failure", words[-1], "failed", octets)
    bounded(whole, octets)
    return words


def _copy(end: H2Connection) -> bytes:
    """Its output, left where it is."""
    octets = end.take_output()
    end._put(octets)
    return octets


def broken(rng: random.Random, octets: bytes, begin: int = len(PREFACE)) -> bytes:
    """With a few octets changed, left out, doubled, or frames out of order; nothing before `begin`."""
    changed = bytearray(octets)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(begin, len(changed))
        kind = rng.random()
        if kind < 0.5:
            changed[at] = rng.randrange(256)
        elif kind < 0.65:
            del changed[at : at + rng.choice((1, 9, 13))]
        elif kind < 0.85:
            changed[at:at] = changed[at : at + rng.choice((1, 9, 13, 40))]
        else:
            changed[at:at] = rng.randbytes(rng.choice((1, 9)))
        if len(changed) <= begin + 1:
            break
    return bytes(changed)


def bounded(end: H2Connection, octets: bytes) -> None:
    """Nothing in its books is larger than what was allowed, or came."""
    assert end.n_streams <= end.own.streams
    assert end._n_kept <= 9 + 16_384
    assert end.decoder.size <= 4_096
    assert end.n_output <= 2 * len(octets) + 400 + 200 * len(octets) // 10
    assert all(stream.receive_window >= 0 for stream in end._streams.values())
