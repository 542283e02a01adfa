"""The writer of logs, which can never hold up traffic.

It takes lines on the event loop and hands them in batches to a thread that may block. Lines are dropped and counted,
never waited for, when the output is blocked, closed or full; writing resumes by itself when it can.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.telemetry.recent import RecentLines

_BATCH_LINES: Final = 1024  # a wake-up of the thread costs what ten lines cost
_REOPEN_RETRY_S: Final = 1.0
_BLOCKED_POLL_MS: Final = 50


@mypyc_attr(allow_interpreted_subclasses=True)
class LogWriter:
    """Lines to stdout, stderr or a file, through a daemon thread.

    The event loop calls `append`, and `flush_soon` at least every 250 ms; neither blocks nor raises. At most max_lines
    and max_bytes wait for the thread; beyond that whole batches are dropped. `dropped` counts every lost line.
    `on_problem(text)` is called in the thread, at most once a second, when lines are lost or a file does not open.
    recent: keeps the last lines, those that are lost included. is_shared: other processes write to the same place, so
    what is written at once is whole lines, of PIPE_BUF at most: more than that may be torn apart in a pipe.
    """

    def __init__(
        self,
        path: str,
        *,
        max_lines: int = 65_536,
        max_bytes: int = 16 << 20,
        on_problem: Callable[[str], None] | None = None,
        recent: RecentLines | None = None,
        is_shared: bool = False,
    ) -> None:
        """Raises OSError if the output cannot be opened."""
        self.path = path
        self._fd = _open(path)
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._on_problem = on_problem
        self.recent = recent
        self._problem_at = float("-inf")
        self._pending: list[str] = []
        self._batches: deque[tuple[int, bytes]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._close_by = float("inf")
        self._reopen_wanted = False
        self._reopen_at = 0.0
        self._mid_line = False
        self._is_shared = is_shared
        # Each of these has one writer (the first three the loop, the others the thread), so no lock is needed.
        self._lines_in = 0
        self._bytes_in = 0
        self._dropped_in = 0
        self._lines_out = 0
        self._bytes_out = 0
        self._dropped_out = 0
        self._writer_thread = threading.Thread(target=self._run, name=f"log-writer:{path}", daemon=True)
        self._writer_thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._dropped_in + self._dropped_out

    def append(self, line: str) -> None:
        """Queue one line, without its newline."""
        pending = self._pending
        pending.append(line)
        if len(pending) >= _BATCH_LINES:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Hand what was appended to the thread."""
        batch = self._pending
        if not batch:
            return
        self._pending = []
        batch.append("")
        data = "\n".join(batch).encode("utf-8", "backslashreplace")
        count = len(batch) - 1
        if self.recent is not None:
            self.recent.keep(count, data)
        lines = self._lines_in - self._lines_out + count
        if self._closing or lines > self._max_lines or self._bytes_in - self._bytes_out + len(data) > self._max_bytes:
            self._dropped_in += count
            return
        self._lines_in += count
        self._bytes_in += len(data)
        self._batches.append((count, data))
        self._wake.set()

    def reopen(self) -> None:
        """Open the file again by its name (it was moved or deleted). If that fails the old one stays in use and the
        opening is tried again each second."""
        if self.path not in _STANDARD:
            self._reopen_wanted = True
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, for at most timeout_s, and stop; the rest counts as dropped. Blocks the caller."""
        if self._closing:
            return
        self.flush_soon()
        self._close_by = time.monotonic() + timeout_s
        self._closing = True
        self._wake.set()
        self._writer_thread.join(timeout_s + 2 * _BLOCKED_POLL_MS / 1000)
        if self._writer_thread.is_alive():
            self._dropped_in += self._lines_in - self._lines_out

    # --- in the thread ---

    def _run(self) -> None:
        while True:
            self._wake.wait(_REOPEN_RETRY_S if self._reopen_wanted else None)
            self._wake.clear()
            self._reopen_if_wanted()
            while self._batches:
                count, data = self._batches.popleft()
                self._write(count, data)
                self._lines_out += count
                self._bytes_out += len(data)
                self._reopen_if_wanted()
            if self._closing and not self._batches:
                os.close(self._fd)
                return

    def _write(self, count: int, data: bytes) -> None:
        """Write one batch. What cannot be written is counted by its newlines and forgotten."""
        if self._mid_line:
            data = b"\n" + data  # the line that was cut by a full disk must not run into this one
        done = 0
        try:
            while done < len(data):
                try:
                    done += os.write(self._fd, memoryview(data)[done : self._end(data, done)])
                except BlockingIOError:
                    self._wait_writable()
        except OSError as error:
            lost = min(count, data.count(b"\n", done))
            self._dropped_out += lost
            self._mid_line = data[done - 1] != 0x0A if done else self._mid_line
            self._report(f"access log {self.path}: {error.strerror}; {self.dropped} lines dropped so far")
        else:
            self._mid_line = False

    def _end(self, data: bytes, start: int) -> int:
        """Up to where to write at once."""
        if not self._is_shared or len(data) - start <= select.PIPE_BUF:
            return len(data)
        last = data.rfind(b"\n", start, start + select.PIPE_BUF)
        if last < 0:  # a longer line
            last = data.find(b"\n", start)
        return last + 1

    def _wait_writable(self) -> None:
        """The output is a non-blocking pipe that is full: wait, but notice a reopen or a close."""
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        while not poller.poll(_BLOCKED_POLL_MS):
            if self._reopen_wanted or time.monotonic() >= self._close_by:
                raise OSError(errno.EAGAIN, "nobody reads it")

    def _reopen_if_wanted(self) -> None:
        if not self._reopen_wanted or time.monotonic() < self._reopen_at:
            return
        try:
            fd = _open(self.path)
        except OSError as error:
            self._reopen_at = time.monotonic() + _REOPEN_RETRY_S
            self._report(f"access log {self.path} cannot be reopened, the old file stays in use: {error.strerror}")
            return
        os.close(self._fd)
        self._fd = fd
        self._mid_line = False
        self._reopen_wanted = False
        self._reopen_at = 0.0

    def _report(self, text: str) -> None:
        now = time.monotonic()
        if self._on_problem is not None and now - self._problem_at >= 1.0:
            self._problem_at = now
            self._on_problem(text)


# By their paths a socket, which systemd gives, cannot be opened.
_STANDARD: Final = {"stdout": 1, "stderr": 2, "/dev/stdout": 1, "/dev/stderr": 2}


def _open(path: str) -> int:
    """A descriptor of its own to write to. Raises OSError."""
    number = _STANDARD.get(path)
    if number is None:
        # Non-blocking so that a named pipe without a reader is an error here instead of a hang; files ignore it.
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    # A process started with the stream closed gets the number for the next thing it opens, perhaps a client socket.
    if (sys.__stdout__ if number == 1 else sys.__stderr__) is None:
        raise OSError(errno.EBADF, f"{path} is closed")
    return os.dup(number)
