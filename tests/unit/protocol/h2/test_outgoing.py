"""Commands become frames: heads, bodies within windows, credit, ends."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_STREAM_ID,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import (
    GET,
    POST,
    RecordingEnd,
    begun,
    frame,
    headers,
    requesting,
    shake,
    split_frames,
)


def joined() -> tuple[RecordingEnd, RecordingEnd]:
    """A client's and a server's end that know each other's settings."""
    client, server = RecordingEnd(False), RecordingEnd(True)
    shake(client, server)
    client.seen.clear()
    server.seen.clear()
    return client, server


def test_a_request_and_its_answer() -> None:
    client, server = joined()
    stream = client.open_stream()
    client.send_request(
        stream, b"POST", b"http", b"a:80", b"/p?q", b"Content-Type: a/b\r\n", b"content-length: 5\r\n", False
    )
    assert client.send_data(stream, b"hello", True) == 5
    shake(client, server)
    assert server.seen == [
        ("head", 1, b"POST", b"/p?q", b"content-type: a/b\r\n", False),
        ("data", 1, b"hello", True),
    ]
    head = server.heads[0]
    assert (head.scheme, head.authority, head.content_length) == (b"http", b"a:80", 5)
    server.send_answer(stream, 100, b"", b"", False)
    server.send_answer(stream, 200, b"Server: x\r\n", b"", False)
    server.send_data(stream, memoryview(b"x" * 20_000), False)
    server.send_trailers(stream, b"Grpc-Status: 0\r\n")
    shake(client, server)
    assert client.seen == [
        ("head", 1, 100, b"", False),
        ("head", 1, 200, b"server: x\r\n", False),
        ("data", 1, b"x" * 16_384, False),
        ("data", 1, b"x" * 3_616, False),
        ("trailers", 1, ((b"grpc-status", b"0"),)),
    ]
    assert not client.n_streams
    assert not server.n_streams


def test_the_answer_to_head_has_a_length_and_no_octets() -> None:
    client, server = joined()
    stream = client.open_stream()
    client.send_request(stream, b"HEAD", b"http", b"a", b"/", b"", b"", True)
    shake(client, server)
    server.send_answer(stream, 200, b"", b"content-length: 17\r\n", True)
    shake(client, server)
    assert client.words() == ["head"]
    assert client.heads[0].content_length == 17


def test_a_reset_is_told_and_the_rest_ignored() -> None:
    client, server = joined()
    stream = client.open_stream()
    client.send_request(stream, b"POST", b"http", b"a", b"/", b"", b"", False)
    shake(client, server)
    client.send_data(stream, b"late", False)
    server.reset(stream, CANCEL)
    shake(client, server)
    assert client.seen == [("reset", 1, CANCEL)]
    assert server.words() == ["head"]
    assert client.send_data(stream, b"later", True) == 5
    assert not client.take_output()


def test_a_connection_begins_with_preface_settings_and_its_window() -> None:
    """Section 3.4; 8441 section 3 where it is wanted."""
    client, server = RecordingEnd(False), RecordingEnd(True, OwnSettings(websocket=True))
    begin = client.take_output()
    assert begin.startswith(PREFACE)
    assert [kind for kind, *_ in split_frames(begin)] == [SETTINGS, WINDOW_UPDATE]
    server.received(begin, 0.0)
    client.received(server.take_output(), 0.0)
    assert client.peer.max_concurrent_streams == 100
    assert client.peer.enable_connect_protocol
    assert client.peer.max_header_list_size == 32 * 1024
    assert client.peer.initial_window == 256 * 1024
    assert server.peer.is_known
    assert not server.peer.enable_connect_protocol


def test_a_small_window_of_the_connection_is_the_one_that_everybody_begins_with() -> None:
    end = RecordingEnd(True, OwnSettings(connection_window=65_535))
    assert [kind for kind, *_ in split_frames(end.take_output())] == [SETTINGS]


def test_numbers_of_streams() -> None:
    """Section 5.1.1: odd ones for a client, none twice, none after the last."""
    client = begun(False)
    assert [client.open_stream() for _ in range(3)] == [1, 3, 5]
    client._next_own = MAX_STREAM_ID
    assert client.open_stream() == MAX_STREAM_ID
    assert client.open_stream() == 0


def test_no_stream_is_opened_after_goaway_or_a_failure() -> None:
    client = begun(False)
    client.received(frames.goaway(MAX_STREAM_ID, 0, b""), 0.0)
    assert client.open_stream() == 0
    client = begun(False)
    client.received(frame(DATA, 0, 0, b"x"), 0.0)
    assert client.open_stream() == 0


def test_a_head_that_is_large_goes_in_several_frames() -> None:
    """Section 6.10."""
    end = begun(True)
    end.received(headers(1, GET, is_end=True), 0.0)
    end.send_answer(1, 200, b"a: %b\r\n" % (b"x" * 40_000), b"", True)
    sent = split_frames(end.take_output())
    assert [(kind, flags, len(payload)) for kind, flags, _, payload in sent] == [
        (HEADERS, END_STREAM, 16_384),
        (CONTINUATION, 0, 16_384),
        (CONTINUATION, END_HEADERS, 40_000 - 2 * 16_384 + 8),
    ]
    client = requesting(OwnSettings(head_bytes=64 * 1024))
    for kind, flags, _, payload in sent:
        client.received(frame(kind, flags, 1, payload), 0.0)
    assert client.heads[0].lines == b"a: %b\r\n" % (b"x" * 40_000)


def serving(window: int = 65_535) -> RecordingEnd:
    """A server's end with POST on stream 1, whose peer has such a window for each stream."""
    end = begun(True)
    end.received(frames.settings([(INITIAL_WINDOW_SIZE, window)]) + headers(1, POST), 0.0)
    end.send_answer(1, 200, b"", b"", False)
    end.take_output()
    end.seen.clear()
    return end


def test_data_stops_at_the_windows() -> None:
    """Section 6.9.1: of the stream, and of the connection."""
    end = serving(1_000)
    assert end.sendable(1) == 1_000
    assert end.send_data(1, bytes(1_500), True) == 1_000
    assert end.send_data(1, b"x", True) == 0
    assert [(kind, flags, len(octets)) for kind, flags, _, octets in split_frames(end.take_output())] == [
        (DATA, 0, 1_000)
    ]
    end.received(frames.window_update(1, 200_000), 0.0)
    assert end.seen == [("opened", 1)]
    assert end.send_data(1, bytes(100_000), True) == 65_535 - 1_000
    end.received(frames.window_update(1, 1), 0.0)
    assert end.send_data(1, bytes(100), True) == 0
    end.received(frames.window_update(0, 100), 0.0)
    assert end.seen == [("opened", 1), ("opened", 0)]
    end.take_output()
    assert end.send_data(1, bytes(100), True) == 100
    assert split_frames(end.take_output()) == [(DATA, END_STREAM, 1, bytes(100))]


def test_the_end_needs_no_window() -> None:
    end = serving(0)
    assert end.send_data(1, b"", False) == 0
    assert end.send_data(1, b"", True) == 0
    assert split_frames(end.take_output())[-1] == (DATA, END_STREAM, 1, b"")
    with pytest.raises(ValueError, match="has ended"):
        end.send_data(1, b"x", True)
    with pytest.raises(ValueError, match="has ended"):
        end.send_trailers(1, b"a: b\r\n")


def test_windows_that_become_negative() -> None:
    """Section 6.9.2."""
    end = serving(1_000)
    assert end.send_data(1, bytes(800), False) == 800
    end.received(frames.settings([(INITIAL_WINDOW_SIZE, 100)]), 0.0)
    assert end.sendable(1) == 0
    assert end.send_data(1, b"x", False) == 0
    end.received(frames.window_update(1, 700), 0.0)
    assert end.seen == [("settings",)]
    end.received(frames.window_update(1, 1), 0.0)
    assert end.seen == [("settings",), ("opened", 1)]
    assert end.send_data(1, b"xy", False) == 1
    end.received(frames.settings([(INITIAL_WINDOW_SIZE, 300)]), 0.0)
    assert end.seen[2:] == [("settings",), ("opened", 1)]
    assert end.sendable(1) == 200


def credits_of(end: RecordingEnd) -> list[tuple[int, int]]:
    return [
        (stream, int.from_bytes(payload, "big"))
        for kind, _, stream, payload in split_frames(end.take_output())
        if kind == WINDOW_UPDATE
    ]


def test_credit_is_given_back_in_large_pieces() -> None:
    end = begun(True, gives_back=False)
    end.received(headers(1, POST), 0.0)
    for _ in range(7):
        end.received(frame(DATA, 0, 1, bytes(16_384)), 0.0)
        end.consumed(1, 16_384)
    assert credits_of(end) == []
    end.consumed(1, 16_384)
    assert credits_of(end) == [(1, 8 * 16_384)]
    for _ in range(24):
        end.consumed(1, 16_384)
    assert credits_of(end) == [(1, 8 * 16_384)] * 2 + [(0, 32 * 16_384), (1, 8 * 16_384)]


def test_a_peer_that_does_not_know_our_window_gets_its_credit_in_time() -> None:
    """It may send 65,535 octets until it has acknowledged our settings."""
    end = RecordingEnd(True, gives_back=False)
    end.received(PREFACE + frames.settings([]) + headers(1, POST) + frame(DATA, 0, 1, bytes(16_384)) * 3, 0.0)
    end.take_output()
    end.consumed(1, 3 * 16_384)
    assert credits_of(end) == [(1, 3 * 16_384)]
    end.received(frames.settings_ack() + frame(DATA, 0, 1, bytes(16_384)) * 16, 0.0)
    assert end.words() == ["settings", "head"] + ["data"] * 19


def test_credit_of_a_stream_that_is_no_more_is_the_connections() -> None:
    end = begun(True, OwnSettings(connection_window=65_535), gives_back=False)
    end.received(headers(1, POST) + frame(DATA, 0, 1, bytes(16_384)) * 3, 0.0)
    end.reset(1, CANCEL)
    end.take_output()
    end.consumed(1, 3 * 16_384)
    assert credits_of(end) == [(0, 3 * 16_384)]


def test_a_stream_is_reset_once() -> None:
    end = serving()
    end.reset(1, CANCEL)
    end.reset(1, CANCEL)
    end.reset(7, CANCEL)
    assert [(kind, stream) for kind, _, stream, _ in split_frames(end.take_output())] == [(RST_STREAM, 1)]
    assert not end.has_stream(1)
    assert end.sendable(1) == 0


def test_commands_for_a_stream_that_is_no_more_do_nothing() -> None:
    """And no block is made for one: its entries would be in our table, and not in the peer's."""
    end = serving()
    end.reset(1, CANCEL)
    end.take_output()
    for _ in range(3):
        end.send_answer(1, 200, b"name: value\r\n", b"", False)
        end.send_trailers(1, b"name: value\r\n")
        end.send_request(1, b"GET", b"http", b"a", b"/", b"", b"", True)
    assert end.send_data(1, b"abc", True) == 3
    assert not end.n_output
    assert end.encoder.n_spelled == 0


def test_ping() -> None:
    client, server = joined()
    client.ping(b"12345678")
    shake(client, server)
    assert client.seen == [("pong", b"12345678")]
