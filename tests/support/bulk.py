"""Large streams that are checked while they pass: made from a seed, compared piece by piece, never held as a whole."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import LbProxy

MIB = 1024 * 1024
RSS_GROWTH_BYTES = 8 * MIB
# Odd lengths, so that neither pages nor segments nor pieces of a pipe ever fall on the same place again.
_NOISE = random.Random(5).randbytes(1_000_003)


class Pattern:
    """A reproducible stream of `size` bytes."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._seed = seed

    def piece(self, at: int, length: int) -> bytes:
        """The bytes from `at` on, at most `length` and at most to the end of the noise."""
        start = (at + self._seed * 7919) % len(_NOISE)
        return _NOISE[start : start + min(length, self.size - at)]


class Check:
    """Compares what arrives with a pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.n = 0

    def feed(self, data: bytes | memoryview) -> None:
        at = 0
        while at < len(data):
            wanted = self.pattern.piece(self.n, len(data) - at)
            assert wanted, f"{len(data) - at} bytes more than the {self.pattern.size} that were sent"
            assert data[at : at + len(wanted)] == wanted, f"wrong bytes between {self.n} and {self.n + len(wanted)}"
            at += len(wanted)
            self.n += len(wanted)

    @property
    def is_whole(self) -> bool:
        return self.n == self.pattern.size


def send_pattern(sock: socket.socket, pattern: Pattern, start: int = 0, stop: int | None = None) -> None:
    """Send the bytes from `start` to `stop` (default: all)."""
    at, stop = start, pattern.size if stop is None else stop
    while at < stop:
        piece = pattern.piece(at, min(256 * 1024, stop - at))
        sock.sendall(piece)
        at += len(piece)


def receive_pattern(
    sock: socket.socket, check: Check, count: int | None = None, *, pause_s: float = 0.0, first: bytes = b""
) -> None:
    """Read `count` bytes, or to the end of the stream. pause_s: how long to sleep for every MiB."""
    check.feed(first)
    buffer = memoryview(bytearray(256 * 1024))
    done, paused = len(first), 0
    while count is None or done < count:
        size = sock.recv_into(buffer, min(len(buffer), count - done) if count is not None else len(buffer))
        if not size:
            assert count is None, f"the stream ended after {done} of {count} bytes"
            return
        check.feed(buffer[:size])
        done += size
        if pause_s and done // MIB > paused:
            paused = done // MIB
            time.sleep(pause_s)


@contextlib.contextmanager
def in_background(work: threading.Thread) -> Iterator[None]:
    """Run a thread beside the block and wait for it."""
    work.start()
    yield
    work.join(60)
    assert not work.is_alive(), f"{work.name} is not done"


@contextlib.contextmanager
def sending(sock: socket.socket, pattern: Pattern, *, fin: bool = False) -> Iterator[None]:
    """Send a whole pattern while the block runs."""

    def run() -> None:
        send_pattern(sock, pattern)
        if fin:
            sock.shutdown(socket.SHUT_WR)

    with in_background(threading.Thread(target=run, name="sender", daemon=True)):
        yield


def pipes(lb: LbProxy) -> int:
    """How many descriptors of pipes the daemon has; two of them are one pipe."""
    count = 0
    for entry in Path(f"/proc/{lb.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(entry).startswith("pipe:")
    return count


@contextlib.contextmanager
def flat_memory(lb: LbProxy) -> Iterator[None]:
    """The daemon's resident set never grows by more than the bound while the block runs."""
    before = peak = lb.rss_bytes()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.02):
            peak = max(peak, lb.rss_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    assert peak - before <= RSS_GROWTH_BYTES, f"RSS grew by {(peak - before) / MIB:.1f} MiB"
