"""The installed daemon with whatever a supervisor gives it for standard input, output and error."""

from __future__ import annotations

import itertools
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support import build
from tests.support.daemon import START_S, STOP_S
from tests.support.nursery import Nursling, can_start, start
from tests.support.waiting import PATIENCE_S, wait_until

ASK = b"GET /asked HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
REDIRECTIONS = ("<&-", ">&-", "2>&-")
SUBSETS = [subset for size in range(4) for subset in itertools.combinations(REDIRECTIONS, size)]


class Place:
    """A daemon that answers on a unix socket, so that nobody has to read its log to find it."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "web.sock"
        self.config = folder / "lb.yaml"
        self.config.write_text(
            f"admin: {{bind: off}}\n"
            f"listeners: [{{bind: 'unix:{self.socket}', routes: [{{respond: {{status: 200, body: here}}}}]}}]\n"
        )

    def ask(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.socket))
            client.sendall(ASK)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def serves(self) -> bool:
        try:
            return self.ask().endswith(b"here")
        except OSError:
            return False


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def clean() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def runs(process: subprocess.Popen[bytes] | Nursling, place: Place) -> None:
    """It serves, opens its logs again, serves, and stops with status 0."""
    try:
        wait_until(lambda: place.serves() or process.poll() is not None, "the daemon to serve", START_S)
        assert process.poll() is None, f"ended with {process.returncode}"
        process.send_signal(signal.SIGUSR1)
        assert place.ask().endswith(b"here")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("closed", SUBSETS, ids=lambda subset: " ".join(subset) or "none")
def test_closed_streams_do_not_matter(closed: tuple[str, ...], place: Place) -> None:
    command = ["bash", "-c", f'exec "$@" {" ".join(closed)}', "bash", *build.COMMAND, str(place.config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        runs(process, place)
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.read().decode(), process.stderr.read().decode()
    assert ("/asked" in out) == (">&-" not in closed)
    assert ("nothing was cut" in err) == ("2>&-" not in closed)
    assert ("stdout was closed at the start" in err) == (">&-" in closed and "2>&-" not in closed)


def whole(fd: int) -> bytes:
    """All that was written, in whatever pieces it comes, after the end of whoever wrote."""
    pieces = []
    with suppress(OSError):  # the end of a terminal is an error of its own
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def a_pipe(clean: ExitStack, _folder: Path) -> tuple[int, Callable[[], bytes]]:
    read, write = os.pipe()
    clean.callback(os.close, read)
    return write, lambda: whole(read)


def a_socket(clean: ExitStack, _folder: Path) -> tuple[int, Callable[[], bytes]]:
    """As systemd gives for the journal."""
    ours, theirs = socket.socketpair()
    clean.enter_context(ours)
    return theirs.detach(), lambda: whole(ours.fileno())


def a_terminal(clean: ExitStack, _folder: Path) -> tuple[int, Callable[[], bytes]]:
    ours, theirs = pty.openpty()
    clean.callback(os.close, ours)
    return theirs, lambda: whole(ours)


def a_file(clean: ExitStack, folder: Path) -> tuple[int, Callable[[], bytes]]:
    path = folder / "output"
    return os.open(path, os.O_WRONLY | os.O_CREAT), path.read_bytes


def a_full_disk(_clean: ExitStack, _folder: Path) -> tuple[int, Callable[[], bytes]]:
    return os.open("/dev/full", os.O_WRONLY), lambda: b""


def nobody(_clean: ExitStack, _folder: Path) -> tuple[int, Callable[[], bytes]]:
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    return write, lambda: b""


KINDS = [a_pipe, a_socket, a_terminal, a_file, a_full_disk, nobody]
ITSELF = (a_pipe, a_terminal)  # kinds with which the command is started; with the others it has been imported already


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_streams_of_every_kind(
    stream: str,
    kind: Callable[[ExitStack, Path], tuple[int, Callable[[], bytes]]],
    place: Place,
    clean: ExitStack,
    tmp_path: Path,
) -> None:
    fd, written = kind(clean, tmp_path)
    process: subprocess.Popen[bytes] | Nursling
    words = ["run", str(place.config)]
    with open(os.devnull, "wb") as devnull:
        out, err = (fd, devnull.fileno()) if stream == "stdout" else (devnull.fileno(), fd)
        if kind in ITSELF or not can_start({}):
            process = subprocess.Popen([*build.COMMAND, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        else:
            process = start(words, {}, stdout=out, stderr=err)
    os.close(fd)
    runs(process, place)
    if kind not in (a_full_disk, nobody):
        assert (b"/asked" if stream == "stdout" else b"listening") in written()
