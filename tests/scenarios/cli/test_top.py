"""`lbproxy top` against a running daemon: as a page, in a pipe, and as a screen with keys."""

from __future__ import annotations

import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.scenarios.cli.test_commands import lbproxy
from tests.support import build
from tests.support.daemon import START_S, STOP_S, LbProxy
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until


def config(port: int = 0) -> dict[str, object]:
    return {
        "admin": {"bind": f"127.0.0.1:{port}"},
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": ["127.0.0.1:1", "127.0.0.1:2"], "health_check": "off"}},
    }


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    with LbProxy(config(), tmp_path_factory.mktemp("lb")) as running:
        yield running


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so would what it starts itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def admin(lb: LbProxy) -> str:
    return f"--admin=127.0.0.1:{lb.port('admin')}"


class Output:
    """What a program has written to a descriptor so far; a thread reads it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end of a pty is gone
            while piece := os.read(self._fd, 65536):
                self._pieces.append(piece)

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode(errors="replace")


@contextmanager
def at_a_terminal(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Output]]:
    """A command whose standard streams are a terminal of 24 lines; the process, the terminal, what it shows."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen([*build.COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    try:
        yield process, ours, Output(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def state(lb: LbProxy, server: str = "127.0.0.1:1") -> object:
    pools = lb.status()["pools"]
    assert isinstance(pools, list)
    return next(item["state"] for item in pools[0]["servers"] if item["name"] == server)


def test_once_is_one_page(lb: LbProxy, tmp_path: Path) -> None:
    done = lbproxy("top", "--once", admin(lb), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("lbproxy ")
    assert lines[1].startswith("pool p: 2 of 2 usable, 0.0 req/s, errors 0.0%")
    assert [line.split()[:2] for line in lines if line.startswith("p/")] == [
        ["p/127.0.0.1:1", "up"],
        ["p/127.0.0.1:2", "up"],
    ]


def test_a_pipe_sees_the_daemon_go_and_come(tmp_path: Path) -> None:
    port = consecutive_ports(1)
    with LbProxy(config(port), tmp_path / "lb") as lb:
        with subprocess.Popen(
            [*build.COMMAND, "top", admin(lb)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as top:
            assert top.stdout is not None and top.stderr is not None
            out, err = Output(top.stdout.fileno()), Output(top.stderr.fileno())
            try:
                wait_until(lambda: "pool p: 2 of 2 usable" in out.text, "a page", START_S)
                lb.signal(signal.SIGTERM)
                wait_until(lambda: "lost, trying again" in err.text, "the end of the connection to be told")
                wait_until(lambda: not lb.is_running, "the daemon to end")
                with LbProxy(config(port), tmp_path / "next") as following:
                    seen = len(out.text)
                    wait_until(lambda: "pool p: 2 of 2 usable" in out.text[seen:], "a page of the next one")
                    top.send_signal(signal.SIGINT)
                    assert top.wait(STOP_S) == 0
                    wait_until(lambda: following.status()["state"] == "running", "it to be unhurt")
                assert err.text.count("\n") == 1
                assert "\x1b" not in out.text
            finally:
                top.kill()
        lb.start()


def test_keys_drain_the_chosen_server_and_leave(lb: LbProxy) -> None:
    with at_a_terminal("top", admin(lb)) as (process, terminal, shown):
        wait_until(lambda: "p/127.0.0.1:1" in shown.text, "the servers", START_S)
        os.write(terminal, b"d")
        wait_until(lambda: "Drain p/127.0.0.1:1?" in shown.text, "the question")
        assert state(lb) == "up"
        os.write(terminal, b"y")
        wait_until(lambda: state(lb) == "drain", "the drain")
        os.write(terminal, b"r")
        wait_until(lambda: "Make ready" in shown.text, "the question")
        os.write(terminal, b"y")
        wait_until(lambda: state(lb) == "up", "the end of the drain")
        os.write(terminal, b"q")
        assert process.wait(STOP_S) == 0


def test_a_screen_without_anybody_to_ask_says_why() -> None:
    with at_a_terminal("top", "--admin=127.0.0.1:1") as (process, _, shown):
        assert process.wait(START_S) == 1
        wait_until(lambda: "nothing listens on 127.0.0.1:1" in shown.text, "the reason")


def test_text_at_a_terminal_is_drawn_anew(lb: LbProxy) -> None:
    with at_a_terminal("top", "--plain", admin(lb)) as (process, _, shown):
        wait_until(lambda: shown.text.count("\x1b[H\x1b[2J") >= 2, "two pages", START_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == 0
