"""What ten connections of HTTP/2 send that costs them little and lbproxy much, and how they pour it out.

As a program: `h2_floods.py PORT`. Each line of its input is the name of a kind; it answers with the same line when ten
connections of it are over, that is ended, or out of what they may send. It gives way to all others (nice 19).
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from lbproxy.protocol.h2.codes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from tests.support.h2_cases import settings, u32
from tests.support.h2_ends import block, frame, headers

N_CONNECTIONS = 10
MOST_OCTETS = 1 << 20  # of one connection, if nobody stops it
POST = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/flood"))
GET = ((b":method", b"GET"), *POST[1:])
BIG_GET = (*GET[:3], (b":path", b"/big"))
STREAMS = range(1, 200_000, 2)
Pieces = Iterator[bytes]


def rapid_reset() -> Pieces:
    """CVE-2023-44487."""
    for number in STREAMS:
        yield headers(number, GET, is_end=True) + frame(RST_STREAM, 0, number, u32(8))


def made_you_reset() -> Pieces:
    """CVE-2025-8671: it is lbproxy that has to reset the streams."""
    for number in STREAMS:
        yield headers(number, POST) + frame(WINDOW_UPDATE, 0, number, u32(0))


def malformed() -> Pieces:
    """Likewise, by heads that are not allowed."""
    for number in STREAMS:
        yield headers(number, GET[1:], is_end=True)


def too_many_streams() -> Pieces:
    """Beyond SETTINGS_MAX_CONCURRENT_STREAMS, again and again."""
    for number in STREAMS:
        yield headers(number, POST)


def continuation() -> Pieces:
    """CVE-2024-27316: a field block without an end."""
    yield frame(HEADERS, END_STREAM, 1, block(GET))
    for number in range(100_000):
        yield frame(CONTINUATION, 0, 1, block([(b"x-%d" % number, b"y" * 100)]))


def empty_continuation() -> Pieces:
    yield frame(HEADERS, END_STREAM, 1, block(GET))
    while True:
        yield frame(CONTINUATION, 0, 1)


def pings() -> Pieces:
    """CVE-2019-9512; the answers are not read."""
    while True:
        yield frame(PING, 0, 0, b"12345678")


def settings_flood() -> Pieces:
    """CVE-2019-9515, likewise."""
    while True:
        yield settings((4, 65_535), (1, 0), (1, 4096))


def large_settings() -> Pieces:
    while True:
        yield frame(SETTINGS, 0, 0, b"\xf0\x00\x00\x00\x00\x00" * 2_700)


def priorities() -> Pieces:
    """CVE-2019-9513."""
    for number in STREAMS:
        yield frame(PRIORITY, 0, number, u32(1) + b"\x10")


def unknown_frames() -> Pieces:
    while True:
        yield frame(0x2A, 0, 0, b"x" * 100)


def empty_data() -> Pieces:
    """CVE-2019-9518."""
    yield headers(1, POST)
    while True:
        yield frame(DATA, 0, 1)


def pongs() -> Pieces:
    """Answers to PING that nobody has sent."""
    while True:
        yield frame(PING, ACK, 0, b"12345678")


def acknowledgements() -> Pieces:
    while True:
        yield settings(flags=ACK)


def goaways() -> Pieces:
    while True:
        yield frame(GOAWAY, 0, 0, u32(0, 0) + b"bye" * 100)


def resets_of_closed_streams() -> Pieces:
    """CVE-2019-9514: of one stream, again and again."""
    yield headers(1, GET[1:], is_end=True)
    while True:
        yield frame(RST_STREAM, 0, 1, u32(8))


def empty_names() -> Pieces:
    """CVE-2019-9516: fields of no octets."""
    for number in STREAMS:
        yield headers(number, [*GET, (b"", b"")], is_end=True)


def padding_alone() -> Pieces:
    """DATA that is all padding: there are no octets, and it takes of the windows."""
    yield headers(1, POST)
    while True:
        yield frame(DATA, PADDED, 1, b"\x00")


def small_updates() -> Pieces:
    yield headers(1, POST)
    while True:
        yield frame(WINDOW_UPDATE, 0, 1, u32(1))


def hpack_bomb() -> Pieces:
    """One large entry of the table, and references to it of one octet each; and no window for what is answered."""
    entry = b"\x40\x06x-bomb\x7f\x81\x1e" + b"v" * 3968
    yield settings((4, 0))
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block(GET) + entry)
    for number in range(3, 200_000, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, block(GET) + b"\xbe" * 4000)


def crumbs() -> Pieces:
    """CVE-2026-49975: many small cookies that are one field for the server."""
    entry = b"\x40\x06cookie\x01a"
    yield settings((4, 0))
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block(GET) + entry)
    for number in range(3, 200_000, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, block(GET) + b"\xbe" * 900)


def equal_crumbs() -> Pieces:
    """The same within the limits of a head: one cookie of 50 octets, which a head names 94 times."""
    entry = b"\x40\x06cookie\x32" + b"c" * 50
    yield settings((4, 0))
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block(GET) + entry)
    for number in range(3, 200, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, block(GET) + b"\xbe" * 94)


def no_window() -> Pieces:
    """CVE-2019-9517: a hundred large answers for which there is never room."""
    yield settings((4, 0))
    for number in range(1, 200, 2):
        yield headers(number, BIG_GET, is_end=True)


def unread_answers() -> Pieces:
    """The same with all the room that there is, and nobody reads."""
    yield settings((4, 0x7FFFFFFF)) + frame(WINDOW_UPDATE, 0, 0, u32(0x7FFF0000))
    for number in range(1, 200, 2):
        yield headers(number, BIG_GET, is_end=True)


def unfinished_bodies() -> Pieces:
    """A hundred requests whose bodies begin, and stop."""
    for number in range(1, 200, 2):
        yield headers(number, POST) + frame(DATA, 0, number, bytes(1000))


# Those that end the connection, with GOAWAY, and those that only wait.
ENDED = (
    rapid_reset, made_you_reset, malformed, too_many_streams, continuation, empty_continuation, pings, settings_flood,
    large_settings, priorities, unknown_frames, empty_data, small_updates, pongs, acknowledgements, goaways,
    resets_of_closed_streams, empty_names, padding_alone,
)  # fmt: skip
WAITING = (hpack_bomb, crumbs, equal_crumbs, unfinished_bodies)
UNTAKEN = (no_window, unread_answers)
EVERY: dict[str, Callable[[], Pieces]] = {kind.__name__: kind for kind in (*ENDED, *WAITING, *UNTAKEN)}


@contextlib.contextmanager
def connections(port: int) -> Iterator[list[socket.socket]]:
    """Ten that have begun to speak HTTP/2."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(N_CONNECTIONS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.sendall(PREFACE + settings())
            socks.append(sock)
        yield socks


@functools.lru_cache(maxsize=32)
def batches(kind: Callable[[], Pieces]) -> list[bytes]:
    """What one connection sends at most. It is made once, so that ten of them send as fast as they can."""
    made: list[bytes] = []
    batch = b""
    for piece in kind():
        batch += piece
        if len(batch) >= 16_384:
            made.append(batch)
            batch = b""
            if sum(map(len, made)) >= MOST_OCTETS:
                return made
    return [*made, batch]


def pour(sock: socket.socket, kind: Callable[[], Pieces]) -> None:
    """Send until there is nothing more, the other end has had enough, or takes nothing more."""
    sock.settimeout(2.0)
    with contextlib.suppress(OSError):
        for batch in batches(kind):
            sock.sendall(batch)


def main(port: int) -> None:
    """See the module."""
    os.nice(19)
    for line in sys.stdin:
        kind = EVERY[line.strip()]
        batches(kind)
        with connections(port) as socks:
            threads = [threading.Thread(target=pour, args=(sock, kind)) for sock in socks]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(line.strip(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
