"""Frames that are about a connection, by the rules of RFC 9113 section 6, and how often a peer may send them."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    ACK,
    CANCEL,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_WINDOW,
    NO_ERROR,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTING_MAX_FRAME_SIZE,
    SETTINGS,
    WINDOW_UPDATE,
)
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import (
    GET,
    OK,
    POST,
    RecordingEnd,
    begun,
    frame,
    headers,
    reactions,
    requesting,
    split_frames,
)

POST_1 = headers(1, POST)
CONNECTION = 0


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    ("name", "octets", "answer"),
    [
        ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, bytes(5)), (CONNECTION, PROTOCOL_ERROR)),
        ("6.3 PRIORITY of 4 octets", frame(PRIORITY, 0, 1, bytes(4)), (1, FRAME_SIZE_ERROR)),
        ("6.3 PRIORITY of 4 octets on an idle stream", frame(PRIORITY, 0, 9, bytes(4)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.3 PRIORITY that depends on itself is ignored", frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), None),
        ("6.4 RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, bytes(4)), (CONNECTION, PROTOCOL_ERROR)),
        ("6.4 RST_STREAM of 3 octets", frame(RST_STREAM, 0, 1, bytes(3)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.4 RST_STREAM on an idle stream", frame(RST_STREAM, 0, 9, bytes(4)), (CONNECTION, PROTOCOL_ERROR)),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), (CONNECTION, PROTOCOL_ERROR)),
        ("6.5 SETTINGS ACK with octets", frame(SETTINGS, ACK, 0, bytes(6)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.5 SETTINGS of 5 octets", frame(SETTINGS, 0, 0, bytes(5)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.5 SETTINGS ACK once more is ignored", frames.settings_ack(), None),
        ("6.5.2 SETTINGS that are unknown are ignored", frames.settings([(0xAA, 1), (0, 7)]), None),
        ("6.5.2 ENABLE_PUSH 2", frames.settings([(ENABLE_PUSH, 2)]), (CONNECTION, PROTOCOL_ERROR)),
        (
            "6.5.2 INITIAL_WINDOW_SIZE 2^31",
            frames.settings([(INITIAL_WINDOW_SIZE, 2**31)]),
            (CONNECTION, FLOW_CONTROL_ERROR),
        ),
        (
            "6.5.2 MAX_FRAME_SIZE too small",
            frames.settings([(SETTING_MAX_FRAME_SIZE, 16_383)]),
            (CONNECTION, PROTOCOL_ERROR),
        ),
        (
            "6.5.2 MAX_FRAME_SIZE too large",
            frames.settings([(SETTING_MAX_FRAME_SIZE, 2**24)]),
            (CONNECTION, PROTOCOL_ERROR),
        ),
        (
            "8441 3 ENABLE_CONNECT_PROTOCOL 2",
            frames.settings([(ENABLE_CONNECT_PROTOCOL, 2)]),
            (CONNECTION, PROTOCOL_ERROR),
        ),
        (
            "8441 3 ENABLE_CONNECT_PROTOCOL taken back",
            frames.settings([(ENABLE_CONNECT_PROTOCOL, 1), (ENABLE_CONNECT_PROTOCOL, 0)]),
            (CONNECTION, PROTOCOL_ERROR),
        ),
        ("6.7 PING on a stream", frame(PING, 0, 1, bytes(8)), (CONNECTION, PROTOCOL_ERROR)),
        ("6.7 PING of 7 octets", frame(PING, 0, 0, bytes(7)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, bytes(8)), (CONNECTION, PROTOCOL_ERROR)),
        ("6.8 GOAWAY of 7 octets", frame(GOAWAY, 0, 0, bytes(7)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.9 WINDOW_UPDATE by 0", frames.window_update(0, 0), (CONNECTION, PROTOCOL_ERROR)),
        ("6.9 WINDOW_UPDATE by 0 on a stream", frames.window_update(1, 0), (1, PROTOCOL_ERROR)),
        ("6.9 WINDOW_UPDATE of 3 octets", frame(WINDOW_UPDATE, 0, 1, bytes(3)), (CONNECTION, FRAME_SIZE_ERROR)),
        ("6.9 WINDOW_UPDATE on an idle stream", frames.window_update(9, 1), (CONNECTION, PROTOCOL_ERROR)),
        ("6.9.1 a window above 2^31-1", frames.window_update(1, MAX_WINDOW), (1, FLOW_CONTROL_ERROR)),
        (
            "6.9.1 the connection's window above 2^31-1",
            frames.window_update(0, MAX_WINDOW),
            (CONNECTION, FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2 a window above 2^31-1 by SETTINGS",
            frames.window_update(1, 1) + frames.settings([(INITIAL_WINDOW_SIZE, MAX_WINDOW)]),
            (CONNECTION, FLOW_CONTROL_ERROR),
        ),
    ],
)
def test_rules(is_server: bool, name: str, octets: bytes, answer: tuple[int, int] | None) -> None:
    if is_server:
        end = begun(True)
        end.received(POST_1, 0.0)
    else:
        end = requesting()
    end.received(octets, 0.0)
    assert reactions(end) == (() if answer is None else (answer,)), name
    assert end.is_failed == (answer is not None and answer[0] == CONNECTION)
    assert ("malformed" in end.words()) == (answer is not None and answer[0] != CONNECTION)


def test_a_server_does_not_offer_to_take_pushes() -> None:
    """Section 6.5.2: a client may say 1, a server may not."""
    client, server = begun(False), begun(True)
    for end in (client, server):
        end.received(frames.settings([(ENABLE_PUSH, 1)]), 0.0)
    assert client.is_failed
    assert not server.is_failed


def test_settings_are_acknowledged_once_they_are_applied() -> None:
    """Section 6.5.3: the table of our encoder, too."""
    end = begun(True)
    end.received(frames.settings([(HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, 7)]) + headers(1, GET), 0.0)
    assert split_frames(end.take_output()) == [(SETTINGS, ACK, 0, b"")]
    assert end.words() == ["settings", "head"]
    assert end.sendable(1) == 7
    end.send_answer(1, 200, b"", b"", True)
    assert split_frames(end.take_output())[0][3] == b"\x20\x88"


def test_a_ping_is_answered() -> None:
    """Section 6.7: with its octets; and an answer is not."""
    end = begun(True)
    end.received(frames.ping(b"12345678", False) + frames.ping(b"abcdefgh", True), 0.0)
    assert split_frames(end.take_output()) == [(PING, ACK, 0, b"12345678")]
    assert end.seen == [("pong", b"abcdefgh")]


def test_a_reset_is_told_with_its_code() -> None:
    end = begun(True)
    end.received(POST_1 + frames.rst_stream(1, CANCEL) + frames.rst_stream(1, CANCEL), 0.0)
    assert end.seen[1:] == [("reset", 1, CANCEL)]
    assert not end.n_streams


def test_codes_that_nobody_knows_are_told_as_they_are() -> None:
    """Section 7: they mean nothing special."""
    end = begun(True)
    end.received(POST_1 + frames.rst_stream(1, 0xDEAD) + frames.goaway(0, 0xBEEF, b"") + headers(3, GET), 0.0)
    assert end.seen[1:3] == [("reset", 1, 0xDEAD), ("goaway", 0, 0xBEEF, b"")]
    assert end.words()[3:] == ["head"]


def test_what_comes_behind_the_reset_of_a_client() -> None:
    """Section 5.1: the server may not know of it yet. Its blocks are read for the table's sake."""
    end = requesting()
    end.reset(1, CANCEL)
    stored = frame(HEADERS, END_HEADERS, 1, b"\x88\x40\x01a\x01b")
    end.received(stored + frame(DATA, 0, 1, bytes(100)) + headers(1, [(b"c", b"d")], is_end=True), 0.0)
    assert end.seen == []
    end.send_request(end.open_stream(), b"GET", b"http", b"a", b"/", b"", b"", True)
    end.received(frame(HEADERS, END_HEADERS, 3, b"\x88\xbe"), 0.0)
    assert end.heads[0].lines == b"a: b\r\n"


def test_goaway_of_a_server() -> None:
    """Section 6.8: streams above its number were not processed, and are no more; the others go on."""
    end = begun(False)
    for _ in range(3):
        end.send_request(end.open_stream(), b"GET", b"http", b"a", b"/", b"", b"", True)
    end.received(frames.goaway(3, NO_ERROR, b"x" * 500), 0.0)
    assert end.seen == [("goaway", 3, NO_ERROR, b"x" * 256)]
    assert [end.has_stream(stream) for stream in (1, 3, 5)] == [True, True, False]
    assert end.open_stream() == 0
    end.received(headers(1, OK, is_end=True), 0.0)
    end.received(frames.goaway(1, ENHANCE_YOUR_CALM, b""), 0.0)
    assert end.seen[1:] == [("head", 1, 200, b"", True), ("goaway", 1, ENHANCE_YOUR_CALM, b"")]
    assert not end.n_streams
    end.received(frames.goaway(5, NO_ERROR, b""), 0.0)
    assert not end.is_failed


def test_goaway_of_a_client_ends_no_request() -> None:
    end = begun(True)
    end.received(POST_1 + frames.goaway(0, NO_ERROR, b""), 0.0)
    assert end.words() == ["head", "goaway"]
    assert end.has_stream(1)


def test_after_goaway_new_streams_are_ignored() -> None:
    """Section 6.8: the peer knows that they were not processed."""
    end = begun(True)
    end.received(headers(1, POST), 0.0)
    end.goaway(end.last_peer_stream)
    end.take_output()
    end.received(headers(3, POST) + frame(DATA, END_STREAM, 3, b"x") + frame(DATA, END_STREAM, 1, b"y"), 0.0)
    assert end.seen == [("head", 1, b"POST", b"/", b"", False), ("data", 1, b"y", True)]
    assert end.last_peer_stream == 1
    assert not end.n_output


def test_goaway_without_a_number_stops_nothing() -> None:
    end = begun(True)
    end.goaway(2**31 - 1)
    end.received(headers(1, GET, is_end=True), 0.0)
    assert end.words() == ["head"]


def test_a_last_stream_never_grows() -> None:
    """Section 6.8: also where an error follows that names the last one again."""
    end = begun(True)
    end.goaway(2**31 - 1)
    end.received(headers(1, POST), 0.0)
    end.goaway(end.last_peer_stream)
    end.received(headers(3, POST) + frame(DATA, 0, 0, b"x"), 0.0)
    said = [payload for kind, _, _, payload in split_frames(end.take_output()) if kind == GOAWAY]
    assert [int.from_bytes(payload[:4], "big") for payload in said] == [2**31 - 1, 1, 1]
    assert end.is_failed


def test_goaway_says_what_was_wrong() -> None:
    end = begun(True)
    end.received(POST_1 + frame(DATA, 0, 0, b"x"), 0.0)
    _, _, _, payload = split_frames(end.take_output())[0]
    assert payload == b"\0\0\0\1" + b"\0\0\0\1" + b"PROTOCOL_ERROR: DATA on stream 0"
    assert not end.n_streams


def flood(end: RecordingEnd, octets: bytes, count: int, now: float = 0.0) -> bool:
    """Send so many one after the other; does the connection live?"""
    for _ in range(count):
        end.received(octets, now)
    return not end.is_failed


FLOODS = {
    "PING": frames.ping(bytes(8), False),
    "PING ACK": frames.ping(bytes(8), True),
    "SETTINGS": frames.settings([]),
    "SETTINGS ACK": frames.settings_ack(),
    "PRIORITY": frame(PRIORITY, 0, 1, bytes(5)),
    "WINDOW_UPDATE by little": frames.window_update(0, 1),
    "WINDOW_UPDATE on a closed stream": frames.window_update(1, 100_000),
    "RST_STREAM on a closed stream": frames.rst_stream(1, CANCEL),
    "GOAWAY": frames.goaway(0, NO_ERROR, b""),
    "unknown": frame(0xBB, 0, 0),
}


@pytest.mark.parametrize("octets", FLOODS.values(), ids=FLOODS.keys())
def test_frames_that_ask_for_no_work_are_counted(octets: bytes) -> None:
    end = begun(True, OwnSettings(control_frames=20, control_frames_period_s=10.0))
    end.received(headers(1, POST) + frames.rst_stream(1, CANCEL), 0.0)
    assert flood(end, octets, 20)
    assert flood(end, octets, 10, now=5.0)
    assert not flood(end, octets, 1, now=5.0)
    assert end.words()[-2:] == ["flooded", "failed"]
    assert end.seen[-2] == ("flooded", "control_frames")
    assert reactions(end)[-1] == (CONNECTION, ENHANCE_YOUR_CALM)


def test_a_frame_of_very_many_settings_is_a_flood() -> None:
    end = begun(True)
    end.received(frames.settings([(4, 1)] * 64), 0.0)
    assert end.words() == ["settings"]
    end.received(frames.settings([(4, 1)] * 65), 0.0)
    assert end.words() == ["settings", "flooded", "failed"]


def test_frames_that_answer_what_was_sent_are_excused() -> None:
    """A receiver that gives little credit back for each piece, or measures each with a PING, is a good one."""
    end = begun(True, OwnSettings(control_frames=20))
    for stream in range(1, 401, 2):
        end.received(headers(stream, GET, is_end=True), 0.0)
        end.send_answer(stream, 200, b"", b"", False)
        end.send_data(stream, b"x" * 100, True)
        end.received(frames.window_update(0, 100) + frames.window_update(stream, 100) + FLOODS["PING"], 0.0)
    assert not end.is_failed
    assert not flood(end, FLOODS["PING"], 1100)


def test_windows_that_open_wide_are_not_counted() -> None:
    end = begun(True, OwnSettings(control_frames=20))
    end.received(POST_1, 0.0)
    assert flood(end, frames.window_update(1, 10_000), 1000)


def test_streams_that_are_reset_before_their_answer_are_counted() -> None:
    """CVE-2023-44487."""
    end = begun(True, OwnSettings(resets=10, resets_period_s=10.0))
    for stream in range(1, 21, 2):
        end.received(headers(stream, GET, is_end=True) + frames.rst_stream(stream, CANCEL), 0.0)
    end.received(headers(21, GET, is_end=True) + frames.rst_stream(21, CANCEL), 1.0)
    assert not end.is_failed
    end.received(headers(23, GET, is_end=True) + frames.rst_stream(23, CANCEL), 1.0)
    assert end.words()[-3:] == ["reset", "flooded", "failed"]
    assert end.seen[-2] == ("flooded", "resets")


def test_streams_that_are_reset_behind_their_answer_are_not() -> None:
    end = begun(True, OwnSettings(resets=1))
    for stream in range(1, 21, 2):
        end.received(headers(stream, POST), 0.0)
        end.send_answer(stream, 200, b"", b"", False)
        end.received(frames.rst_stream(stream, CANCEL), 0.0)
    assert not end.is_failed


def test_interim_answers_are_none() -> None:
    end = begun(True, OwnSettings(resets=1))
    for stream in (1, 3):
        end.received(headers(stream, POST), 0.0)
        end.send_answer(stream, 103, b"", b"", False)
        end.received(frames.rst_stream(stream, CANCEL), 0.0)
    assert end.is_failed


def test_a_server_that_resets_is_no_flood() -> None:
    end = begun(False, OwnSettings(resets=1))
    for _ in range(10):
        stream = end.open_stream()
        end.send_request(stream, b"GET", b"http", b"a", b"/", b"", b"", True)
        end.received(frames.rst_stream(stream, CANCEL), 0.0)
    assert end.words() == ["reset"] * 10


def test_limits_can_be_off() -> None:
    end = begun(True, OwnSettings(control_frames=0, resets=0))
    assert flood(end, FLOODS["PING"] + FLOODS["unknown"], 2000)
    end.received(POST_1 + frame(DATA, 0, 1) * 2000 + frame(DATA, END_STREAM, 1, b"x"), 0.0)
    assert end.words() == ["head", "data"]


def test_replies_are_no_longer_than_what_they_reply_to() -> None:
    """Twice as long at most, of whatever came: whoever stops reading from a peer that does not read is bounded."""
    for flood in (
        frames.ping(bytes(8), False) * 900,
        frames.settings([]) * 900,
        b"".join([headers(stream, [(b"A", b"")]) for stream in range(1, 1801, 2)]),
    ):
        end = begun(True, OwnSettings(control_frames=0, resets=0))
        end.received(flood, 0.0)
        assert 0 < len(end.take_output()) <= 2 * len(flood)
    end = begun(True)
    end.received(frames.ping(bytes(8), False) * 5000, 0.0)
    assert end.is_failed
    assert end.n_output <= 1002 * 17 + 200
